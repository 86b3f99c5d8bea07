"""Models of images and texts, such as CLIP and SigLIP, with their processors."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from .._engine.copying import unwrapped
from .._engine.evaluator import Evaluator
from .._validation.models import check_model
from .._validation.weights import NO_CODE, weights_only
from ..errors import UnilensError, first_line, require
from ..models.classifier import PixelClassifier
from ..models.images import ImageSource, Range
from ..models.preprocessing import of_transformers
from .classifier import EncodedText, TextClassifier
from .embeddings import embedding_layer
from .loading import check_transformers, quiet

_PADDED = ("siglip",)
"""Types of models that are trained on texts padded to their full length."""


class _Tower(nn.Module):
    """One side of a model.

    Args:
        network: of transformers; it is used, not changed.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network
        self.training = False


class ImageTower(_Tower):
    """The image tower of a model: from normalised images to embeddings `(B, D)`."""

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the embeddings `(B, D)` of images `(B, C, H, W)`."""
        return _embeddings(self.network.get_image_features(pixel_values=pixels))


class TextTower(_Tower):
    """The text tower of a model: from ids `(B, N)` to embeddings `(B, D)`."""

    @property
    def config(self) -> Any:
        """The configuration of the text tower."""
        return getattr(self.network.config, "text_config", self.network.config)

    def get_input_embeddings(self) -> nn.Module:
        """Return the layer of token embeddings."""
        return embedding_layer(getattr(self.network, "text_model", self.network))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the embeddings `(B, D)` of texts."""
        given = {} if attention_mask is None else {"attention_mask": attention_mask}
        return _embeddings(self.network.get_text_features(input_ids=input_ids, **given))


class ImageTextModel:
    """A model that embeds images and texts in one space, with its processor.

    Args:
        network: of transformers, such as `CLIPModel` or `SiglipModel`, in eval mode; it is not
            changed.
        processor: its own, with an image processor and a tokenizer.
        name: how to load it again.

    Attributes:
        images: the image tower, from pixels `(B, C, H, W)` in [0, 1] to embeddings `(B, D)`.
        texts: the text tower with the tokenizer; the embeddings take the place of logits.

    Raises:
        UnilensError: the network has no two towers, or the processor lacks a part.
    """

    def __init__(self, network: nn.Module, processor: Any, name: str = "") -> None:
        network = unwrapped(network)
        check_model(network)
        kind = type(network).__name__
        for what in ("image", "text"):
            require(
                callable(getattr(network, f"get_{what}_features", None)),
                f"expected a model that embeds images and texts, such as CLIPModel or SiglipModel, "
                f"got {kind}, which has no {what} tower; for one tower take unilens.explain with "
                "score=unilens.scores.similarity(embedding)",
            )
        for part in ("image_processor", "tokenizer"):
            require(
                callable(getattr(processor, part, None)),
                f"expected the processor of {kind}, with an image_processor and a tokenizer, got "
                f"{type(processor).__name__} without {part}; load it by AutoProcessor",
            )
        config: Any = network.config
        vision = getattr(config, "vision_config", config)
        preprocessing = of_transformers(processor.image_processor, vision, name or kind)
        device = next(network.parameters()).device
        self.network, self.name = network, name
        self.images = PixelClassifier(ImageTower(network), preprocessing, name=name).to(device)
        tower = TextTower(network)
        padded = config.model_type in _PADDED
        self.texts = TextClassifier(
            tower,
            processor.tokenizer,
            name,
            padded=tower.config.max_position_embeddings if padded else None,
        )

    def pixels(self, image: ImageSource, *, value_range: Range = None) -> Tensor:
        """Return an image as the pixels `(1, C, H, W)` in [0, 1] that the image tower sees.

        Args:
            image: a path, an open file, a PIL image, an array or a tensor, as for `read_image`.
            value_range: the values that are black and white, as for `read_image`.
        """
        weight = next(self.network.parameters())
        pixels = self.images.preprocess(image, value_range=value_range).unsqueeze(0)
        wide = weight.dtype if weight.dtype == torch.float64 else torch.float32
        return pixels.to(weight.device, wide)

    def embed_image(self, pixels: Tensor) -> Tensor:
        """Return the embedding `(1, D)` of an image `(1, C, H, W)`.

        Raises:
            UnilensError: the network does not take pictures of the processor's size.
        """
        try:
            return Evaluator(self.images)(pixels).detach()
        except UnilensError as error:
            shape = " x ".join(map(str, pixels.shape[2:]))
            raise UnilensError(
                f"expected the processor of {type(self.network).__name__}, got one whose pictures "
                f"of {shape} pixels it does not take: {first_line(error)}; load the processor "
                "saved with the model"
            ) from error

    def encode(self, text: str) -> tuple[EncodedText, Tensor]:
        """Return a text, encoded for the text tower, and its embedding `(1, D)`.

        Raises:
            UnilensError: the text is empty or too long, or its embedding does not depend on it.
        """
        encoded = self.texts.encode(text)
        with torch.no_grad():
            embedding = encoded.model(encoded.embeddings)
            without = encoded.model(torch.zeros_like(encoded.embeddings))
        require(
            not torch.equal(embedding, without),
            f"expected an embedding that depends on the text, but {type(self.network).__name__} "
            "reads none of its tokens: the tokenizer's end-of-text token is not the one of the "
            "model; load the processor saved with the model",
        )
        return encoded, embedding

    @property
    def logit_note(self) -> str:
        """How the model's own logit follows from the cosine similarity."""
        scale, bias = (getattr(self.network, f"logit_{part}", None) for part in ("scale", "bias"))
        note = "the score is the cosine similarity of the two embeddings, in [-1, 1]"
        if not isinstance(scale, Tensor):
            return note
        shift = f" {bias.item():+.3g}" if isinstance(bias, Tensor) else ""
        return f"{note}; the model's own logit is {math.exp(scale.item()):.3g} × it{shift}"


def load_image_text_model(name: str, *, device: str | torch.device | None = None) -> ImageTextModel:
    """Return a model of images and texts by name, in eval mode.

    Args:
        name: `hf:REPO`, a repository or a local folder of the model and its processor.
        device: where to put it; the CPU by default.

    Raises:
        UnilensError: the model cannot be loaded, or has no two towers; the message says why.
    """
    prefix, _, repo = name.partition(":")
    require(
        prefix == "hf" and bool(repo),
        f"expected the name of a model of images and texts as hf:REPO or hf:FOLDER, got {name!r}",
    )
    transformers = check_transformers()
    try:
        with quiet(), weights_only():
            processor = transformers.AutoProcessor.from_pretrained(repo, **NO_CODE)
            network = transformers.AutoModel.from_pretrained(repo, **NO_CODE)
            network = network if device is None else network.to(device)
    except Exception as error:  # hubs raise whatever their network libraries raise
        raise UnilensError(
            f"expected {name} to be a model of images and texts with its processor, but it could "
            f"not be loaded: {first_line(error)}; check the name and the network"
        ) from error
    return ImageTextModel(network.eval(), processor, name)


def _embeddings(result: Any) -> Tensor:
    """Return embeddings `(B, D)` from what a tower returns in any version of transformers."""
    embeddings = result if isinstance(result, Tensor) else getattr(result, "pooler_output", None)
    if not isinstance(embeddings, Tensor) or embeddings.ndim != 2:
        raise UnilensError(
            f"expected a tower that gives one embedding per input (B, D), got "
            f"{type(result).__name__}"
        )
    return embeddings
