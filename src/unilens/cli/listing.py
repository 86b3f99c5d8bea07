"""`unilens list`: what is registered, by family, and everything about one component."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Annotated, cast

import typer

from .._catalogue import CatalogueEntry, Setting, listing
from ..errors import UnknownNameError
from ..registry import Card, MetricCard
from .app import app
from .output import show, show_table

KINDS = {
    "methods": "how the values of a map are computed",
    "metrics": "what judges maps",
    "baselines": "what an input is compared with",
    "paths": "from the baseline to the input",
    "weightings": "how much each step of a path counts",
    "imputers": "what replaces removed pixels, in metrics",
    "similarities": "how alike two maps are, in metrics",
    "perturbations": "small changes of the input, in metrics of robustness",
    "corruptions": "changes of pictures of ImageNet-C",
    "models": "classifiers of photographs",
    "samples": "installed photographs",
}
_NOTES = {
    "corruptions": "In benchmarks also, with the extra corruptions: motion_blur, zoom_blur, "
    "glass_blur, snow, frost, fog, spatter.",
    "models": "Others as timm:NAME, torchvision:NAME, hf:REPO, truth:NAME or "
    "py:package.module:function.",
}
_TYPED = {"references": " On the command line: an image, a folder of images, or samples."}
_DIRECTIONS = {True: "↑", False: "↓", None: "·"}
_DIRECTIONS_IN_WORDS = {
    True: "higher is better",
    False: "lower is better",
    None: "no direction",
}


@app.command("list")
def list_(
    kind: Annotated[str | None, typer.Argument(metavar="KIND", hidden=True)] = None,
    name: Annotated[str | None, typer.Argument(metavar="NAME", hidden=True)] = None,
) -> None:
    """List methods, metrics, models and their settings.

    KIND is one of methods, metrics, baselines, paths, weightings, imputers, similarities,
    perturbations, corruptions, models, samples. With the NAME of one, shows all of its settings.
    """
    if kind is None:
        show_table((), [(f"unilens list {kind}", about) for kind, about in KINDS.items()])
        return
    if kind not in KINDS:
        raise UnknownNameError("kind", kind, KINDS)
    if name is not None:
        _show_entry(kind, cast(CatalogueEntry, listing(kind)[name]))
        return
    for family, cards in _families([entry.card for entry in listing(kind).values()]):
        show(title=family)
        show_table((), list(map(_row, cards)), whole={0, 1})
    if kind == "metrics":
        show("↑ higher is better, ↓ lower is better, · no direction")
    if kind in _NOTES:
        _show_indented(_NOTES[kind], 0)
    if kind not in ("models", "samples"):
        show(f"unilens list {kind} NAME: its settings", highlight=False)


def _families(cards: list[Card]) -> Iterator[tuple[str, list[Card]]]:
    """Yield the families in the order of their first cards, each with its cards."""
    first = {card.family: number for number, card in reversed(list(enumerate(cards)))}
    ordered = sorted(cards, key=lambda card: first[card.family])
    for family, group in groupby(ordered, key=lambda card: card.family):
        yield family, list(group)


def _row(card: Card) -> list[str]:
    direction = [_DIRECTIONS[card.higher_is_better]] if isinstance(card, MetricCard) else []
    return [f"  {card.name}", *direction, card.summary]


def _show_entry(kind: str, entry: CatalogueEntry) -> None:
    """Print everything about one component: what it is, what it costs, its settings."""
    show(title=entry.card.name)
    for line in (entry.card.summary, "; ".join(_facts(entry)), entry.card.reference):
        _show_indented(line, 2)
    if kind in ("models", "samples"):
        return
    if not entry.settings:
        show("  no settings")
        return
    choices = {
        name: Setting(facts.default, "", f"see `unilens list {facts.registry}`")
        for name, facts in entry.components.items()
        if facts.selectable
    }
    own = choices | dict(entry.own)
    _show_settings("settings", own, {})
    for name in entry.components:
        component = entry.component(name, {})
        assert component is not None
        settings = {key: setting for key, setting in component.own.items() if key not in own}
        _show_settings(f"with {name}={component.card.name}", settings, entry.overrides)
    option = {"methods": "--method", "metrics": "--metric"}.get(kind)
    if option:
        usual = (name for name in ("n_steps", *entry.own) if name in entry.settings)
        name = next((name for name in usual if name != "score"), next(iter(entry.settings)))
        example = f"{option} {entry.card.name}:{name}={entry.settings[name] or '...'}"
        show(example, title="use: ", highlight=False)


def _show_indented(text: str, indent: int) -> None:
    show_table((), [(" " * (indent - 1), text) if indent else (text,)])


def _facts(entry: CatalogueEntry) -> list[str]:
    card = entry.card
    facts = [card.family]
    if isinstance(card, MetricCard):
        facts.append(_DIRECTIONS_IN_WORDS[card.higher_is_better])
        facts += [f"needs a {need}" for need in card.needs]
    facts += ["random"] * (not card.deterministic) + ["float64 advised"] * card.higher_precision
    if entry.passes:
        known = "+" in entry.passes
        facts.append(
            f"passes (forward + backward): {entry.passes}"
            if known
            else "passes depend on its settings"
        )
    return facts


def _show_settings(
    title: str, settings: Mapping[str, Setting], overrides: Mapping[str, str]
) -> None:
    """Print settings with default, values and meaning."""
    if not settings:
        return
    show(title=title)
    for name, setting in settings.items():
        default = overrides.get(name, setting.default)
        head = f"  {name}" + (" (required)" if default is None else f" = {default}")
        show_table((), [(head, setting.values)], whole={0})
        if setting.meaning:
            _show_indented(_as_typed(setting.meaning) + _TYPED.get(name, ""), 6)


def _as_typed(meaning: str) -> str:
    """Return a meaning in the words of the command line, which writes null, true and false."""
    words = {"None": "null", "True": "true", "False": "false"}
    return re.sub(r"\b(None|True|False)\b", lambda found: words[found[0]], meaning)
