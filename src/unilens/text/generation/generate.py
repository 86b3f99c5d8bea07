"""`generate`: what each generated token owes to each token before it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..._ops.precision import to_float64
from ..._validation.inputs import check_seed
from ..._validation.settings import check_count, shown
from ...errors import NotApplicableError, UnilensError, require
from ...explainer import Method
from ...provenance import describe, versions
from ...scores import as_output_score
from ..methods import build_text_method, text_methods
from .attribution import GenerationAttribution
from .language_model import LanguageModel
from .methods import TargetValues, explain_targets
from .reading import ReadText, contrast_token, read_continuation, read_prompt, spell_tokens
from .targets import Targets

DEFAULT_METHODS = ("balanced", "occlusion")
"""What `generate` takes without a method: the first that applies to the model."""
_OF_TWO = ("log_probability", "logit")
"""Scores whose difference between two tokens is that of their logits."""


@torch.inference_mode(False)
def generate(
    model: LanguageModel | nn.Module,
    tokenizer: Any = None,
    prompt: str = "",
    method: str | None = None,
    *,
    max_new_tokens: int = 20,
    continuation: str | None = None,
    against: str | int | Sequence[str | int | None] | None = None,
    targets: Sequence[int] | None = None,
    seed: int = 0,
    shared: bool = True,
    **settings: Any,
) -> GenerationAttribution:
    """Generate a text, and explain each of its tokens by all tokens before it.

    The text is that of greedy decoding by the network's own `generate`, up to the token that ends
    it. The method runs at the embeddings of all tokens before the target, those that the tokenizer
    adds included.

    Args:
        model: a `LanguageModel`, or a network of transformers that generates text; not changed.
        tokenizer: of the network; None for a `LanguageModel`.
        prompt: the text that is continued; for an encoder-decoder what the encoder reads.
        method: a name in `unilens.text.text_methods`; None for the default: `balanced`, or
            `occlusion` where a function of the model has no rule for it.
        max_new_tokens: most tokens that are generated.
        continuation: a text that is explained in place of a generated one.
        against: a word, a token's name or its id, one for all targets explained or one for each, in
            the order of `targets`; the score is then the difference of the two tokens'
            log-probabilities.
        targets: numbers of the generated tokens that are explained, from 0 on; None for all.
        seed: of everything random.
        shared: whether targets share passes, where that is exact; False explains them one by one.
        **settings: of the method and its parts, by name. By default `score` is "log_probability",
            in nats, and "logit" for balanced gradients, which add up to it; `occlusion` has
            `window=1`.

    Returns:
        The attribution, `(T, P + T)`, of T generated tokens to P tokens of the prompt and to each
        other.

    Raises:
        UnknownNameError: no such method or setting.
        UnilensError: the model, the prompt, a target or a setting does not fit.
    """
    began = time.perf_counter()
    model = _language_model(model, tokenizer)
    seed = check_seed(seed)
    require(isinstance(shared, bool), f"expected shared true or false, got {shown(shared)}")
    name = DEFAULT_METHODS[0] if method is None else method
    explainer = _explainer(model, name, settings)
    read, network = read_prompt(model, prompt), model.copy()
    ids = torch.tensor(read.ids, device=model.device)
    model.check_vocabulary(ids)
    added = sum(start == end for start, end in read.tokens.offsets)
    model.logits(network, ids, len(ids), added)
    written, decoded = _written(model, network, read, ids, continuation, max_new_tokens)
    whole = torch.cat([ids, torch.tensor(written.ids, device=ids.device)])
    model.check_vocabulary(whole[len(ids) :], model.written_vocabulary_size)
    next_token = model.at_embeddings(network, whole[:-1], len(ids))
    chosen, names, remarks = _targets(
        model, written, len(ids), explainer, against, targets, ids.device
    )
    call: dict[str, Any] = {"seed": seed, "shared": shared, "decoded": decoded}
    try:
        explained = explain_targets(next_token, chosen, explainer, **call)
    except NotApplicableError:
        if method is not None:
            raise
        name = DEFAULT_METHODS[1]
        explainer = _explainer(model, name, settings)
        chosen = dataclasses.replace(chosen, score=explainer.score)
        explained = explain_targets(next_token, chosen, explainer, **call)
    provenance = {
        "method": name,
        "settings": describe(explainer),
        "seed": seed,
        "model": model.name,
        "decoding": "greedy" if continuation is None else "given",
        "versions": versions(),
        "device": str(ids.device),
        "dtype": str(next_token.whole.dtype).removeprefix("torch."),
        "engine": dict(explained.record),
        "seconds": time.perf_counter() - began,
    }
    if method is None:
        provenance["default"] = f"{name}, the default for generated texts"
    notes = (*read.notes, *written.notes, *remarks, *model.notes_on(len(whole)))
    return _result(read, written, chosen, explained, names, provenance, notes)


def _language_model(model: object, tokenizer: Any) -> LanguageModel:
    if isinstance(model, LanguageModel):
        require(
            tokenizer is None,
            "expected no tokenizer beside a LanguageModel, which has its own, got "
            f"{type(tokenizer).__name__}; pass the prompt by name, prompt=",
        )
        return model
    require(
        isinstance(model, nn.Module) and tokenizer is not None,
        f"expected a LanguageModel, or a network and its tokenizer, got {type(model).__name__}"
        f"{' without a tokenizer' if isinstance(model, nn.Module) else ''}; load one by "
        "unilens.text.load_language_model",
    )
    return LanguageModel(model, tokenizer)  # type: ignore[arg-type]


def _explainer(model: LanguageModel, method: str, settings: dict[str, Any]) -> Method:
    """Return the method, with the defaults for generated text."""
    known = text_methods[method].settings_with(settings)
    conserves = known.get("score") == "logit" or settings.get("balanced")
    defaults = {"score": "logit" if conserves else "log_probability", "window": 1}
    own = {name: value for name, value in defaults.items() if name in known}
    score = settings.get("score")
    require(
        as_output_score(score) is None,
        "expected a score of a token, by name or as a function of logits and target, got one of "
        "what the model returns; pass score='logit', or another name",
    )
    explainer = build_text_method(model, method, {**own, **settings})
    require(
        not explainer.create_graph,
        "expected create_graph=False, since the values of a generated text have no gradient; leave "
        "it out",
    )
    return explainer


def _written(
    model: LanguageModel,
    network: nn.Module,
    prompt: ReadText,
    ids: Tensor,
    continuation: str | None,
    count: int,
) -> tuple[ReadText, Tensor | None]:
    """Return the tokens that are explained, generated or given, and the logits of decoding.

    Beside a given text those of the first token alone, or None where the model does not generate.
    """
    if continuation is not None:
        given = read_continuation(model, prompt, continuation)
        require(
            bool(given.ids), f"expected a continuation with words, got {continuation!r}; write some"
        )
        try:
            logits = model.greedy(network, ids, 1)[1]
        except UnilensError:
            note = "the model does not generate: its own decoding is not compared with the scores"
            return dataclasses.replace(given, notes=(*given.notes, note)), None
        return given, logits if len(logits) else None  # it would end the text here
    count = check_count("max_new_tokens", count)
    tokens, logits = model.greedy(network, ids, count)
    made = tokens.tolist()
    require(
        bool(made),
        "expected a model that continues the prompt, but it ends the text at once; write another "
        "prompt, or pass continuation=",
    )
    before = () if model.has_encoder else prompt.ids
    ended = len(made) < count
    after = f"{len(made)} token{'s' * (len(made) > 1)}"
    notes = [f"the model ends the text after {after}"] if ended else []
    if made[0] == model.forced:
        notes.append("token 0 is set by the model's configuration, forced_bos_token_id")
    return ReadText(spell_tokens(model, before, made), tuple(made), tuple(notes)), logits


def _targets(
    model: LanguageModel,
    written: ReadText,
    prompt_count: int,
    explainer: Method,
    against: object,
    targets: Sequence[int] | None,
    device: torch.device,
) -> tuple[Targets, tuple[str | None, ...], list[str]]:
    """Return the targets, the names of contrasted tokens, and remarks on them."""
    numbers = _numbers(targets, len(written.ids))
    score = "log_probability" if explainer.score is None else explainer.score
    rivals: list[int | None] = [None] * len(written.ids)
    names: list[str | None] = [None] * len(written.ids)
    remarks: list[str] = []
    for number, other in zip(numbers, _each(against, len(numbers)), strict=True):
        if other is None:
            continue
        require(
            score in _OF_TWO,
            "expected the score log_probability or logit beside against=, which explains the "
            f"difference of two tokens, got {describe(score)!r}; leave score out",
        )
        token, name, several = contrast_token(model, other, written.tokens.names[number])
        if token == written.ids[number]:
            require(
                isinstance(against, (str, int)) and len(numbers) > 1,
                f"expected against to be another token than the target, got {name!r} for both; "
                "pass another word",
            )
            remarks.append(f"token {number} is {name!r} itself: it is not contrasted")
            continue
        if several:
            remark = f"{other!r} has several tokens: only the first, {name!r}, is contrasted"
            remarks += [] if remark in remarks else [remark]
        rivals[number], names[number] = token, name
    ids = torch.tensor(written.ids, device=device)
    found = Targets(ids, tuple(rivals), score, tuple(sorted(numbers)), prompt_count)
    return found, tuple(names), remarks


def _numbers(targets: object, count: int) -> tuple[int, ...]:
    """Return the numbers of the tokens that are explained, in the order given."""
    if targets is None:
        return tuple(range(count))
    several = list(targets) if isinstance(targets, Iterable) else [targets]
    numbers = tuple(check_count("targets", number, least=0) for number in several)
    require(
        bool(numbers) and max(numbers) < count and len(set(numbers)) == len(numbers),
        f"expected targets to be numbers of the {count} generated tokens, from 0 to {count - 1}, "
        f"each once, got {several}",
    )
    return numbers


def _each(against: object, count: int) -> list[object]:
    """Return what each explained target is contrasted with."""
    if against is None or isinstance(against, (str, int)):
        return [against] * count
    if not isinstance(against, Sequence):
        raise UnilensError(
            f"expected against to be a word or a token, or one for each target, got "
            f"{type(against).__name__}"
        )
    require(
        len(against) == count,
        f"expected against to have one token for each of {count} targets, got {len(against)}; "
        "pass one word for all, or None where there is none",
    )
    return list(against)


def _result(
    prompt: ReadText,
    written: ReadText,
    targets: Targets,
    explained: TargetValues,
    names: tuple[str | None, ...],
    provenance: dict[str, object],
    notes: tuple[str, ...],
) -> GenerationAttribution:
    logits, numbers = explained.logits, range(len(written.ids))
    chosen = to_float64(logits).softmax(-1).gather(-1, targets.ids.unsqueeze(-1)).squeeze(-1)
    never = explained.values.new_full((len(written.ids), 1), torch.nan)  # the last is no source
    return GenerationAttribution(
        prompt=prompt.tokens,
        continuation=written.tokens,
        values=torch.cat([explained.values, never], 1),
        score=targets.scores(logits.unsqueeze(0), numbers)[0],
        baseline_score=explained.baseline_score,
        probability=chosen,
        against=names,
        provenance=provenance,
        notes=notes,
    )
