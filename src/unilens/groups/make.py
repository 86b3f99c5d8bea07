"""Groups of columns by their names, patches, and superpixels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from .._engine.axes import Axes
from .._validation.inputs import check_inputs
from .._validation.settings import check_channels, check_count, check_number, shown
from ..errors import NotApplicableError, UnilensError, require


def patches(inputs: Tensor, size: int | Sequence[int], *, channels: str | int = "first") -> Tensor:
    """Return square patches of images, runs of series or cubes of volumes as groups.

    Args:
        inputs: `(B, *S)`.
        size: of a patch in pixels or samples, or one for each spatial dimension; the last patch of
            a side may be smaller.
        channels: which axis of the inputs holds the channels; see `unilens.explain`.

    Returns:
        `(*spatial)`, numbered row by row.

    Raises:
        UnilensError: the inputs are tables, or the sizes do not fit.

    Example:
        >>> patches(torch.zeros(1, 3, 2, 4), 2)
        tensor([[0, 0, 1, 1],
                [0, 0, 1, 1]])
    """
    sides = _channels_first(inputs, channels).shape[2:]
    sizes = [size] * len(sides) if not isinstance(size, (tuple, list)) else list(size)
    require(
        len(sizes) == len(sides),
        f"expected size to be a whole number or {len(sides)} of them, got {shown(size)}",
    )
    index = torch.zeros(sides, dtype=torch.long)
    for dim, (side, length) in enumerate(zip(sides, sizes, strict=True)):
        length = check_count("size", length)
        along = torch.arange(side) // length
        index = index * math.ceil(side / length) + along.view(-1, *(1,) * (len(sides) - dim - 1))
    return index


def superpixels(
    images: Tensor,
    n_segments: int = 50,
    *,
    compactness: float = 10.0,
    channels: str | int = "first",
) -> Tensor:
    """Return superpixels of images or volumes as groups, by SLIC of scikit-image.

    Args:
        images: `(B, C, H, W)` or `(B, C, D, H, W)`, in any units: each is scaled to [0, 1].
        n_segments: about how many superpixels an image has.
        compactness: how much nearness in space counts against that in colour.
        channels: which axis of the images holds the channels; see `unilens.explain`.

    Returns:
        `(B, 1, *spatial)`, with the channels' axis where the images have it.

    Raises:
        UnilensError: the images or a setting do not fit.

    References:
        Achanta et al. 2012, doi 10.1109/TPAMI.2012.120.
    """
    from skimage.segmentation import slic  # here: it is slow to load

    check_count("n_segments", n_segments)
    check_number("compactness", compactness, above=0)
    first = _channels_first(images, channels)
    require(
        first.ndim in (4, 5),
        f"expected images (B, C, H, W) or volumes (B, C, D, H, W), got {tuple(first.shape)}; use "
        "unilens.groups.patches",
    )
    segments = [
        torch.from_numpy(
            slic(
                image.double().cpu().numpy(),
                n_segments=n_segments,
                compactness=compactness,
                channel_axis=0,
                start_label=0,
                convert2lab=len(image) == 3,
            )
        )
        for image in first
    ]
    found = torch.stack(segments).long().unsqueeze(1).to(first.device)
    return Axes(channels).from_first(found) if channels != "none" else found.squeeze(1)


def _channels_first(inputs: Tensor, channels: str | int) -> Tensor:
    check_channels(channels)
    checked = check_inputs(inputs, None)
    if checked.ndim < 3:
        raise NotApplicableError(
            f"expected inputs with positions, got a table {tuple(checked.shape)}; use "
            "unilens.groups.columns"
        )
    require(
        not isinstance(channels, int) or channels < checked.ndim,
        f"expected channels to be an axis below {checked.ndim}, got {channels}",
    )
    return Axes("first" if channels == "auto" else channels).to_first(checked)


def columns(
    names: Iterable[str], groups: Mapping[str, Sequence[str]] | Sequence[str]
) -> tuple[Tensor, list[str]]:
    """Return groups of columns by their names; all other columns are groups of their own.

    Args:
        names: of all columns, in order, as `frame.columns`.
        groups: the columns of each group by its name, or prefixes: all columns that begin with one
            are a group of its name.

    Returns:
        The number of each column's group `(F,)`, and the name of each group, in order.

    Raises:
        UnilensError: a column is unknown, is twice in it or in two groups, or a group has none.

    Example:
        >>> columns(["age", "colour_red", "colour_blue"], ["colour_"])
        (tensor([0, 1, 1]), ['age', 'colour_'])
    """
    require(
        isinstance(names, Iterable) and not isinstance(names, str),
        f"expected names of columns as a list, got {shown(names)}",
    )
    names = list(names)
    twice = [name for number, name in enumerate(names) if name in names[:number]]
    require(not twice, f"expected names of columns, each once, got {shown(twice[:1])} twice")
    group_of: dict[str, str] = {}
    for group, members in _members(names, groups).items():
        require(bool(members), f"expected group {group!r} to have a column, got none")
        for name in members:
            require(name in names, f"expected columns in group {group!r}, got the unknown {name!r}")
            other = group_of.setdefault(name, group)
            require(
                other == group,
                f"expected column {name!r} in one group, got it in {other!r} and {group!r}",
            )
    labels = [group_of.get(name, name) for name in names]
    for name in names:
        require(
            name in group_of or name not in group_of.values(),
            f"expected groups of other names than single columns, got {name!r}; rename it",
        )
    found = list(dict.fromkeys(labels))
    number = {label: position for position, label in enumerate(found)}
    return torch.tensor([number[label] for label in labels]), found


def _members(
    names: list[str], groups: Mapping[str, Sequence[str]] | Sequence[str]
) -> dict[str, list[str]]:
    """Return the columns of each group, by its name."""
    if isinstance(groups, Mapping):
        for group, members in groups.items():
            require(
                not isinstance(members, str) and isinstance(members, Iterable),
                f"expected group {group!r} to be a list of columns, got {shown(members)}",
            )
        return {group: list(members) for group, members in groups.items()}
    if isinstance(groups, str) or not isinstance(groups, Iterable):
        raise UnilensError(
            f"expected groups as a mapping from name to columns, or a list of prefixes, got "
            f"{shown(groups)}"
        )
    prefixes = cast(Sequence[str], list(groups))
    return {prefix: [name for name in names if str(name).startswith(prefix)] for prefix in prefixes}
