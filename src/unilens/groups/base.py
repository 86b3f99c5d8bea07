"""Groups of input values that belong together, read from what a user gave.

A group is masked, summed and ranked as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._engine.axes import Axes
from .._ops.precision import to_float64
from .._ops.spatial import grid_cell_index
from .._validation.arrays import bare_array, is_array
from .._validation.settings import shown
from ..errors import NotApplicableError, UnilensError, require


class GroupsOfRows(NamedTuple):
    """The groups of those inputs of a batch that have equally many.

    Attributes:
        rows: `(m,)`, the numbers of the inputs.
        own_index: `(1|m, 1|C, *spatial)`, the number of each value's group among its input's own.
        columns: `(m, g)`, the numbers of the inputs' own groups among those of the batch.
    """

    rows: Tensor
    own_index: Tensor
    columns: Tensor


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of a batch of inputs `(B, *S)`, channels first.

    Attributes:
        index: `(1|B, 1|C, *spatial)`, the number of each value's group; `(1|B, F)` of tables.
        count: G, the number of groups of all inputs together.
    """

    index: Tensor
    count: int

    def of(self, values: Tensor) -> Tensor:
        """Return the number of the group of each of the values `(B, *S)`."""
        return self.index.expand_as(values)

    def sizes(self, values: Tensor) -> Tensor:
        """Return how many of the values `(B, *S)` each group has `(B, G)`."""
        return self._sums(torch.ones_like(values))

    def sums(self, values: Tensor) -> Tensor:
        """Return the sums `(B, G)` of values `(B, *S)`, in float64; NaN for groups that lack."""
        return self._sums(values).masked_fill(self.sizes(values) == 0, torch.nan)

    def spread(self, sums: Tensor, like: Tensor) -> Tensor:
        """Divide each group's sum `(B, G)` evenly among its values `(B, *S)`."""
        shares = sums / self.sizes(like)
        return shares.gather(1, self.of(like).flatten(1)).view(like.shape).to(like.dtype)

    def own(self, batch: int) -> list[Tensor]:
        """Return the numbers `(g,)` of the groups that each input has, in ascending order."""
        if len(self.index) == 1:
            return [torch.arange(self.count, device=self.index.device)] * batch
        return [torch.unique(row) for row in self.index]

    def by_count(self, batch: int) -> Iterator[GroupsOfRows]:
        """Yield the inputs with equally many groups; the numbers of their own are 0 ... g - 1."""
        own = self.own(batch)
        for count in sorted({len(numbers) for numbers in own}):
            rows = [row for row, numbers in enumerate(own) if len(numbers) == count]
            columns = torch.stack([own[row] for row in rows])
            yield GroupsOfRows(self.index.new_tensor(rows), self._own_index(rows, columns), columns)

    def to(self, device: torch.device) -> Groups:
        """Return the groups on a device."""
        return Groups(self.index.to(device), self.count)

    def repeat(self, times: int) -> Groups:
        """Return the groups of the inputs, repeated one batch after another."""
        if len(self.index) == 1:
            return self
        return Groups(torch.cat([self.index] * times), self.count)

    def of_positions(self) -> Groups:
        """Return groups of positions `(1|B, *spatial)`; raise where channels differ."""
        if self.index.ndim == 2:
            return self
        if not (self.index == self.index[:, :1]).all():
            raise NotApplicableError(
                "expected groups that are the same in all channels, since metrics remove positions "
                "in all channels together, got others; pass groups of positions"
            )
        return Groups(self.index[:, 0], self.count)

    def _own_index(self, rows: list[int], columns: Tensor) -> Tensor:
        """Return the numbers of the groups of some inputs, among each input's own."""
        if len(self.index) == 1:
            return self.index
        flat = torch.searchsorted(columns, self.index[rows].flatten(1))
        return flat.view(len(rows), *self.index.shape[1:])

    def _sums(self, values: Tensor) -> Tensor:
        known = to_float64(values.flatten(1))
        zeros = known.new_zeros(len(known), self.count)
        return zeros.scatter_add(1, self.of(values).flatten(1), known)


def read_groups(given: object, inputs: Tensor, axes: Axes | None = None) -> Groups:
    """Return groups that a user gave; labels are numbered from 0 in ascending order.

    Args:
        given: integers of the shape of one input `(*S)`, of its positions `(*spatial)`, or either
            with the batch in front, in the user's order of axes; sides of 1 are broadcast.
        inputs: `(B, *S)`, channels first.
        axes: the user's order of axes; None for channels first.

    Raises:
        UnilensError: they are not integers from 0 on, or their shape does not fit in one way.
    """
    if isinstance(given, Groups):
        return given
    labels = _integers(given)
    index = _by_shape(labels, inputs, axes or Axes()).to(inputs.device)
    present, index = torch.unique(index, return_inverse=True)
    return Groups(index, len(present))


def needs_axes(given: object, inputs: Tensor) -> bool:
    """Whether which axis of inputs `(B, *S)` holds the channels says what groups mean."""
    shape = tuple(getattr(given, "shape", ()))
    return given is not None and shape not in (tuple(inputs.shape), tuple(inputs.shape[1:]))


def _integers(given: object) -> Tensor:
    """Return labels of groups as integers; raise where they are none, or below 0."""
    array: Any = bare_array("groups", given) if is_array(given) else given
    try:
        labels = torch.as_tensor(array)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        labels = None
    if labels is None or labels.dtype.is_floating_point or labels.dtype in _NO_INTEGERS:
        came = shown(given) if labels is None else f"{labels.dtype} of shape {tuple(labels.shape)}"
        raise UnilensError(
            f"expected groups to be integers of the inputs' shape, got {came}; number the groups "
            "from 0 on, as unilens.groups.patches, superpixels and columns do"
        )
    labels = labels.detach().long()
    require(
        not labels.numel() or int(labels.min()) >= 0,
        f"expected groups of labels from 0 on, got {int(labels.min()) if labels.numel() else 0}; "
        "give what belongs to no group a group of its own",
    )
    return labels


_NO_INTEGERS = {torch.bool, torch.complex64, torch.complex128, torch.complex32}


def _by_shape(labels: Tensor, inputs: Tensor, axes: Axes) -> Tensor:
    """Return labels `(1|B, 1|C, *spatial)`, channels first, by the only reading of their shape."""
    whole = axes.from_first(torch.empty(inputs.shape, device="meta")).shape
    readings = [
        (whole, axes.to_first),
        (whole[1:], lambda labels: axes.to_first(labels[None])),
    ]
    if inputs.ndim > 2:
        readings += [
            (inputs.shape[:1] + inputs.shape[2:], lambda labels: labels.unsqueeze(1)),
            (inputs.shape[2:], lambda labels: labels[None, None]),
        ]
    fitting = [read(labels) for shape, read in readings if _broadcasts(labels.shape, shape)]
    if not fitting:
        options = ", ".join(str(tuple(shape)) for shape in dict(readings))
        raise UnilensError(
            f"expected groups of one of the shapes {options}, for inputs of shape {tuple(whole)}; "
            f"got {tuple(labels.shape)}"
        )
    if not all(torch.equal(*torch.broadcast_tensors(fitting[0], other)) for other in fitting[1:]):
        one = torch.empty((len(inputs), 1, *inputs.shape[2:]), device="meta")
        raise UnilensError(
            f"expected groups by channel or by input, got {tuple(labels.shape)}, which may be "
            f"either; pass shape {tuple(axes.from_first(one).shape)} for groups by input, or "
            f"{tuple(whole)}"
        )
    kept = fitting[0].shape[: 2 if inputs.ndim > 2 else 1]
    return fitting[0].expand(*kept, *inputs.shape[len(kept) :])


def _broadcasts(shape: torch.Size, whole: torch.Size) -> bool:
    """Whether every side of a shape is that of the whole, or 1."""
    pairs = zip(shape, whole, strict=False)
    return len(shape) == len(whole) and all(side in (1, full) for side, full in pairs)


def grid(shape: torch.Size, cells: int) -> Groups:
    """Return cells of a grid of `cells` per side, for inputs of shape `*S`; of tables features."""
    if len(shape) == 1:
        return Groups(torch.arange(shape[0])[None], shape[0])
    index = grid_cell_index(shape[1:], cells)
    return Groups(index[None, None], int(index.max()) + 1)
