"""Registries: the one list, per kind of thing, that the command line, docs and tests all read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .errors import UnilensError, UnknownNameError

T = TypeVar("T")


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
    """

    name: str
    family: str
    summary: str
    reference: str
    deterministic: bool = True
    higher_precision: bool = False


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
        forward, backward = getattr(self(), "passes", (0, 0))
        return forward, backward

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
