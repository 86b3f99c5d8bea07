"""Registries: the one list, per kind of thing, that the command line, docs and tests all read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ._validation.settings import checks_of
from .errors import UnilensError, UnknownNameError

T = TypeVar("T")


TRAITS = {
    "estimate": "a sample is drawn: exact in the limit alone",
    "images": "for images, signals and volumes, not for tables",
    "incomplete": "a path method whose values do not add up to the change of the score",
    "layer": "explains the positions of a layer's output",
    "passes_at_most": "the passes that it states are an upper bound",
    "passes_by_size": "passes depend on the size of the input; those of a photograph are stated",
    "perceptron": "for multi-layer perceptrons alone",
    "pictures": "for images and volumes, not for tables and signals",
    "positions": "masks a spatial position in all channels together",
    "relu": "for models with ReLU alone",
}
"""In what a method or baseline can differ from most, by name."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a reader should know before choosing a registered thing.

    Attributes:
        name: in the registry.
        family: what it is like.
        summary: one line.
        reference: where it comes from.
        deterministic: whether it is without randomness of its own.
        higher_precision: whether float64 is advised, since rounding decides much of the result.
        traits: in what it differs from most of its kind; names in `TRAITS`.
    """

    name: str
    family: str
    summary: str
    reference: str
    deterministic: bool = True
    higher_precision: bool = False
    traits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """A card, and the builder that turns settings into the thing itself."""

    card: Card
    build: Callable[..., T]

    @property
    def settings(self) -> dict[str, Any]:
        """The names of the settings and their defaults (`inspect.Parameter.empty`: required)."""
        return {
            name: parameter.default
            for name, parameter in inspect.signature(self.build).parameters.items()
        }

    @property
    def cost(self) -> tuple[int, int] | None:
        """Forward and backward passes per input with the defaults; None where it needs settings."""
        if inspect.Parameter.empty in self.settings.values():
            return None
        thing: Any = self()
        return tuple(thing.passes) if hasattr(thing, "passes") else (0, 0)

    def choices(self, name: str) -> tuple[str, ...]:
        """Return the names that a setting takes, by its type; where that says none, its default."""
        check = checks_of(self.build).get(name)
        names = () if check is None else tuple(check.names())
        return names or (self.settings[name],)

    def settings_with(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that are valid beside those given: a choice may bring its own."""
        return self.settings

    def __call__(self, **settings: Any) -> T:
        """Build the thing, naming the valid settings where one is unknown or missing."""
        check_known(self.card.name, settings, self.settings)
        for name, default in self.settings.items():
            if default is inspect.Parameter.empty and name not in settings:
                raise UnilensError(f"{self.card.name} needs the setting {name!r}; pass {name}=...")
        return self.build(**settings)


@dataclass(frozen=True)
class Composed(Entry[T]):
    """An entry some of whose settings are registered things, whose own settings lie beside its own.

    Attributes:
        component_registries: what these settings are chosen from, by the setting's name.
        default_components: their defaults, by name.
        selectable: which of them can be chosen; None for all.
        overrides: settings in which the entry departs from what it builds and from its parts.
    """

    component_registries: Mapping[str, Registry[Any]] = field(default_factory=dict)
    default_components: Mapping[str, str] = field(default_factory=dict)
    selectable: tuple[str, ...] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """The names of the settings and their defaults, with those of the default parts."""
        return self.settings_with({})

    def settings_with(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that are valid with the parts that are given, and their defaults.

        A setting that the entry and a part both have is one setting, with the entry's default.
        """
        known: dict[str, Any] = {}
        for kind, part in self._chosen(given).items():
            if isinstance(part, str):
                known |= self.component_registries[kind][part].settings
        known = self._own | known | self._own
        known |= {name: value for name, value in self.overrides.items() if name in known}
        return {kind: self.default_components[kind] for kind in self._offered} | known

    def __call__(self, **settings: Any) -> T:
        """Build the thing; settings beside its own go to the chosen parts."""
        valid = self.settings_with(settings)
        check_known(self.card.name, settings, valid)
        values = {**valid, **settings}
        built = {name: values[name] for name in self._own}
        for kind, part in self._chosen(settings).items():
            built[kind] = self._part(kind, part, values) if isinstance(part, str) else part
        return self.build(**built)

    def _part(self, kind: str, name: str, values: Mapping[str, Any]) -> object:
        entry = self.component_registries[kind][name]
        own = {name: values[name] for name in entry.settings}
        return entry(**{k: v for k, v in own.items() if v is not inspect.Parameter.empty})

    def choices(self, name: str) -> tuple[str, ...]:
        """Return the names that a setting takes, its own or one of its default components."""
        if name in self.component_registries:
            return tuple(self.component_registries[name])
        components = [
            self.component_registries[kind][default]
            for kind, default in self.default_components.items()
        ]
        entry = next((entry for entry in components if name in entry.settings), None)
        return super().choices(name) if entry is None or name in self._own else entry.choices(name)

    @property
    def _own(self) -> dict[str, Any]:
        parameters = inspect.signature(self.build).parameters
        return {
            name: parameter.default
            for name, parameter in parameters.items()
            if name not in self.component_registries
        }

    @property
    def _offered(self) -> tuple[str, ...]:
        return tuple(self.component_registries) if self.selectable is None else self.selectable

    def _chosen(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parts, chosen or default, by name or as objects."""
        chosen = {kind: given[kind] for kind in self._offered if kind in given}
        return {
            kind: chosen.get(kind, self.default_components[kind])
            for kind in self.component_registries
        }


def check_known(owner: str, given: Mapping[str, Any], valid: Mapping[str, Any]) -> None:
    """Raise where a given setting is not among the valid ones."""
    for name in given:
        if name not in valid:
            raise UnknownNameError(f"setting of {owner}", name, valid)


class Registry(Mapping[str, Entry[T]]):
    """Named entries of one kind, in the order of their registration."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry[T]] = {}

    def register(self, entry: Entry[T]) -> None:
        """Register an entry under its card's name."""
        if entry.card.name in self._entries:
            raise UnilensError(f"the {self.kind} {entry.card.name!r} is registered already")
        self._entries[entry.card.name] = entry

    def add(self, card: Card, build: Callable[..., T]) -> None:
        """Register a builder whose keyword arguments are the settings."""
        self.register(Entry(card, build))

    def add_value(self, card: Card, value: T) -> None:
        """Register a thing that has no settings."""
        self.add(card, lambda: value)

    def __getitem__(self, name: str) -> Entry[T]:
        try:
            return self._entries[name]
        except (KeyError, TypeError):
            raise UnknownNameError(self.kind, name, self._entries) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
