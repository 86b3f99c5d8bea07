"""Labels of images: read from a table, and as the classes of a model."""

from __future__ import annotations

import csv
import functools
import io
import operator
import posixpath
import re
from collections.abc import Collection, Iterable
from typing import Any

from ...errors import UnilensError, require
from ...models import PixelClassifier
from ...models.labels import classes_by_name, fold
from .items import Label

FILE_COLUMNS = ("file", "filename", "path", "image")
LABEL_COLUMNS = (
    "imagenet_index",
    "class_index",
    "target",
    "label",
    "class",
    "index",
    "synset",
    "name",
)
"""In order of certainty: `index` may be that of the row, and names may be ambiguous."""
IMAGENET_CLASSES = 1000


def class_index_of(label: Label, classifier: PixelClassifier) -> int | None:
    """Return the class index of a label; None where no class, or several, match.

    Args:
        label: a class index as a number or digits, a name or several with commas between, or a
            synset of ImageNet-1K such as n01440764 where the model has its classes (or no labels).
        classifier: whose labels are searched.
    """
    if label is None:
        return None
    if isinstance(label, int) or re.fullmatch(r"-?\d+", label.strip()):
        index, count = int(label), len(classifier.labels)
        return index if index >= 0 and (not count or index < count) else None
    names = classes_by_name(classifier.labels)
    for name in (label, *label.split(",")):
        indices = names.get(fold(name), ())
        if len(indices) == 1:
            return indices[0]
    if len(classifier.labels) in (0, IMAGENET_CLASSES):
        return _synsets().get(label.strip())
    return None


def read_labels(text: str, name: str, files: Collection[str]) -> dict[str, Label]:
    """Return the labels of files from a CSV; rows of other files are left out.

    Args:
        text: the table; one column names files (`FILE_COLUMNS`, or the first), one labels
            (the first of `LABEL_COLUMNS` that exists).
        name: of the table, for messages.
        files: paths in the folder.

    Raises:
        UnilensError: a column is missing, no row matches a file, or two rows contradict.
    """
    rows = csv.reader(io.StringIO(text, newline=""))
    header = [column.strip().casefold() for column in next(rows, [])]
    require(bool(header), f"expected a table of labels with a header, got an empty one: {name}")
    where = next((header.index(column) for column in FILE_COLUMNS if column in header), 0)
    which = next(
        (header.index(o) for o in LABEL_COLUMNS if o in header[:where] + header[where + 1 :]), None
    )
    if which is None:
        raise UnilensError(
            f"expected one of the columns {', '.join(LABEL_COLUMNS)} in {name}, got "
            f"{', '.join(header)}"
        )
    width = max(where, which)
    table = (
        (posixpath.normpath(r[where].strip()), _label(r[which])) for r in rows if len(r) > width
    )
    return _of_files(table, name, header[where], files)


def as_label(value: Any, classes: Collection[Any], by_index: bool) -> Label:
    """Return the label of a data set's target: the class's name, or its index.

    The index is used where there are no names, where `by_index` is set, and for ImageNet-1K, whose
    order all models share and some of whose names are ambiguous.
    """
    if isinstance(value, str):
        return _label(value)
    try:
        index = operator.index(value)
    except TypeError:
        return None
    if index < 0:
        return None
    if by_index or len(classes) in (0, IMAGENET_CLASSES) or index >= len(classes):
        return index
    named = list(classes)[index]
    return named if isinstance(named, str) else ",".join(map(str, named))


def _of_files(
    table: Iterable[tuple[str, Label]], name: str, column: str, files: Collection[str]
) -> dict[str, Label]:
    labels: dict[str, Label] = {}
    first = None
    for file, label in table:
        first = first or file
        if file not in files:
            continue
        if labels.setdefault(file, label) != label:
            raise UnilensError(
                f"expected one label for {file} in {name}, got {labels[file]!r} and {label!r}"
            )
    if not labels:
        raise UnilensError(
            f"expected the column {column!r} of {name} to hold paths in the folder, such as "
            f"{min(files)}, got {first!r}; none of its rows is of a file there"
        )
    return labels


def _label(value: str) -> Label:
    value = value.strip()
    if re.fullmatch(r"-?\d+", value):
        return int(value) if int(value) >= 0 else None
    return value or None


@functools.cache
def _synsets() -> dict[str, int]:
    from timm.data.imagenet_info import ImageNetInfo

    return {name: index for index, name in enumerate(ImageNetInfo().label_names())}
