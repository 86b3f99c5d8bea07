"""Make the tables of settings on the pages of the site, from the registries and docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

from catalogue import setting

from unilens.registry import Composed, Entry

HEADINGS = ("| setting | what it does | default | values |", "|---|---|---|---|")


def settings_tables(entry: Entry[Any]) -> Iterator[str]:
    """Yield the section on the settings of a component, with those of its default components."""
    if not entry.settings:
        return
    components = dict(default_components(entry))
    of_components = {
        name for component in components.values() for name in component.settings
    } - _own_names(entry)
    own = [name for name in entry.settings if name not in of_components]
    yield from ("## Settings", "", *_table(entry, own, entry))
    for kind, component in components.items():
        names = [name for name in component.settings if name in of_components]
        of_components -= {*names}  # components that share a setting have it once
        if names:
            yield from (f"### Of {kind} `{component.card.name}`", "")
            yield from _table(entry, names, component)


def default_components(entry: Entry[Any]) -> Iterator[tuple[str, Entry[Any]]]:
    """Yield the registered components that an entry is made of, by the name of their setting."""
    if isinstance(entry, Composed):
        for kind, name in entry.default_components.items():
            yield kind, entry.component_registries[kind][name]


def required_settings(entry: Entry[Any]) -> list[str]:
    """Return the settings that must be given; references have no default that works."""
    return [
        name
        for name, default in entry.settings.items()
        if default is inspect.Parameter.empty or (name == "references" and default is None)
    ]


def _own_names(entry: Entry[Any]) -> set[str]:
    """Return the settings that the builder itself takes."""
    return set(inspect.signature(entry.build).parameters)


def _table(entry: Entry[Any], names: Iterable[str], owner: Entry[Any]) -> Iterator[str]:
    """Yield a table of settings of `entry` that the docstring of `owner` explains."""
    yield from ('<div class="settings" markdown="1">', "", *HEADINGS)
    required = required_settings(entry)
    for name in names:
        default, facts = entry.settings[name], setting(owner, name)
        shown = "required" if name in required else f"`{_written(default)}`"
        choices = entry.choices(name) if isinstance(default, str) else ()
        listed = ", ".join(f"`{choice}`" for choice in choices) if len(choices) > 1 else ""
        values = listed or _cell(facts["values"])
        yield f"| `{name}` | {_cell(facts['meaning'])} | {shown} | {values} |"
    yield from ("", "</div>", "")


def _written(default: object) -> str:
    """Return a default as Python code on one line."""
    return _cell(" ".join(repr(default).split()))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
