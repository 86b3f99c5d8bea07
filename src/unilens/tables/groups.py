"""Columns that belong together: one-hot columns of one property, replaced and reported as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UnilensError, UnknownNameError, require
from .frame import Table
from .reading import text

_SEPARATORS = "_="
_FEWEST_ROWS = 10
"""From which columns that sum to one in every row are taken for one-hot ones."""
_FEWEST_OF_TWO = 30
"""The same for two columns: in fewer rows two flags can be so by chance."""


@dataclass(frozen=True, slots=True)
class Group:
    """A name, and the columns that it stands for: one, or several that belong together.

    Attributes:
        name: of the column or the group.
        columns: their positions in the table.
        one_hot: whether exactly one of several columns is 1 in each row.
    """

    name: str
    columns: tuple[int, ...]
    one_hot: bool = False

    def cells(self, table: Table) -> list[str]:
        """Return what each row has in this group, for people; of one-hot columns the hot one."""
        if len(self.columns) == 1:
            return [text(cell) for cell in table.column(self.columns[0])]
        names = [table.names[column] for column in self.columns]
        rows = zip(*(table.column(column) for column in self.columns), strict=True)
        if self.one_hot:
            short = [name.removeprefix(self.name).lstrip(_SEPARATORS) or name for name in names]
            return [short[row.index(1)] for row in rows]
        return [
            ", ".join(f"{name} {text(cell)}" for name, cell in zip(names, row, strict=True))
            for row in rows
        ]


Groups = Mapping[str, Sequence[str]] | Sequence[str] | bool | None


def resolve(given: Groups, tables: Sequence[Table]) -> tuple[Group, ...]:
    """Return the groups of a table's columns, in the order of their first columns.

    Args:
        given: names of columns by the name of their group, or prefixes of names before `_` or `=`;
            None to detect one-hot columns, False for single columns.
        tables: the rows and the references, with the same columns.

    Raises:
        UnilensError: a column does not exist, or is in two groups.
    """
    names = tables[0].names
    require(
        given is None or isinstance(given, (bool, str, Mapping, list, tuple)),
        f"expected groups as a mapping from name to columns, or a list of prefixes, got {given!r}",
    )
    if given is None or given is True:
        groups = _detected(tables)
    elif given is False:
        groups = []
    elif isinstance(given, Mapping):
        groups = [_named(str(name), members, tables) for name, members in given.items()]
    elif isinstance(given, str):
        groups = [_by_prefix(given, tables)]
    else:
        groups = [_by_prefix(prefix, tables) for prefix in given]
    members = [column for group in groups for column in group.columns]
    twice = sorted({names[column] for column in members if members.count(column) > 1})
    require(
        not twice, f"expected each column in one group at most, got {', '.join(twice)} in several"
    )
    singles = [Group(names[i], (i,)) for i in range(len(names)) if i not in set(members)]
    return tuple(sorted([*groups, *singles], key=lambda group: group.columns[0]))


def _named(name: str, members: Any, tables: Sequence[Table]) -> Group:
    names = tables[0].names
    require(
        isinstance(members, (list, tuple)) and len(members) > 0,
        f"expected the group {name!r} to list names of columns, got {members!r}",
    )
    for member in members:
        if str(member) not in names:
            raise UnknownNameError("column", member, names)
    require(
        name not in names or name in map(str, members),
        f"expected a name for the group that no other column has, got {name!r}",
    )
    columns = tuple(names.index(str(member)) for member in members)
    return Group(name, columns, _is_one_hot(columns, tables))


def _by_prefix(prefix: object, tables: Sequence[Table]) -> Group:
    names = tables[0].names
    columns = tuple(i for i, name in enumerate(names) if _has_prefix(name, str(prefix)))
    if not columns:
        raise UnilensError(
            f"expected columns whose names begin with {prefix!r} and '_' or '=', got "
            f"{', '.join(names[:8])}{', ...' if len(names) > 8 else ''}; pass groups={{name: "
            "[columns]}"
        )
    require(
        str(prefix) not in names,
        f"expected a prefix that no column has as its name, got {prefix!r}; pass groups={{name: "
        "[columns]}",
    )
    return Group(str(prefix), columns, _is_one_hot(columns, tables))


def _has_prefix(name: str, prefix: str) -> bool:
    return any(name.startswith(prefix + separator) for separator in _SEPARATORS)


def _detected(tables: Sequence[Table]) -> list[Group]:
    """Return blocks of columns with a common prefix of which exactly one is 1 in every row."""
    names = tables[0].names
    rows = sum(map(len, tables))
    if rows < _FEWEST_ROWS:
        return []
    binary = {i: name for i, name in enumerate(names) if _is_binary(i, tables)}
    prefixes = {
        name[:end]
        for name in binary.values()
        for end, character in enumerate(name)
        if character in _SEPARATORS and end
    }
    groups: list[Group] = []
    taken: set[int] = set()
    for prefix in sorted(prefixes, key=lambda prefix: (len(prefix), prefix)):
        columns = tuple(i for i, name in binary.items() if _has_prefix(name, prefix))
        if prefix in names or (len(columns) == 2 and rows < _FEWEST_OF_TWO):
            continue
        if len(columns) > 1 and not taken & set(columns) and _is_one_hot(columns, tables):
            groups.append(Group(prefix, columns, one_hot=True))
            taken |= set(columns)
    return groups


def _is_binary(column: int, tables: Sequence[Table]) -> bool:
    return all(_is_bit(cell) for table in tables for cell in table.column(column))


def _is_bit(cell: object) -> bool:
    return isinstance(cell, (bool, int, float)) and cell in (0, 1)


def _is_one_hot(columns: Sequence[int], tables: Sequence[Table]) -> bool:
    """Return whether exactly one of the columns is 1 in every row, and the others are 0."""
    if len(columns) < 2 or not all(_is_binary(column, tables) for column in columns):
        return False
    return all(
        sum(cells) == 1
        for table in tables
        for cells in zip(*(table.column(column) for column in columns), strict=True)
    )
