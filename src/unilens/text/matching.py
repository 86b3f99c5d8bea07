"""Why an image and a text match: maps of both towers of a model such as CLIP."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._engine.evaluator import Evaluator
from .._validation.inputs import check_seed
from ..attribution import Attribution, summary
from ..errors import UnknownNameError, require
from ..methods import explain, methods
from ..methods.defaults import default_method
from ..models.images import ImageSource, Range
from ..scores import OutputScore, bind, similarity
from ..scores.values import Similarity
from .attribution import TextAttribution
from .classifier import EncodedText
from .image_text import ImageTextModel
from .methods import explain_by, text_methods

_FOR_TEXTS = ("ig", {"baseline": "image_mean"})
"""The default for texts, whose settings are checked."""
_OURS = ("score", "outputs", "target", "channels", "groups")
"""Arguments of `unilens.explain` that the match decides."""


@dataclass(frozen=True, eq=False)
class MatchScore(OutputScore):
    """A weighted sum of the cosine similarities of an embedding with others, and a constant.

    Args:
        anchors: the similarities with fixed embeddings.
        weights: of the similarities.
        constant: added to the sum.
    """

    anchors: tuple[Similarity, ...]
    weights: tuple[float, ...] = (1.0,)
    constant: float = 0.0

    def __call__(self, outputs: Any, /) -> Tensor:
        """Return the scores `(M,)`."""
        pairs = zip(self.weights, self.anchors, strict=True)
        terms = [weight * anchor(outputs) for weight, anchor in pairs]
        return torch.stack(terms).sum(0) + self.constant


@dataclass(frozen=True, slots=True)
class MatchAttribution:
    """Why an image matches a text, or one text rather than another.

    Attributes:
        pixels: what the image tower sees, `(1, C, H, W)` in [0, 1].
        image: the attribution at the pixels.
        text: the attribution at the text's tokens.
        other: with `against`, the attribution of the same score at the other text's tokens, whose
            positive values speak for the first text; None without.
        similarities: cosine similarities of the image with the text, and with the other.
        notes: what the score is.
    """

    pixels: Tensor
    image: Attribution
    text: TextAttribution
    other: TextAttribution | None
    similarities: tuple[float, ...]
    notes: tuple[str, ...] = ()

    @property
    def score(self) -> float:
        """The cosine similarity; with another text, the difference of the two similarities."""
        return self.similarities[0] - sum(self.similarities[1:])

    @property
    def texts(self) -> tuple[TextAttribution, ...]:
        """The attributions of one text or two."""
        return (self.text,) if self.other is None else (self.text, self.other)

    def __repr__(self) -> str:
        shapes = f"{tuple(self.pixels.shape[1:])} pixels, {len(self.text.tokens.names)} tokens"
        return f"MatchAttribution ({self.score:+.3f}) by {summary(self.image, shapes)}"


def explain_match(
    model: ImageTextModel,
    image: ImageSource,
    text: str,
    method: str | None = None,
    *,
    against: str | None = None,
    text_method: str | None = None,
    text_settings: Mapping[str, Any] | None = None,
    value_range: Range = None,
    seed: int = 0,
    **settings: Any,
) -> MatchAttribution:
    """Explain why an image matches a text by its pixels and by the tokens and words of the text.

    The score is the cosine similarity of the two embeddings, in [-1, 1]. Each side is explained
    with the other side's embedding fixed. CLIP and SigLIP multiply the similarity by a constant,
    which scales all values alike.

    Args:
        model: of images and texts, with its processor; it is not changed.
        image: a path, an open file, a PIL image, an array or a tensor, as for `read_image`.
        text: one text.
        method: a name in `unilens.methods`, for both sides; None for the default of each:
            `uni_blur` for images, `ig` from the mean embedding for texts.
        against: another text; then the score is the difference of the two similarities: why this
            text rather than that one.
        text_method: a name in `text_methods`; None for `method`, or the default for texts where
            `method` reads grids of pixels, as `gradcam` does.
        text_settings: of the text's method alone; they come before `settings`.
        value_range: the values that are black and white, as for `read_image`.
        seed: of everything random.
        **settings: of the method and its parts, by name, for both sides; a side whose method lacks
            a setting does without.

    Returns:
        The attributions of both sides, in units of the score.

    Raises:
        UnknownNameError: no such method or setting.
        UnilensError: the image, a text, a setting or the model do not fit.
    """
    check_seed(seed)
    require(
        isinstance(model, ImageTextModel),
        f"expected an ImageTextModel, got {type(model).__name__}; wrap the model and its processor "
        "in unilens.text.ImageTextModel(model, processor)",
    )
    require(
        against != text,
        "expected against to be another text, got the same; leave it out, or name another one",
    )
    pixels = model.pixels(image, value_range=value_range)
    image_method = method or default_method(model.images, pixels, settings).name
    if text_method is None and (method is None or method in text_methods):
        text_method = method
    chosen = _settings_of_sides(image_method, text_method, settings, text_settings or {})
    texts = [_Side(*model.encode(each)) for each in (text, against) if each is not None]
    require(
        len({side.encoded.tokens.names for side in texts}) == len(texts),
        "expected against to be another text, got one with the same tokens; name another one",
    )
    features = model.embed_image(pixels)
    similar = similarity(features[0])
    similarities = tuple(float(similar(side.embedding)) for side in texts)
    signs = (1.0, -1.0)[: len(texts)]
    score = MatchScore(tuple(similarity(side.embedding[0]) for side in texts), signs)
    image_map = explain(
        model.images, pixels, method, seed=seed, channels="first", score=score, **chosen.image
    )
    text_maps = [
        _explain_text(model, side.encoded, chosen, MatchScore((similar,), (sign,), rest), seed)
        for side, sign, rest in zip(texts, signs, _constants(similarities), strict=True)
    ]
    other = text_maps[1] if len(text_maps) > 1 else None
    return MatchAttribution(
        pixels, image_map, text_maps[0], other, similarities, (model.logit_note,)
    )


class _Side(NamedTuple):
    """A text, encoded, and its embedding `(1, D)`."""

    encoded: EncodedText
    embedding: Tensor


class _Settings(NamedTuple):
    """The settings of both sides, and the method of the text; None for the default."""

    image: dict[str, Any]
    text_method: str | None
    text: dict[str, Any]


def _settings_of_sides(
    image_method: str,
    text_method: str | None,
    settings: Mapping[str, Any],
    text_settings: Mapping[str, Any],
) -> _Settings:
    """Return the settings that each side's method has; raise where neither has one.

    Raises:
        UnknownNameError: no such method, or no side has a setting.
    """
    for name in _OURS:
        require(
            name not in settings and name not in text_settings,
            f"expected no {name}= for a match, whose score is the cosine similarity; leave it out",
        )
    own = text_methods[text_method or _FOR_TEXTS[0]]
    by_default = {} if text_method else _FOR_TEXTS[1]
    valid = methods[image_method].settings_with(settings)
    text_valid = own.settings_with({**by_default, **settings, **text_settings})
    for name in settings:
        if name not in valid and name not in text_valid:
            sides = " and ".join(dict.fromkeys((image_method, own.card.name)))
            raise UnknownNameError(f"setting of {sides}", name, sorted({*valid, *text_valid}))
    return _Settings(
        {name: value for name, value in settings.items() if name in valid},
        text_method,
        {name: value for name, value in settings.items() if name in text_valid}
        | dict(text_settings),
    )


def _constants(similarities: tuple[float, ...]) -> tuple[float, ...]:
    """Return what the other text adds to the score, for each text."""
    return (0.0,) if len(similarities) == 1 else (-similarities[1], similarities[0])


def _explain_text(
    model: ImageTextModel, encoded: EncodedText, chosen: _Settings, score: MatchScore, seed: int
) -> TextAttribution:
    """Return the attribution of the score at the tokens of one text."""
    bound = bind(Evaluator(encoded.model, channels="first"), encoded.embeddings, score)[0]
    name, settings = chosen.text_method, chosen.text
    if "score" in text_methods[name or _FOR_TEXTS[0]].settings_with(settings):
        settings = {**settings, "score": "logit"}
    explanation = explain_by(
        model.texts, encoded, bound.evaluator, name, settings, bound.target, seed=seed
    )
    return dataclasses.replace(explanation, label="the match with the image")
