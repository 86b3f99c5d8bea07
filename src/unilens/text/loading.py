"""Text classifiers by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .._validation.imports import import_from_string
from ..errors import UnilensError, UnknownNameError, first_line
from .classifier import TextClassifier


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
    prefix, _, rest = name.partition(":")
    if prefix not in _PREFIXES:
        raise UnknownNameError("kind of text model", prefix, _PREFIXES, "Expected KIND:NAME.")
    classifier = _PREFIXES[prefix](rest)
    classifier.name = name
    if device is not None:
        try:
            classifier.network.to(device)
        except (RuntimeError, AssertionError) as error:
            raise UnilensError(f"could not use the device {str(device)!r}: {error}") from error
    return classifier


def check_transformers() -> Any:
    """Return the library transformers; raise a `UnilensError` where it is not installed."""
    try:
        import transformers
    except ModuleNotFoundError:
        raise UnilensError(
            "models of Hugging Face need transformers; run: pip install 'unilens[hf]'"
        ) from None
    return transformers


def _hugging_face(repo: str) -> TextClassifier:
    transformers = check_transformers()
    try:
        with quiet(transformers):
            tokenizer = transformers.AutoTokenizer.from_pretrained(repo)
            network, report = transformers.AutoModelForSequenceClassification.from_pretrained(
                repo, output_loading_info=True
            )
    except Exception as error:  # hubs raise whatever their network libraries raise
        raise UnilensError(
            f"expected hf:{repo} to be a sequence classifier with its tokenizer, but it could not "
            f"be loaded: {first_line(error)}; check the name and the network"
        ) from error
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise UnilensError(
            f"expected hf:{repo} to come with its tokenizer, got one that knows no words; save "
            "the tokenizer beside the model (tokenizer.save_pretrained)"
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise UnilensError(
            f"expected a trained sequence classifier, but hf:{repo} has no weights for "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}; train its head first"
        )
    return TextClassifier(network.eval(), tokenizer)


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Keep transformers from printing while it loads."""
    logs = transformers.utils.logging
    level, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(level)
        if bars:
            logs.enable_progress_bar()


def _python(place: str) -> TextClassifier:
    made = import_from_string(place)()
    if not isinstance(made, TextClassifier):
        raise UnilensError(
            f"expected {place} to return a unilens.text.TextClassifier, got {type(made).__name__}"
        )
    return made


_PREFIXES: dict[str, Callable[[str], TextClassifier]] = {"hf": _hugging_face, "py": _python}
