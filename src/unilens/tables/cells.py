"""Rows with masked cells: a model of which cells are there, averaged over reference rows.

Rows are codes: a row's code stands in each of its groups of columns, and `MASKED` in the groups
that are masked. The scores of masked rows are averaged over the references, each of which gives its
cells whole, in the types in which the user's model takes them. Nothing is interpolated, so that
words, dates and missing values are as good as numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from .._validation.arrays import Array
from ..scores import Score
from .frame import Table
from .groups import Group
from .predictors import Predictor

MASKED = -1.0
_CELLS_PER_CALL = 4_000_000
"""Cells of a table in one call of the user's model."""


@dataclass(frozen=True, eq=False)
class CodedRows:
    """Rows and references of one table, and the scores of rows put together from both.

    Attributes:
        predictor: the user's model.
        pool: the rows, followed by the references.
        count: how many of the pool are rows.
        groups: of the columns.
        score: of outputs.
        targets: `(T,)`, the distinct outputs that are explained.
        dtype: of the model's outputs, in whose precision passes of many rows equal those of one.
    """

    predictor: Predictor
    pool: Table
    count: int
    groups: Sequence[Group]
    score: Score
    targets: Tensor
    dtype: torch.dtype

    def __deepcopy__(self, memo: dict[int, Any]) -> CodedRows:
        """Return the object itself: nothing in it is changed by a pass."""
        return self

    @property
    def n_references(self) -> int:
        """How many references masked cells are taken from."""
        return len(self.pool) - self.count

    def scores(self, rows: Array) -> Tensor:
        """Return the scores `(m, T)` of rows `(m, G)`: for each group, which row of the pool."""
        group_of = numpy.empty(len(self.pool.names), dtype=numpy.int64)
        for number, group in enumerate(self.groups):
            group_of[list(group.columns)] = number
        parts = max(1, _CELLS_PER_CALL // len(group_of))
        scores = []
        for start in range(0, len(rows), parts):
            data = self.pool.gather(rows[start : start + parts][:, group_of])
            outputs = self.predictor.outputs(data)
            scores.append(class_scores(self.score, outputs, self.targets))
        return torch.cat(scores)

    def masked_scores(self, rows: Array) -> Tensor:
        """Return the scores `(m, T)` of rows `(m, G)`, with -1 in masked groups.

        A row with masked groups has the mean over the references of the scores with their cells.
        """
        masked = torch.from_numpy((rows < 0).any(1))
        scores = torch.empty(len(rows), len(self.targets), dtype=torch.float64)
        if not masked.all():
            scores[~masked] = self.scores(rows[(~masked).numpy()]).cpu().double()
        together = max(1, _CELLS_PER_CALL // (self.n_references * rows.shape[1]))
        for index in masked.nonzero().flatten().split(together):
            if len(index):
                scores[index] = self._mean_scores(rows[index.numpy()])
        return scores

    def _mean_scores(self, rows: Array) -> Tensor:
        references = numpy.arange(self.count, len(self.pool))[:, None, None]
        filled = numpy.where(rows < 0, references, rows).reshape(-1, rows.shape[1])
        scores = self.scores(filled).cpu().double().view(self.n_references, len(rows), -1)
        total = torch.zeros_like(scores[0])
        for of_reference in scores:  # rounding must not depend on the batch
            total += of_reference
        return total / self.n_references

    def base(self) -> Tensor:
        """Return the mean scores `(T,)` of the references."""
        return self._mean_scores(numpy.full((1, len(self.groups)), -1))[0]


def class_scores(score: Score, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the scores `(m, T)` of outputs `(m, K)` for each of the targets `(T,)`."""
    columns = [
        score(outputs, torch.full((len(outputs),), target, device=outputs.device))
        for target in targets.tolist()
    ]
    return torch.stack(columns, 1)


def row_codes(rows: Table) -> Tensor:
    """Return a code `(n,)` for each row, from its cells alone, so that draws depend on them alone.

    Rows with the same cells have the same code, a whole number below 2^48.
    """
    cells = zip(*(rows.column(index) for index in range(len(rows.names))), strict=True)
    codes = [hashlib.blake2b(repr(row).encode(), digest_size=6).digest() for row in cells]
    numbers = [int.from_bytes(code, "big") for code in codes]
    return torch.tensor(numbers, dtype=torch.float64)


class CellModel(nn.Module):
    """A model from codes `(m, G)` to scores `(m, T)`.

    Args:
        rows: the coded rows.
        codes: `(n,)`, of the rows.
    """

    def __init__(self, rows: CodedRows, codes: Tensor) -> None:
        super().__init__()
        self._rows = rows
        self._codes, first = numpy.unique(codes.numpy(), return_index=True)
        self._first: Array = first

    def forward(self, codes: Tensor) -> Tensor:
        """Return the scores of rows, some of whose groups may be masked."""
        given = codes.detach().cpu().double().numpy()
        masked = given < 0
        place = numpy.searchsorted(self._codes, given).clip(0, len(self._codes) - 1)
        index = self._first[place]
        return self._rows.masked_scores(numpy.where(masked, -1, index)).to(self._rows.dtype)
