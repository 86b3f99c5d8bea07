"""Registries of methods, metrics and their components, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from .errors import UnilensError, UnknownNameError

T = TypeVar("T")


TRAITS = {
    "attention": "for transformers only: blocks with attention over all tokens",
    "costlier_maps": "makes maps that cost more than the method's own, for other numbers of steps",
    "estimate": "estimated from a random sample; exact in the limit",
    "images": "for images, signals and volumes, not for tables",
    "incomplete": "a path method whose values do not add up to the change of the score",
    "layer": "explains the spatial positions of a layer's output",
    "other_models": "explains other models, each of which is prepared first",
    "passes_at_most": "the passes stated are an upper bound",
    "passes_by_size": "passes depend on the input's size; those stated are for a photograph",
    "perceptron": "for multi-layer perceptrons only",
    "pictures": "for images, not for tables and signals",
    "positions": "masks a spatial position in all channels together",
    "relu": "for models with ReLU only",
    "rounding": "the last bits of the values depend on the batch",
}
"""Properties in which a method, baseline or metric can differ from most others, by name."""


@dataclass(frozen=True, slots=True)
class Card:
    """Facts about a registered component, for choosing it.

    Attributes:
        name: in the registry.
        family: of similar components.
        summary: one line.
        reference: the publication.
        deterministic: whether it draws no random numbers.
        higher_precision: whether float64 is advised because rounding changes the result strongly.
        traits: in which it differs from most of its kind; names in `TRAITS`.
    """

    name: str
    family: str
    summary: str
    reference: str
    deterministic: bool = True
    higher_precision: bool = False
    traits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MetricCard(Card):
    """What a reader should know before believing a metric.

    Attributes:
        higher_is_better: the direction; None where neither end is good.
        bounds: the lowest and highest value it can take; None where there is no bound.
        metric: the class; names of one class differ in its settings.
        needs: what it takes beside the map: "method", to explain again; "path", an `Attribution`
            with a baseline; "mask", where the object is; "without_parts", the inputs without each
            of their parts.
    """

    higher_is_better: bool | None = True
    bounds: tuple[float | None, float | None] = (None, None)
    needs: tuple[str, ...] = ()
    metric: str = ""


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """A card, and the builder that makes the component from its settings."""

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
        """Forward and backward passes per input with the defaults; None where it needs settings.

        For methods, baselines, metrics and perturbations, whose base classes have `passes`.
        """
        if inspect.Parameter.empty in self.settings.values():
            return None
        component: Any = self()
        return tuple(component.passes)

    def choices(self, name: str) -> tuple[str, ...]:
        """Return the names that a setting takes, by its type; its default where that lists none."""
        from ._validation.settings import checks_of  # loads torch

        check = checks_of(self.build).get(name)
        names = () if check is None else tuple(check.names())
        return names or (self.settings[name],)

    def settings_with(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that are valid with those given, and their defaults."""
        return self.settings

    def __call__(self, **settings: Any) -> T:
        """Build the component; raise where a setting is unknown or missing."""
        check_known(self.card.name, settings, self.settings)
        for name, default in self.settings.items():
            if default is inspect.Parameter.empty and name not in settings:
                raise UnilensError(f"{self.card.name} needs the setting {name!r}; pass {name}=...")
        return self.build(**settings)


@dataclass(frozen=True)
class Composed(Entry[T]):
    """An entry assembled from other registered components; all settings share one flat namespace.

    Attributes:
        component_registries: registry of each component, by the name of its setting.
        default_components: name of each default component, by the name of its setting.
        selectable: settings whose components users can choose; None for all.
        overrides: defaults that differ from those of the builder and the components.
    """

    component_registries: Mapping[str, Registry[Any]] = field(default_factory=dict)
    default_components: Mapping[str, str] = field(default_factory=dict)
    selectable: tuple[str, ...] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """The names of the settings and their defaults, with those of the default components."""
        return self.settings_with({})

    def settings_with(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that are valid with the components given, and their defaults.

        A setting that the entry and a component both have is one setting, with the entry's default.
        """
        known: dict[str, Any] = {}
        for kind, component in self._chosen(given).items():
            if isinstance(component, str):
                known |= self.component_registries[kind][component].settings
        known = self._own | known | self._own
        known |= {name: value for name, value in self.overrides.items() if name in known}
        return {kind: self.default_components[kind] for kind in self._selectable} | known

    def __call__(self, **settings: Any) -> T:
        """Build the component; settings that are not its own go to the chosen components."""
        valid = self.settings_with(settings)
        check_known(self.card.name, settings, valid)
        values = {**valid, **settings}
        built = {name: values[name] for name in self._own}
        for kind, component in self._chosen(settings).items():
            given_by_name = isinstance(component, str)
            built[kind] = self._build(kind, component, values) if given_by_name else component
        return self.build(**built)

    def _build(self, kind: str, name: str, values: Mapping[str, Any]) -> object:
        """Build a component from those of the values that are its settings."""
        entry = self.component_registries[kind][name]
        settings = {name: values[name] for name in entry.settings}
        return entry(
            **{
                name: value
                for name, value in settings.items()
                if value is not inspect.Parameter.empty
            }
        )

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
        """The settings of the builder that are no components, and their defaults."""
        parameters = inspect.signature(self.build).parameters
        return {
            name: parameter.default
            for name, parameter in parameters.items()
            if name not in self.component_registries
        }

    @property
    def _selectable(self) -> tuple[str, ...]:
        return tuple(self.component_registries) if self.selectable is None else self.selectable

    def _chosen(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the components, chosen or default, by name or as objects."""
        chosen = {kind: given[kind] for kind in self._selectable if kind in given}
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
    """Named entries of one kind, in the order in which they were registered."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry[T]] = {}

    def register(self, entry: Entry[T]) -> None:
        """Register an entry under its card's name."""
        if entry.card.name in self._entries:
            raise UnilensError(
                f"expected a new name for a {self.kind}, got {entry.card.name!r}, which is "
                "registered already; choose another"
            )
        self._entries[entry.card.name] = entry

    def add(self, card: Card, build: Callable[..., T]) -> None:
        """Register a builder whose keyword arguments are the settings."""
        self.register(Entry(card, build))

    def add_value(self, card: Card, value: T) -> None:
        """Register a component without settings."""
        self.add(card, lambda: value)

    def __getitem__(self, name: str) -> Entry[T]:
        """Return an entry by its name, in which hyphens and underscores are alike."""
        try:
            return self._entries[name if name in self._entries else name.replace("-", "_")]
        except (KeyError, TypeError, AttributeError):
            raise UnknownNameError(self.kind, name, self._entries) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
