"""Shapley values of groups: the mean change of the score as a group joins the others."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..._validation.settings import Count, CountOrZero
from ...errors import require
from ...explainer import ExplainContext
from ...groups.base import Groups, grid
from ...registry import Card
from .masking import GroupScores, MaskedScores, MaskingMethod, add_masking_method

_MOST_EXACT = 16


@dataclass(frozen=True)
class Shapley(MaskingMethod):
    """Shapley values: a group's change of the score, averaged over all orders in which groups join.

    phi_g is the mean over orders of f(groups before g, and g) - f(groups before g); groups that are
    not there have the baseline's values. The values add up to f(x) - f(x'). Groups are those given,
    else the features of a table, or the cells of a grid. With few of them all coalitions are
    evaluated, each once. With more, orders are drawn at random, each with its reverse, and
    `record["standard_error"]` `(B, G)` has the standard error of each group's value, from the
    variance over the pairs: 0 for exact values. All inputs have the same orders.

    Args:
        baseline: its values replace those of masked groups.
        score: what is explained, by name or as a function of logits and target.
        cells: cells per side of the grid where no groups are given; None for 7, or for 4 in three
            spatial dimensions.
        n_permutations: number of orders, even, at least 4; each takes one pass less than there are
            groups, and the two ends are shared. The standard error falls with its square root.
        exact_up_to: most groups of which all 2^G coalitions are evaluated; at most 16.

    References:
        Shapley 1953, doi 10.1515/9781400881970-018. Orders drawn at random: Castro et al. 2009,
        doi 10.1016/j.cor.2008.04.004; with their reverses: Mitchell et al. 2022, arXiv 2104.12199.
    """

    grid_settings = ("cells",)

    cells: Count | None = None
    n_permutations: Count = 40
    exact_up_to: CountOrZero = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.n_permutations % 2 == 0 and self.n_permutations > 2,
            "expected n_permutations to be even and at least 4, since each is taken with its "
            f"reverse and errors are those of pairs, got {self.n_permutations}",
        )
        require(
            self.exact_up_to <= _MOST_EXACT,
            f"expected exact_up_to to be at most {_MOST_EXACT}, or {2**_MOST_EXACT} passes, got "
            f"{self.exact_up_to}",
        )

    @property
    def complete(self) -> bool:
        """Whether the values add up to the change of the score in theory."""
        return True

    def _groups(self, context: ExplainContext) -> Groups:
        given = super()._groups(context)
        shape = context.inputs.shape[1:]
        return grid(shape, self._cells(shape)).to(context.inputs.device) if given is None else given

    def _cells(self, shape: torch.Size) -> int:
        return self.cells or (7 if len(shape) < 4 else 4)

    def _points(self, shape: torch.Size) -> int:
        if len(shape) == 1:
            return self._group_points(shape[0])
        return self._group_points(math.prod(min(self._cells(shape), side) for side in shape[1:]))

    def _group_points(self, count: int) -> int:
        if count <= self.exact_up_to:
            return 2**count - 1
        return self.n_permutations * (count - 1) + 1

    def _map(self, masked: MaskedScores) -> Tensor:
        raise NotImplementedError("it always has groups")

    def _group_sums(self, groups: GroupScores) -> dict[str, Tensor]:
        exact = groups.count <= self.exact_up_to
        return _enumerated(groups) if exact else self._sampled(groups)

    def _sampled(self, groups: GroupScores) -> dict[str, Tensor]:
        """Return the values and standard errors `(m, g)` from random orders and their reverses."""
        count, pairs = groups.count, self.n_permutations // 2
        generator = torch.Generator().manual_seed(groups.masked.context.seed)
        orders = [torch.randperm(count, generator=generator) for _ in range(pairs)]
        place = torch.stack(orders)  # of each group in the order
        place = torch.stack([place, count - 1 - place], dim=1).flatten(0, 1)

        def kept(numbers: Tensor) -> Tensor:
            order, joined = numbers // (count - 1), numbers % (count - 1) + 1
            return place[order] < joined.unsqueeze(1)

        inner = groups.scores(self.n_permutations * (count - 1), kept)
        inner = inner.view(len(inner), self.n_permutations, count - 1)
        first, last = (end.view(-1, 1, 1).expand(*inner.shape[:2], 1) for end in groups.ends)
        changes = torch.cat([first, inner, last], dim=2).diff(dim=2)
        by_group = changes.gather(2, place.to(changes.device).expand_as(changes))
        by_pair = by_group.unflatten(1, (pairs, 2)).mean(2)
        return {
            "sums": by_pair.mean(1),
            "standard_error": by_pair.std(1, correction=1) / math.sqrt(pairs),
        }


def _enumerated(groups: GroupScores) -> dict[str, Tensor]:
    """Return the values `(m, g)` from all coalitions, with standard errors of 0.

    Coalition n has the groups whose bit is set in n.
    """
    count = groups.count
    members = (torch.arange(2**count).unsqueeze(1) >> torch.arange(count)) % 2 == 1
    inner = groups.scores(2**count - 2, lambda numbers: members[numbers + 1])
    first, last = (end.unsqueeze(1) for end in groups.ends)
    scores = torch.cat([first, inner, last], dim=1)
    weights = _shapley_weights(members).to(scores)
    sums = torch.stack([(weights * row.unsqueeze(1)).sum(0) for row in scores])
    return {"sums": sums, "standard_error": torch.zeros_like(sums)}


def _shapley_weights(members: Tensor) -> Tensor:
    """Return the weight of each coalition's score in each group's value `(2^g, g)`.

    A group joins the s groups of a coalition in s! (g - s - 1)! of the g! orders.
    """
    count, size = members.shape[1], members.sum(1, keepdim=True)
    shares = [1 / (count * math.comb(count - 1, joined)) for joined in range(count)]
    share = torch.tensor([0.0, *shares, 0.0], dtype=torch.float64)
    return torch.where(members, share[size], -share[size + 1])


add_masking_method(
    Card(
        "shapley",
        "perturbation",
        "the mean change of the score as a group joins the others, in all orders",
        "Shapley 1953; Castro et al. 2009; Mitchell et al. 2022, arXiv 2104.12199",
        deterministic=False,
        traits=("estimate", "passes_by_size", "positions"),
    ),
    Shapley,
)
