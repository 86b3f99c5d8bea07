"""Write `src/unilens/_catalogue/catalogue.json`: what `unilens list` says, read without torch.

Run `python docs/catalogue.py` after a change of a registered component, its settings or their
docstrings; a test compares the file with the registries.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import typing
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from griffe import Docstring, DocstringSectionAttributes, DocstringSectionParameters

import unilens
from unilens._engine.balanced import AnyBalanced
from unilens._validation import settings as types
from unilens.baselines import baselines
from unilens.methods import methods
from unilens.metrics import corruptions, imputers, metrics, similarities
from unilens.metrics.faithfulness.perturbations import infidelity_perturbations
from unilens.metrics.robustness.perturbations import perturbations
from unilens.models import models, samples
from unilens.output.colours import STYLES
from unilens.outputs import OUTPUTS
from unilens.paths import paths
from unilens.registry import Composed, Entry, Registry
from unilens.scores import scores
from unilens.text.attribution import PARTS
from unilens.text.generation.units import UNITS
from unilens.text.methods import text_baselines, text_methods
from unilens.weightings import weightings

PATH = Path(unilens.__file__).parent / "_catalogue" / "catalogue.json"
REGISTRIES: dict[str, Registry[Any]] = {
    "methods": methods,
    "baselines": baselines,
    "paths": paths,
    "weightings": weightings,
    "metrics": metrics,
    "imputers": imputers,
    "similarities": similarities,
    "perturbations": perturbations,
    "infidelity_perturbations": infidelity_perturbations,
    "corruptions": corruptions,
    "models": models,
    "samples": samples,
}
CHOICES = {
    "score": scores,
    "outputs": OUTPUTS,
    "style": STYLES,
    "unit": PARTS,
    "unit of a generated text": UNITS,
}
"""The values of options, by what messages call them."""
VALUES = {
    types.Count: "whole number from 1",
    types.CountOrZero: "whole number from 0",
    types.TwoOrMore: "whole number from 2",
    types.Number: "number",
    types.Positive: "number above 0",
    types.NonNegative: "number from 0",
    types.Share: "number above 0, at most 1",
    types.UnitInterval: "number from 0 to 1",
    types.Fraction: "number above 0, below 1",
    types.Bounds: "lowest and highest value",
    AnyBalanced: "true, false or full",
    bool: "true or false",
    int: "whole number",
    float: "number",
}
"""What a setting takes, by its type."""
_COSTED = ("methods", "baselines", "metrics")
_RENAMED = {"inner": "explainer"}
"""Settings that have another name in the class."""


def catalogue() -> dict[str, Any]:
    """Return all registered components as plain data, by kind and name."""
    listed: dict[str, Any] = {
        kind: {name: _entry(kind, entry) for name, entry in registry.items()}
        for kind, registry in REGISTRIES.items()
    }
    own = [name for name in text_baselines if name not in baselines]
    listed["text_baselines"] = {name: _entry("baselines", text_baselines[name]) for name in own}
    listed["text_methods"] = {name: {} for name in text_methods}
    listed["choices"] = {kind: list(names) for kind, names in CHOICES.items()}
    return listed


def _entry(kind: str, entry: Entry[Any]) -> dict[str, Any]:
    card = {name: fact for name, fact in dataclasses.asdict(entry.card).items() if name != "name"}
    components = _components(entry)
    given_by_components = {
        name: default
        for facts in components.values()
        for name, default in REGISTRIES[facts["registry"]][facts["default"]].settings.items()
    }
    parameters = inspect.signature(entry.build).parameters
    own = [
        name
        for name in entry.settings
        if name not in components and (name in parameters or name not in given_by_components)
    ]
    if kind in ("models", "samples"):  # what they take is the call's, not a setting
        own = []
    return {
        "card": card,
        "cost": _cost(entry) if kind in _COSTED else "",
        "components": components,
        "settings": {name: setting(entry, name) for name in own},
        "overrides": {
            name: written(entry.settings[name])
            for name, default in given_by_components.items()
            if name not in own and name in entry.settings and entry.settings[name] != default
        },
    }


def _components(entry: Entry[Any]) -> dict[str, dict[str, Any]]:
    """Return the registry, the default and whether it can be chosen, of each component."""
    if "inner" in entry.settings:
        inner = {"registry": "methods", "default": entry.settings["inner"], "selectable": True}
        return {"inner": inner}
    if not isinstance(entry, Composed):
        return {}
    kinds = {id(registry): kind for kind, registry in REGISTRIES.items()}
    return {
        name: {
            "registry": kinds[id(registry)],
            "default": entry.default_components[name],
            "selectable": entry.selectable is None or name in entry.selectable,
        }
        for name, registry in entry.component_registries.items()
    }


def _cost(entry: Entry[Any]) -> str:
    cost = entry.cost
    if cost is None:
        return "by its settings"
    maps = getattr(entry(), "explanations", 0)
    return f"{cost[0]} + {cost[1]}" + (f", {maps} maps" if maps else "")


def setting(entry: Entry[Any], name: str) -> dict[str, Any]:
    """Return the default, the values and the meaning of a setting."""
    default = entry.settings[name]
    return {
        "default": None if default is inspect.Parameter.empty else written(default),
        "values": _values(typing.get_type_hints(entry.build, include_extras=True).get(name)),
        "meaning": _meaning(entry, _RENAMED.get(name, name)),
    }


def written(value: object) -> str:
    """Return a default as a user writes it on the command line."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple | list):
        return f"[{','.join(map(written, value))}]"
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    raise TypeError(f"expected a default that can be written on the command line, got {value!r}")


def _values(hint: Any) -> str:
    """Return what a setting takes, by its type; empty where the type does not say."""
    parts = get_args(hint)
    if get_origin(hint) is typing.Literal:
        return ", ".join(map(str, parts))
    for known, words in VALUES.items():
        if hint == known:
            return words
    names = [name for part in parts if isinstance(part, types.Check) for name in part.names()]
    if names:
        return ", ".join(names)
    some = [part for part in parts if part is not type(None)]
    if get_origin(hint) in (typing.Union, UnionType) and len(some) == 1:
        return _values(some[0]) and f"{_values(some[0])}, or null"
    return ""


def _meaning(entry: Entry[Any], name: str) -> str:
    """Return what the docstring of the builder says of a setting, or of a class that it builds."""
    build: Any = entry.build
    tail = ""
    owners = build.__mro__ if isinstance(build, type) else (build, *type(entry()).__mro__)
    for owner in owners:
        for section in Docstring(owner.__doc__ or "").parse("google", warnings=False):
            if not isinstance(section, DocstringSectionAttributes | DocstringSectionParameters):
                continue
            for item in section.value:
                if item.name != name:
                    continue
                text = " ".join(item.description.split())
                elsewhere = re.fullmatch(r"see `\w+`(?:[;,.] ?(.*))?", text)
                if elsewhere is None:
                    return f"{text} {tail}".strip()
                tail = tail or (elsewhere[1] or "")[:1].upper() + (elsewhere[1] or "")[1:]
    raise LookupError(f"expected {entry.card.name} to say what its setting {name} is")


def as_text() -> str:
    """Return the file's text: one component per line."""
    kinds = (
        f'"{kind}": {{\n'
        + ",\n".join(
            f"{json.dumps(name)}: {json.dumps(facts, ensure_ascii=False)}"
            for name, facts in entries.items()
        )
        + "\n}"
        for kind, entries in catalogue().items()
    )
    return "{\n" + ",\n".join(kinds) + "\n}\n"


if __name__ == "__main__":
    PATH.write_text(as_text(), encoding="utf-8")
