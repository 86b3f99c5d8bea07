"""Text classifiers by name, and what loading any model of texts takes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from .._validation.imports import import_from_string
from .._validation.weights import NO_CODE, weights_only
from ..errors import UnilensError, UnknownNameError, first_line
from .classifier import TextClassifier
from .model import TextModel

Loaded = TypeVar("Loaded", bound=TextModel)


def load_text_classifier(name: str, *, device: str | torch.device | None = None) -> TextClassifier:
    """Return a text classifier by name, in eval mode.

    Args:
        name: `hf:REPO`, a repository or a local folder of a sequence classifier and its tokenizer,
            or `py:package.module:function`, whose function returns a `TextClassifier`.
        device: where to put it; the CPU by default.

    Raises:
        UnknownNameError: no such kind of name.
        UnilensError: the model cannot be loaded, or is no classifier; the message says why.
    """
    return load_text_model(TextClassifier, name, device, lambda _: "SequenceClassification")


def load_text_model(
    kind: type[Loaded],
    name: str,
    device: str | torch.device | None,
    head: Callable[[Any], str],
) -> Loaded:
    """Return a network of transformers with its tokenizer by name, in eval mode.

    Args:
        kind: of the result.
        name: `hf:REPO` or `py:package.module:function`.
        device: where to put it; the CPU by default.
        head: from a configuration to the name of the class of networks, after `AutoModelFor`.

    Raises:
        UnknownNameError: no such kind of name.
        UnilensError: the model cannot be loaded, or is another kind; the message says why.
    """
    prefixes: Mapping[str, Callable[[str], Loaded]] = {
        "hf": lambda repo: kind(*_hugging_face(repo, kind.kind, head)),
        "py": lambda place: _python(place, kind),
    }
    prefix, _, rest = name.partition(":")
    if prefix not in prefixes:
        raise UnknownNameError("kind of text model", prefix, prefixes, "Expected KIND:NAME.")
    model = prefixes[prefix](rest)
    model.name = name
    if device is not None:
        try:
            model.network.to(device)
        except (RuntimeError, AssertionError) as error:
            raise UnilensError(f"could not use the device {str(device)!r}: {error}") from error
    return model


def check_transformers() -> Any:
    """Return the library transformers; raise a `UnilensError` where it is not installed."""
    try:
        import transformers
    except ModuleNotFoundError:
        raise UnilensError(
            "models of Hugging Face need transformers; run: pip install 'unilens[hf]'"
        ) from None
    return transformers


def _hugging_face(repo: str, kind: str, head: Callable[[Any], str]) -> tuple[Any, Any]:
    """Return a network and its tokenizer."""
    transformers = check_transformers()
    try:
        with quiet(), weights_only():
            tokenizer = transformers.AutoTokenizer.from_pretrained(repo, **NO_CODE)
            config = transformers.AutoConfig.from_pretrained(repo, **NO_CODE)
            loader = getattr(transformers, f"AutoModelFor{head(config)}")
            network, report = loader.from_pretrained(repo, output_loading_info=True, **NO_CODE)
    except Exception as error:  # hubs raise whatever their network libraries raise
        raise UnilensError(
            f"expected hf:{repo} to be a {kind} with its tokenizer, but it could not "
            f"be loaded: {first_line(error)}; check the name and the network"
        ) from error
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise UnilensError(
            f"expected hf:{repo} to come with its tokenizer, got one that knows no words; save "
            "the tokenizer beside the model (tokenizer.save_pretrained)"
        )
    missing = sorted(report["missing_keys"])
    if missing:
        saved = f", saved as {config.architectures[0]}," if config.architectures else ""
        raise UnilensError(
            f"expected a trained {kind}, but hf:{repo}{saved} has no weights for "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}; train its head first"
        )
    return network.eval(), tokenizer


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from printing while it loads or runs."""
    import transformers

    logs, hub = transformers.utils.logging, logging.getLogger("huggingface_hub")
    level, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    hub_level = hub.level
    hub.setLevel(logging.ERROR)
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(level)
        hub.setLevel(hub_level)
        if bars:
            logs.enable_progress_bar()


def _python(place: str, kind: type[Loaded]) -> Loaded:
    made = import_from_string(place)()
    if not isinstance(made, kind):
        raise UnilensError(
            f"expected {place} to return a unilens.text.{kind.__name__}, got {type(made).__name__}"
        )
    return made
