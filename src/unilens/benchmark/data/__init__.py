"""The images of a benchmark: from packages, folders, URLs and data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from ...errors import UnilensError, require
from ...models import samples
from .folders import list_folder
from .hub_sets import list_hub
from .items import Item, Label, hash_order
from .labels import class_index_of
from .torchvision_sets import list_torchvision
from .truth_sets import TruthSet, list_truth

__all__ = ["Item", "Label", "TruthSet", "class_index_of", "has_truth", "is_named", "open_source"]

SAMPLES = "samples"
BY_INDEX = "index"
"""As `labels`: a data set's class indices are the model's, whatever the classes' names."""


@dataclass(frozen=True, slots=True)
class _Samples:
    """The photographs of installed packages."""

    def load(self, name: str) -> Image.Image:
        """Read the photograph."""
        return samples[name.removeprefix(f"{SAMPLES}/")]()


def is_named(source: str) -> bool:
    """Whether a source is a data set by name or a URL rather than a local path."""
    kind, colon, _ = source.partition(":")
    return source in (SAMPLES, BY_INDEX) or "://" in source or bool(colon and kind in _BY_NAME)


def has_truth(source: str) -> bool:
    """Whether it is known of a source's images what their network reads."""
    return source.startswith("truth:")


def open_source(
    source: str,
    *,
    labels: str | None = None,
    split: str | None = None,
    limit: int | None = None,
) -> list[Item]:
    """Return the images of a source, without opening them.

    They are in the order of a hash of their names, so that any `limit` is a random sample, a larger
    limit contains a smaller one, and the sample does not depend on where the data are stored.

    Args:
        source: one of

            - `samples`: photographs of installed packages, without labels;
            - a folder or an image, as a path or any URL of fsspec (`s3://`, `gs://`, `file://`),
              with all folders in it; the name of the folder that an image lies in is its label,
              unless there is a `labels.csv`;
            - `torchvision:NAME` or `torchvision:NAME?root=FOLDER`, never downloaded; further
              settings of its builder follow, separated by `&`;
            - `hf:REPO` or `hf:REPO?name=CONFIGURATION`, from the hub of Hugging Face or a local
              folder; `image=` and `label=` name columns that are not found automatically;
            - `truth:NAME`, images of which it is known what the model `truth:NAME` reads.
        labels: of a folder, a table of labels, path or URL; of a data set by name, `index` for the
            class indices instead of names, where these are the model's.
        split: of a data set by name; None for its validation or test images.
        limit: of the images; None for all.

    Raises:
        UnknownNameError: there is no such data set.
        UnilensError: there is no image, or it cannot be read.
    """
    kind, _, rest = source.partition(":")
    if kind in _BY_NAME and not rest.startswith("//"):
        require(
            labels in (None, BY_INDEX),
            f"expected labels to be {BY_INDEX!r} or None with {source}, got {labels!r}",
        )
        return _BY_NAME[kind](rest, split=split, limit=limit, by_index=labels == BY_INDEX)
    require(
        split is None, f"expected no split with {source}, got {split!r}; name its folder instead"
    )
    if source != SAMPLES:
        return list_folder(source, labels=labels, limit=limit)
    if labels is not None:
        raise UnilensError(f"expected no labels with {SAMPLES}, which have none, got {labels!r}")
    return [
        Item(name, None, _Samples())
        for name in hash_order((f"{SAMPLES}/{n}" for n in samples), limit)
    ]


_BY_NAME: dict[str, Callable[..., list[Item]]] = {
    "torchvision": list_torchvision,
    "hf": list_hub,
    "truth": list_truth,
}
