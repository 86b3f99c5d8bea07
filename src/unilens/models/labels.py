"""Classes by the names that people call them."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from types import MappingProxyType

from ..errors import UnilensError, UnknownNameError, require


class Labelled:
    """What has classes with names.

    Attributes:
        labels: of the classes, in order; several names of one class are separated by commas.
        single_output: whether the model has one output, which is the second of two classes'.
    """

    labels: tuple[str, ...]
    single_output: bool = False

    def label(self, index: int) -> str:
        """Return the first name of the class of an output, or `class 7` where it has none."""
        names = self.labels[1:] if self._is_binary else self.labels
        return names[index].split(",")[0] if index < len(names) else f"class {index}"

    def class_index(self, name: str) -> int:
        """Return the index of a class's output by one of its names, in any case, or by its number.

        Raises:
            UnknownNameError: no class has this name; the nearest are suggested.
            UnilensError: several have it, or it is the one of two classes that has no output.
        """
        if re.fullmatch(r"\d+", name.strip()):
            return int(name)
        names = classes_by_name(self.labels)
        classes = names.get(fold(name), ())
        if len(classes) > 1:
            raise UnilensError(
                f"the label {name!r} names classes {', '.join(map(str, classes))}; pass one of the "
                "numbers"
            )
        if not classes:
            remedy = (
                "Or pass the class index." if names else "The model has no labels: pass an index."
            )
            raise UnknownNameError("label", name, _all_names(self.labels), remedy)
        if self._is_binary:
            require(
                classes[0] == 1,
                f"expected the label {self.label(0)!r}, which the model's only output is about, "
                f"got {name!r}; explain that one, and read the map with the opposite sign",
            )
            return 0
        return classes[0]

    @property
    def _is_binary(self) -> bool:
        return len(self.labels) == 2 and self.single_output


def _all_names(labels: tuple[str, ...]) -> list[str]:
    """Return all names of all classes, as a user may write them."""
    return [name.replace("_", " ").strip() for label in labels for name in label.split(",")]


@functools.lru_cache(maxsize=8)
def classes_by_name(labels: tuple[str, ...]) -> Mapping[str, tuple[int, ...]]:
    """Return the classes that have a name, by all names of all classes, folded."""
    names: dict[str, tuple[int, ...]] = {}
    for index, label in enumerate(labels):
        for name in sorted(set(map(fold, (label, *label.split(","))))):
            names[name] = (*names.get(name, ()), index)
    return MappingProxyType(names)


def fold(name: str) -> str:
    """Return a name without what people write differently: case, underscores, outer spaces."""
    return name.replace("_", " ").strip().casefold()
