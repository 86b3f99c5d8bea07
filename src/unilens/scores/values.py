"""Scores of models that return values: an embedding's likeness, a regression, a forecast."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .._validation.settings import check_count
from ..errors import UnilensError, require
from .base import OutputScore, as_tensor, at_least_float32, entries_of, entry_of, per_row, row_of

_EMBEDDINGS = ("image_embeds", "text_embeds", "embeddings", "pooler_output", "embedding")
_FORECASTS = ("prediction_outputs", "forecast", "predictions", "logits")
_VALUES = ("logits", "predictions", "output")


@dataclass(frozen=True, eq=False)
class Similarity(OutputScore):
    """How alike the model's embedding and a given one are; see `similarity`."""

    embedding: Tensor
    measure: Literal["cosine", "dot", "distance"] = "cosine"
    output: str | int | None = None

    def __post_init__(self) -> None:
        embedding = as_tensor("embedding", self.embedding)
        require(
            embedding.ndim in (1, 2)
            and embedding.is_floating_point()
            and bool(embedding.isfinite().all()),
            f"expected embedding of finite numbers (D,), or (B, D) for each input, got "
            f"{embedding.dtype} of shape {tuple(embedding.shape)}",
        )
        object.__setattr__(self, "embedding", embedding)

    def for_input(self, row: int, count: int, outputs: Callable[[], Any]) -> Similarity:
        """Return the likeness to the embedding of one input."""
        own = row_of("embedding", self.embedding, row, count, 1)
        return self if own is self.embedding else dataclasses.replace(self, embedding=own)

    def __call__(self, outputs: Any, /) -> Tensor:
        """Return the likeness `(M,)`."""
        found = at_least_float32(entry_of(outputs, _EMBEDDINGS, (2,), self.output, "similarity"))
        given = per_row("embedding", self.embedding.to(found), len(found), 1)
        require(
            given.shape[1] == found.shape[1],
            f"expected embedding of the model's size {found.shape[1]}, got {given.shape[1]}",
        )
        if self.measure == "dot":
            return (found * given).sum(1)
        if self.measure == "distance":
            return -(found - given).square().sum(1)
        return torch.cosine_similarity(found, given)


def similarity(
    embedding: Tensor,
    *,
    measure: Literal["cosine", "dot", "distance"] = "cosine",
    output: str | int | None = None,
) -> Similarity:
    """Return the score of an embedder: how alike its embedding and a given one are.

    For CLIP, DINO, face and text embedders. UNI unlearns the score itself.

    Args:
        embedding: `(D,)` for all inputs or `(B, D)` for each, such as that of another image or of a
            sentence; it stays fixed.
        measure: "cosine", in [-1, 1], "dot", the product, or "distance", the negative squared
            distance.
        output: name or position of the embedding `(M, D)` among what the model returns; None to
            look for "image_embeds", "text_embeds", "pooler_output", or the only one of that shape.

    >>> similarity(torch.tensor([0.0, 2.0]))(torch.tensor([[3.0, 4.0]]))
    tensor([0.8000])
    """
    return Similarity(embedding, measure, output)


@dataclass(frozen=True, eq=False)
class Value(OutputScore):
    """One value among what the model returns; see `regression` and `forecast`."""

    index: tuple[int, ...]
    names: tuple[str, ...]
    output: str | int | None = None
    what: str = "regression"
    second: int = 0

    def __call__(self, outputs: Any, /) -> Tensor:
        """Return the values `(M,)`."""
        dims = (1, 2) if self.what == "regression" else (2, 3)
        values, indices = self._entry(outputs, dims)
        dims_used = values.ndim - 1
        for place, index in enumerate(indices[:dims_used]):
            size = values.shape[1]
            if not -size <= index < size:
                raise UnilensError(
                    f"expected {self._name_of(place)} below {size}, since the model's outputs have "
                    f"that many, got {index}"
                )
            values = values[:, index]
        for place in range(dims_used, len(indices)):
            require(
                indices[place] in (0, -1),
                f"expected {self._name_of(place)} 0, the only one, got {indices[place]}",
            )
        return values

    def _entry(self, outputs: Any, dims: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
        """Return the tensor that has the value, and the value's indices in it.

        Of several tensors of a regression, `output` is the position of one.
        """
        if self.what == "regression" and self.output is None and not isinstance(outputs, Tensor):
            fits = [name for name, value in entries_of(outputs) if value.ndim in dims]
            if len(fits) > 1 and not any(name in fits for name in self.names):
                return entry_of(outputs, (), dims, self.index[0], self.what), (self.second,)
        return entry_of(outputs, self.names, dims, self.output, self.what), self.index

    def _name_of(self, place: int) -> str:
        return ("step", "series")[place] if self.what == "forecast" else "output"


def regression(output: int | str = 0, *, index: int = 0) -> Value:
    """Return the score of a regression: one of the values that the model returns, in its unit.

    UNI unlearns the value itself.

    Args:
        output: the column of outputs `(M, K)`; or, of several outputs, the name or the position of
            one, `(M,)` or `(M, K)`.
        index: the column, where `output` is a name or a position.

    >>> regression(1)(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([2., 4.])
    """
    if isinstance(output, str):
        return Value((_whole("index", index),), (), output)
    return Value((_whole("output", output),), _VALUES, second=_whole("index", index))


def forecast(step: int, series: int = 0, *, output: str | int | None = None) -> Value:
    """Return the score of a forecast: one step of one series, in the model's unit.

    UNI unlearns the value itself.

    Args:
        step: of the horizon, from 0; negative ones count from its end.
        series: of outputs `(M, H, F)`; outputs `(M, H)` have one.
        output: name or position of the forecast among what the model returns; None to look for
            "prediction_outputs", "forecast", "predictions", or the only one of that shape.

    >>> forecast(-1, series=1)(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
    tensor([4.])
    """
    return Value((_whole("step", step), _whole("series", series)), _FORECASTS, output, "forecast")


def _whole(name: str, value: object) -> int:
    number = check_count(name, value, least=-(2**31))
    require(number < 2**31, f"expected {name} below 2^31, got {number}")
    return number
