"""The methods and baselines of texts: the registered ones, and baselines of one token."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from .._engine.evaluator import Evaluator
from .._ops.precision import to_float64
from .._validation.inputs import Target
from ..attribution import Attribution
from ..baselines import Baseline, Constant, baselines
from ..errors import NotApplicableError
from ..explainer import Method
from ..methods import methods
from ..methods.contradiction import measure_signs
from ..registry import Card, Composed, Entry, Registry
from ..scores.bound import ScoredModel
from .attribution import TextAttribution
from .classifier import EncodedText, TextClassifier
from .embeddings import AtEmbeddings
from .model import TextModel

_CANCELLED = 1e-5
"""Of the absolute values of a token: a sum below this share of them is rounding."""


@dataclass(frozen=True)
class TokenEverywhere(Baseline):
    """The baseline in which every token of the text is the same.

    The tokens that the tokenizer adds are unchanged.

    Args:
        token: "pad" or "mask".
    """

    token: str

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` unless the model is one of texts."""
        if not isinstance(_without_score(model), AtEmbeddings):
            raise NotApplicableError(
                f"expected a text for the baseline {self.token}, got inputs of shape "
                f"{tuple(inputs.shape[1:])}; use another baseline, or unilens.text.explain_text"
            )

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> Tensor:
        """Return the baseline `(B, E, L)`; see `Baseline`."""
        self.check(model, inputs)
        embeddings = cast(AtEmbeddings, _without_score(model)).everywhere(self.token)
        return embeddings.to(inputs).expand_as(inputs).clone()


def _without_score(model: Evaluator) -> nn.Module:
    """Return the model behind a score of what it returns."""
    return model.model.model if isinstance(model.model, ScoredModel) else model.model


text_baselines: Registry[Baseline] = Registry("baseline")
"""The baselines of texts: the registered ones, and those of one token."""

_REFERENCE = "Sundararajan et al. 2017, arXiv 1703.01365, section 6.4"
text_baselines.add(
    Card("pad", "token", "the padding token's embedding at every position of the text", _REFERENCE),
    lambda: TokenEverywhere("pad"),
)
text_baselines.add(
    Card("mask", "token", "the mask token's embedding at every position of the text", _REFERENCE),
    lambda: TokenEverywhere("mask"),
)
text_baselines.add(
    Card("zero", "token", "0 at every position of the text; the same as black", _REFERENCE),
    lambda: Constant(0.0),
)
for _baseline in baselines.values():
    text_baselines.register(_baseline)


def _for_texts(entry: Entry[Method]) -> Entry[Method]:
    if not isinstance(entry, Composed) or "baseline" not in entry.component_registries:
        return entry
    return dataclasses.replace(
        entry, component_registries={**entry.component_registries, "baseline": text_baselines}
    )


DEFAULT_SPEC = "ig:baseline=image_mean"
"""What `explain_text` takes without a method; docs/warnings.md has the measurements."""
_OF_PICTURES = {"gradcam", "guided_gradcam", "edges"}
"""Methods that read grids of pixels, which a transformer's tokens x channels are not."""
text_methods: Registry[Method] = Registry("method")
"""The registered methods except those of pictures, with the baselines of texts."""
for _name, _method in methods.items():
    if _name not in _OF_PICTURES:
        text_methods.register(_for_texts(_method))


def build_text_method(model: TextModel, method: str, settings: Mapping[str, Any]) -> Method:
    """Return a method with its settings; where it has `units`, they are typical norms by default.

    Args:
        model: whose embeddings define the typical norm.
        method: a name in `text_methods`.
        settings: of the method and its parts, by name.

    Raises:
        UnknownNameError: no such method or setting.
        UnilensError: a setting does not fit.
    """
    entry = text_methods[method]
    defaults = {"units": model.typical_norm} if "units" in entry.settings_with(settings) else {}
    return entry(**{**defaults, **settings})


def explain_text(
    classifier: TextClassifier,
    text: str,
    method: str | None = None,
    target: Target = None,
    *,
    seed: int = 0,
    outputs: str | None = None,
    **settings: Any,
) -> TextAttribution:
    """Explain a model's prediction by the tokens and words of a text.

    The method runs at the embeddings of the text's own tokens, all of their E values; special
    tokens stay fixed, so that the words account for all of the change of the score.

    Args:
        classifier: of texts; it is not changed.
        text: one text.
        method: a name in `text_methods`; None for the default, `ig` from the text's mean embedding.
        target: class index or label; None for the class that the model predicts.
        seed: of everything random.
        outputs: what the network's outputs are, as in `unilens.explain`; None for the
            `problem_type` of its configuration, or to detect it.
        **settings: of the method and its parts, by name: `n_steps=30`, `baseline="mask"`,
            `budget=0.5` (in typical norms of an embedding).

    Returns:
        The attribution, by token and by word, in units of the score.

    Raises:
        UnknownNameError: no such method or setting.
        UnilensError: the text, a setting, the target or the model do not fit.
    """
    if method is not None:
        build_text_method(classifier, method, settings)  # errors before the text is read
    encoded = classifier.encode(text)
    model = Evaluator(encoded.model, outputs=outputs, channels="first")
    return explain_by(classifier, encoded, model, method, settings, target, seed=seed)


def explain_by(
    classifier: TextClassifier,
    encoded: EncodedText,
    model: Evaluator,
    method: str | None,
    settings: Mapping[str, Any],
    target: Target,
    *,
    seed: int,
) -> TextAttribution:
    """Return the attribution of an encoded text by a method, or by the default; see `explain_text`.

    Args:
        classifier: of texts.
        encoded: by the classifier.
        model: runs `encoded.model`.
        method: a name in `text_methods`; None for the default.
        settings: of the method and its parts, by name.
        target: class index or label; None for the class that the model predicts.
        seed: of everything random.
    """
    if method is not None:
        explainer = build_text_method(classifier, method, settings)
        return explain_encoded(
            classifier, encoded, model, explainer, target, method=method, seed=seed
        )
    settings = {"baseline": "image_mean", **settings}
    if settings["baseline"] == "image_mean" and _is_uniform(encoded.embeddings):
        settings["baseline"] = _missing_token(encoded.model)
    start = "the text's mean embedding" if settings["baseline"] == "image_mean" else "other tokens"
    explanation = explain_by(classifier, encoded, model, "ig", settings, target, seed=seed)
    reason = f"ig from {start}, the default for texts"
    attribution = explanation.attribution.with_provenance(default=reason)
    return dataclasses.replace(explanation, attribution=attribution)


def explain_encoded(
    classifier: TextClassifier,
    encoded: EncodedText,
    model: Evaluator,
    explainer: Method,
    target: Target,
    *,
    method: str,
    seed: int,
) -> TextAttribution:
    """Return the attribution of an encoded text, with the `sign_agreement` of its strongest word.

    The word is replaced by that of the baseline; where the baseline is searched for near the text,
    by the mask token, or by the padding token, or by zeros, the first that the tokenizer has.

    Args:
        classifier: of texts.
        encoded: by the classifier.
        model: runs `encoded.model`.
        explainer: the method.
        target: class index or label; None for the class that the model predicts.
        method: the explainer's name, for the provenance.
        seed: of everything random.
    """
    attribution = explainer(model, encoded.embeddings, target, seed=seed)
    words = torch.tensor(encoded.tokens.word_of)
    attribution = measure_signs(
        model, encoded.embeddings, attribution, explainer, words, _missing_word(encoded.model)
    )
    label = classifier.label(int(attribution.target))
    attribution = attribution.with_provenance(method=method)
    notes = (*encoded.notes, *_notes_on_sums(attribution, method))
    return TextAttribution(encoded.tokens, label, attribution, notes)


def _notes_on_sums(attribution: Attribution, method: str) -> tuple[str, ...]:
    """Return a note where the values of every token add up to rounding errors alone."""
    values = to_float64(attribution.values[0])
    sums, total = values.sum(0).abs().max(), values.abs().sum(0).max()
    if total == 0 or sums > _CANCELLED * total:
        return ()
    return (
        f"the words' values by {method} are rounding errors: those of each token's embedding add "
        "up to 0, as a gradient's do before a layer norm; take a method with a baseline, such as "
        "ig, or read attribution.values",
    )


def _is_uniform(embeddings: Tensor) -> bool:
    """Return whether all tokens of a text are the same: it is its own mean."""
    return bool(torch.allclose(embeddings, embeddings.mean(-1, keepdim=True)))


def _missing_token(model: AtEmbeddings) -> str:
    """Return the name of the token that stands for a word left out; "zero" without one."""
    known = (token for token in ("mask", "pad") if model.replacements.get(token) is not None)
    return next(known, "zero")


def _missing_word(model: AtEmbeddings) -> Tensor:
    """Return the embedding `(1, E, 1)` that stands for a word left out."""
    name = _missing_token(model)
    return torch.zeros(1, 1, 1) if name == "zero" else model.replacement(name).view(1, -1, 1)
