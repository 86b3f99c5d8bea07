"""Registries whose entries are read from `catalogue.json`, which `docs/catalogue.py` writes."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, NoReturn

from ..errors import UnknownNameError
from ..registry import Card, Entry, MetricCard, Registry

_SINGULAR = {
    "weightings": "weighting",
    "similarities": "similarity",
    "infidelity_perturbations": "perturbation",
    "text_methods": "method",
    "text_baselines": "baseline",
}
"""What messages call a component, where that is not its kind without the s."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting, as a user of the command line reads it.

    Attributes:
        default: as it is written on the command line; None where a value is required.
        values: what it takes; empty where the type does not say.
        meaning: with its unit.
    """

    default: str | None
    values: str
    meaning: str


@dataclass(frozen=True, slots=True)
class ComponentFacts:
    """A setting that is a registered component.

    Attributes:
        registry: the kind of the components that it can be.
        default: name of one.
        selectable: whether another can be chosen.
    """

    registry: str
    default: str
    selectable: bool


def _build(**settings: Any) -> NoReturn:
    raise TypeError("an entry of the catalogue is read, and builds nothing")


@dataclass(frozen=True)
class CatalogueEntry(Entry[Any]):
    """What is known of a registered component without loading it.

    Attributes:
        passes: forward and backward passes with the defaults, in words.
        own: the settings that are not those of a component.
        components: the settings that are components.
        overrides: defaults of settings of the components that differ from the components' own.
        texts: whether it is for texts, whose baselines are others.
    """

    build: Callable[..., Any] = _build
    passes: str = ""
    own: Mapping[str, Setting] = field(default_factory=dict)
    components: Mapping[str, ComponentFacts] = field(default_factory=dict)
    overrides: Mapping[str, str] = field(default_factory=dict)
    texts: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """The settings with the default components, by name, with their defaults as text."""
        return self.settings_with({})

    def settings_with(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that are valid with the components given, and their defaults."""
        chosen = {name: facts for name, facts in self.components.items() if facts.selectable}
        valid: dict[str, Any] = {name: facts.default for name, facts in chosen.items()}
        valid |= {name: setting.default for name, setting in self.own.items()}
        for name in self.components:
            component = self.component(name, given)
            if component is not None:
                valid = component.settings_with(given) | valid
        return valid | {name: text for name, text in self.overrides.items() if name in valid}

    def component(self, name: str, given: Mapping[str, Any]) -> CatalogueEntry | None:
        """Return the component that a setting names, or its default; None for an object."""
        facts = self.components[name]
        chosen = given.get(name, facts.default) if facts.selectable else facts.default
        if not isinstance(chosen, str):
            return None
        texts = "text_" if self.texts and facts.registry == "baselines" else ""
        entry = listing(texts + facts.registry)[chosen]
        assert isinstance(entry, CatalogueEntry)
        return entry


@functools.cache
def listing(kind: str) -> Registry[Any]:
    """Return the registry of a kind, such as `methods`, with entries that are read."""
    registry: Registry[Any] = Registry(_SINGULAR.get(kind, kind.removesuffix("s")))
    content = _content()
    facts = content[kind]
    if kind == "text_methods":
        facts = {name: content["methods"][name] for name in facts}
    elif kind == "text_baselines":
        facts = {**facts, **content["baselines"]}
    for name, entry in facts.items():
        registry.register(_entry(name, entry, kind == "text_methods"))
    return registry


def choices(kind: str) -> tuple[str, ...]:
    """Return the values of an option, by what messages call it, such as `style`."""
    return tuple(_content()["choices"][kind])


def check_choice(kind: str, value: str) -> str:
    """Return a value of an option as it is spelt; hyphens and underscores are alike.

    Raises:
        UnknownNameError: it is none of the choices.
    """
    name = value.replace("-", "_")
    if name not in choices(kind):
        raise UnknownNameError(kind, value, choices(kind))
    return name


def _entry(name: str, facts: Mapping[str, Any], texts: bool) -> CatalogueEntry:
    own = {key: Setting(**setting) for key, setting in facts["settings"].items()}
    components = {key: ComponentFacts(**about) for key, about in facts["components"].items()}
    card: dict[str, Any] = {
        fact: tuple(value) if isinstance(value, list) else value
        for fact, value in facts["card"].items()
    }
    kind = MetricCard if "metric" in card else Card
    return CatalogueEntry(
        kind(**card, name=name),
        passes=facts["cost"],
        own=own,
        components=components,
        overrides=facts["overrides"],
        texts=texts,
    )


@functools.cache
def _content() -> dict[str, Any]:
    file = resources.files(__package__) / "catalogue.json"
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content
