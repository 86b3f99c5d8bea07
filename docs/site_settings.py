"""Make the tables of settings on the site's pages from the registries and the docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

from griffe import Docstring, DocstringSectionAttributes, DocstringSectionParameters

from unilens.registry import Composed, Entry

NAME_IN_CLASS = {"inner": "explainer"}
"""Settings that have another name in the class that they are passed to."""
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


def meaning(entry: Entry[Any], setting: str) -> str:
    """Return what the docstring of the class that an entry builds says of a setting."""
    name = NAME_IN_CLASS.get(setting, setting)
    build: Any = entry.build
    owners = build.__mro__ if isinstance(build, type) else (build, *type(entry()).__mro__)
    for owner in owners:
        for section in Docstring(owner.__doc__ or "").parse("google", warnings=False):
            if isinstance(section, DocstringSectionAttributes | DocstringSectionParameters):
                for item in section.value:
                    text = " ".join(item.description.split())
                    if item.name == name and not re.fullmatch(r"see `\w+`\.", text):
                        return text
    raise LookupError(f"expected {entry.card.name} to say what its setting {setting} does")


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
        default = entry.settings[name]
        shown = "required" if name in required else f"`{_written(default)}`"
        choices = entry.choices(name) if isinstance(default, str) else ()
        values = ", ".join(f"`{choice}`" for choice in choices) if len(choices) > 1 else ""
        yield f"| `{name}` | {_cell(meaning(owner, name))} | {shown} | {values} |"
    yield from ("", "</div>", "")


def _written(default: object) -> str:
    """Return a default as Python code on one line."""
    return _cell(" ".join(repr(default).split()))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
