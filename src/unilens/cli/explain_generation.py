"""`unilens explain-text --generate`: what each generated token owes to each token before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._validation.weights import NO_CODE
from ..errors import UnilensError, require
from ..specs import Spec
from . import output
from .photographs import read_device
from .text_reports import SUFFIXES, TextReport

if TYPE_CHECKING:
    from torch import Tensor

    from ..text import GenerationAttribution, LanguageModel


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """What is explained of each text.

    Attributes:
        count: most tokens that are generated, or None.
        continuation: explained in place of a generated text, or None.
        against: the word that tokens are contrasted with, or None.
        by: one of `UNITS`.
        seed: of everything random.
        by_default: whether the method is the default, which the model decides.
    """

    count: int | None
    continuation: str | None
    against: str | None
    by: str
    seed: int
    by_default: bool

    def __post_init__(self) -> None:
        """Raise unless there is one text to explain."""
        from .._validation.settings import check_count

        require(
            self.count is None or self.continuation is None,
            "expected --generate or --continuation, got both; a given continuation is explained "
            "as it is",
        )
        if self.count is not None:
            check_count("--generate", self.count)


class GenerationExplainer:
    """Explains texts by a language model and several methods.

    Args:
        model: its name.
        device: where it runs.
        specs: of methods, by the text that describes them.
        options: what is explained.
    """

    def __init__(
        self, model: str, device: str, specs: Mapping[str, Spec], options: GenerationOptions
    ) -> None:
        from .._validation.inputs import check_seed
        from ..text import build_text_method, load_language_model

        check_seed(options.seed)
        with output.waiting(f"loading {model}"):
            self.model: LanguageModel = load_language_model(model, device=read_device(device))
            for spec in specs.values():
                build_text_method(self.model, spec.name, spec.settings)  # refused before any text
        self.specs, self.options = specs, options

    def __call__(self, text: str) -> TextReport:
        """Return the report of one prompt."""
        from ..text.generation.render import page

        attributions = {}
        for name, spec in self.specs.items():
            with output.waiting(f"{name}: {text[:40]}"):
                found = self._explain(text, spec)
            shown = str(found.provenance["method"]) if self.options.by_default else name
            attributions[shown] = found
        first = next(iter(attributions.values()))
        title = f"why “{first.continuation.text.strip()[:60]}”?"
        return TextReport(
            _record(self.model, attributions),
            page(attributions, title, self.options.by),
            lambda path: _show(attributions, self.options.by, path),
        )

    def _explain(self, text: str, spec: Spec) -> GenerationAttribution:
        from ..text import generate

        options = self.options
        return generate(
            self.model,
            prompt=text,
            method=None if options.by_default else spec.name,
            max_new_tokens=options.count or 1,
            continuation=options.continuation,
            against=options.against,
            seed=options.seed,
            **spec.settings,
        )


def refuse_language_model(model: str, error: UnilensError) -> None:
    """Raise another error where a name that is no classifier's is that of a language model."""
    prefix, _, repo = model.partition(":")
    if prefix != "hf":
        return
    try:
        import transformers

        names = transformers.AutoConfig.from_pretrained(repo, **NO_CODE).architectures or []
    except Exception:  # hubs raise whatever their network libraries raise: the first error stands
        return
    heads = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
    if any(name.endswith(heads) for name in names):
        raise UnilensError(
            f"expected a sequence classifier, got the language model {model}; add --generate N to "
            "explain N tokens that it writes, or --continuation TEXT"
        ) from error


def _record(
    model: LanguageModel, attributions: Mapping[str, GenerationAttribution]
) -> dict[str, Any]:
    """Return everything about one prompt's explanations as plain data."""
    from ..output import records

    first = next(iter(attributions.values()))
    return {
        "schema": records.SCHEMA,
        "text": first.prompt.text,
        "model": {"name": model.name},
        "continuation": first.continuation.text,
        "tokens": {"prompt": first.prompt.names, "continuation": first.continuation.names},
        "offsets": {"prompt": first.prompt.offsets, "continuation": first.continuation.offsets},
        "probability": records.numbers(first.probability),
        "against": first.against,
        "notes": first.notes,
        "methods": {
            name: {
                "score": records.numbers(attribution.score),
                "baseline_score": _numbers(attribution.baseline_score),
                "completeness_gap": records.numbers(attribution.completeness_gap),
                "values": [records.numbers(row) for row in attribution.values],
                **attribution.provenance,
            }
            for name, attribution in attributions.items()
        },
    }


def _numbers(values: Tensor | None) -> Sequence[float | None] | None:
    from ..output import records

    return None if values is None else records.numbers(values)


def _show(attributions: Mapping[str, GenerationAttribution], by: str, path: Path) -> None:
    from ..text.generation.render import warning_lines_of
    from ..text.generation.terminal import rich_matrix

    first = next(iter(attributions.values()))
    output.show(first.continuation.text, title=first.prompt.text, highlight=False)
    output.show_written(path, SUFFIXES)
    for attribution in attributions.values():
        output.show()
        output.show_renderable(rich_matrix(attribution, by))
        for line in warning_lines_of(attribution):
            output.show(f"  {line}", highlight=False)
    for note in first.notes:
        output.show(f"  note: {note}")
