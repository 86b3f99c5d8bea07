"""Explanations of tables, from modules, scikit-learn's estimators and functions of arrays.

Neither scikit-learn nor pandas is needed: any object with the methods of an estimator or a frame
works.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import numpy
import torch
from torch import Tensor, nn

from .._engine.evaluator import Evaluator
from .._validation.arrays import is_array, to_array
from .._validation.inputs import Target, check_seed
from .._validation.settings import check_choice
from ..attribution import Attribution
from ..errors import NotApplicableError, UnilensError
from ..explainer import with_outputs
from ..methods import explain, methods

Array = numpy.ndarray[Any, numpy.dtype[Any]]
_OUTPUTS = ("probability", "score")


class TableExplainer:
    """Explain the rows of a table: `explainer(X)` gives an array in the shape of `X`.

    A `torch.nn.Module` can be explained by any method for tables. A function of arrays is not
    differentiable: only methods that need no gradient explain it, such as "occlusion" (one feature
    at a time), "rise" and "sobol". Of an estimator, `predict_proba` is explained; where there is
    none, `decision_function`, or `predict`. What models know of names and units stays theirs:
    features are compared in the units they come in.

    Args:
        model: a module from `(n, F)` to logits `(n, K)`, in eval mode, or an `Evaluator` of one,
            made with `independent=False` for many rows; an estimator; or a function from an array
            `(n, F)`, or a frame where rows come in one, to `(n, K)` or `(n,)`.
        method: a name in `unilens.methods()`; None for the default of `unilens.explain` for
            modules, "occlusion" for others.
        target: class index, one for all or one per row; None for the class predicted.
        outputs: what a function gives: "probability", whose rows sum to one, or "score", anything
            else; None for "probability" of `predict_proba`, and "score" otherwise. Of a module, as
            in `unilens.explain`.
        seed: of everything random.
        **settings: of the method, by name; without `score`, a "score" is explained as it is.

    Raises:
        NotApplicableError: the method needs gradients, and the model is a function.

    Example:
        >>> explainer = TableExplainer(lambda rows: rows @ numpy.array([2.0, -1.0]))
        >>> explainer(numpy.array([[1.0, 3.0], [0.5, 0.0]])).tolist()
        [[2.0, -3.0], [1.0, 0.0]]
    """

    def __init__(
        self,
        model: Any,
        method: str | None = None,
        target: Target = None,
        *,
        outputs: str | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        self.model, self.target, self.settings = model, target, settings
        self.seed = check_seed(seed)
        self.outputs = outputs
        torch_model = isinstance(model, (nn.Module, Evaluator))
        self._predict = None if torch_model else _predict(model)
        self.method = method if method or self._predict is None else "occlusion"
        if self._predict is not None:
            named = getattr(self._predict, "__name__", "") == "predict_proba"
            self.outputs = outputs or ("probability" if named else "score")
            check_choice("outputs", self.outputs, _OUTPUTS)
            if self.outputs == "score":
                self.settings = {"score": "logit", **settings}
        explainer = None if self.method is None else methods[self.method](**self.settings)
        if self._predict is not None and explainer and explainer.passes.backward:
            raise NotApplicableError(
                f"{self.method} needs gradients, which a function of arrays does not have; use "
                "method='occlusion', 'rise' or 'sobol', or pass a torch.nn.Module"
            )

    def __call__(self, X: Any) -> Array:  # noqa: N803
        """Return the attributions `(n, F)` of rows `(n, F)`, signed, in units of the score.

        Args:
            X: an array, a frame, a sparse matrix or lists of numbers. Estimators that need text,
                or that fill what is missing, are explained after those steps.
        """
        return self.explain(X).numpy()

    def explain(self, X: Any) -> Attribution:  # noqa: N803
        """Return the attribution of rows `(n, F)`, with its diagnostics.

        Args:
            X: as for a call.
        """
        rows = _rows(X, self.model)
        if self._predict is None:
            evaluator = Evaluator.of(with_outputs(self.model, self.outputs))
        else:
            probable = self.outputs == "probability"
            function = _Function(self._predict, probable, _framed(X)).eval()
            kind = "log_probabilities" if probable else "decision_function"
            evaluator = Evaluator(function, independent=False, outputs=kind)
        given = torch.as_tensor(rows).to(evaluator.device)
        given = given.to(evaluator.dtype or given.dtype)
        return explain(evaluator, given, self.method, self.target, seed=self.seed, **self.settings)


def _predict(model: Any) -> Callable[[Any], Any]:
    """Return the function of arrays to explain: an estimator's, or the function itself."""
    for name in ("predict_proba", "decision_function", "predict"):
        if callable(getattr(model, name, None)):
            return cast(Callable[[Any], Any], getattr(model, name))
    if not callable(model):
        raise UnilensError(
            "expected a torch.nn.Module, an estimator with predict_proba, decision_function or "
            f"predict, or a function of arrays, got {type(model).__name__}"
        )
    return cast(Callable[[Any], Any], model)


def _rows(table: Any, model: Any) -> Array:
    try:
        table = table.detach().cpu().to_dense() if isinstance(table, Tensor) else table
        rows = to_array("a table", table if is_array(table) else numpy.asarray(table))
    except UnilensError as error:
        raise UnilensError(f"{error}{_after_steps(model)}") from None
    except (TypeError, ValueError, RuntimeError):
        raise UnilensError(
            f"expected a table of numbers, got {type(table).__name__} with rows of several lengths"
        ) from None
    if rows.ndim != 2:
        raise UnilensError(f"expected a table (rows, features), got shape {rows.shape}")
    rows = rows if rows.dtype == numpy.float32 else rows.astype(numpy.float64)
    missing = numpy.flatnonzero(~numpy.isfinite(rows).all(1)).tolist()
    if missing:
        raise UnilensError(
            f"expected finite inputs, got NaN or infinity in row {', '.join(map(str, missing[:5]))}"
            f"{', ...' if len(missing) > 5 else ''} of {len(rows)}; fill what is missing, such as "
            f"by the median{_after_steps(model)}"
        )
    return rows


def _after_steps(model: Any) -> str:
    """Return, for a pipeline, how to explain the steps after its encoder or imputer."""
    if not hasattr(getattr(model, "__self__", model), "named_steps"):
        return ""
    return (
        ", or explain the steps after the encoder or imputer: TableExplainer(pipeline[1:])"
        "(pipeline[:1].transform(X))"
    )


def _framed(table: Any) -> Callable[[Array], Any] | None:
    """Return a constructor of frames like the table; None where it is no frame."""
    if not (hasattr(table, "columns") and hasattr(table, "to_numpy")):
        return None
    kind: Any = type(table)
    names = "schema" if kind.__module__.startswith("polars") else "columns"
    return functools.partial(kind, **{names: table.columns})


class _Function(nn.Module):
    """A function of arrays as a model: probabilities become their logarithms, which are logits.

    Args:
        predict: from an array or a frame of `(n, F)` to `(n, K)` or `(n,)`.
        probable: whether it gives probabilities.
        frame: from an array to the argument of `predict`; None for the array itself.
    """

    def __init__(
        self, predict: Callable[[Any], Any], probable: bool, frame: Callable[[Array], Any] | None
    ) -> None:
        super().__init__()
        self._predict, self._probable, self._frame = predict, probable, frame

    def forward(self, rows: Tensor) -> Tensor:
        array = rows.detach().cpu().numpy()
        given = array if self._frame is None else self._frame(array)
        outputs = torch.as_tensor(numpy.array(self._predict(given), dtype=numpy.float64))
        outputs = outputs.unsqueeze(1) if outputs.ndim == 1 else outputs
        if not self._probable:
            return outputs
        if not (outputs.min() >= 0 and (outputs.sum(1) - 1).abs().max() < 1e-3):
            raise UnilensError(
                "expected probabilities, none negative and each row summing to one, got values "
                f"from {outputs.min():g} to {outputs.max():g}; pass outputs='score'"
            )
        return outputs.clamp_min(torch.finfo(torch.float64).tiny).log()
