"""The code that a plan names: what running it imports, and whether that was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..errors import require


def texts_in(values: object) -> Iterator[str]:
    """Yield all texts among plain values, however deep."""
    if isinstance(values, str):
        yield values
    elif isinstance(values, (Mapping, list, tuple)):
        for value in values.values() if isinstance(values, Mapping) else values:
            yield from texts_in(value)


def check_code(names: Iterable[str]) -> None:
    """Raise where there are names of code that was not asked for."""
    listed = ", ".join(names)
    require(
        not listed,
        f"expected a plan that imports nothing, or --allow-code (allow_code=True), got one that "
        f"imports and runs {listed}; allow it only if you trust that code",
    )
