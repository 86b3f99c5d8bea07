"""What estimators and functions of tables predict, as outputs `(n, K)` of a known kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy
import torch
from torch import Tensor

from .._validation.arrays import Array, as_number
from .._validation.inputs import Target, check_target, read_target
from .._validation.settings import check_choice
from ..errors import NotApplicableError, UnilensError, first_line, require
from ..outputs import OUTPUTS, OutputSpec
from .frame import PandasTable, Table, TensorTable
from .reading import positions, read

_NAMES = ("predict_proba", "decision_function", "predict")


@dataclass(frozen=True, eq=False)
class Predictor:
    """A model of tables as a function with outputs of a known kind.

    Attributes:
        call: from data of the user's type, `(n, F)`, to outputs of any shape.
        spec: what the outputs are.
        classes: labels of the outputs; None where they have none.
        votes: whether the outputs are labels, which become one vote for a class.
        module: to read labels of targets from, for modules.
    """

    call: Callable[[Any], Any]
    spec: OutputSpec
    classes: tuple[Any, ...] | None = None
    votes: bool = False
    module: Any = None

    def outputs(self, data: Any) -> Tensor:
        """Return the outputs `(n, K)` at rows of the user's type.

        Raises:
            UnilensError: the model refuses the rows, or returns something else.
        """
        try:
            returned = self.call(data)
        except UnilensError:
            raise
        except Exception as error:  # a user's model can raise anything
            raise _refusal(self.call, error) from error
        return self._read(returned, len(data))

    def _read(self, returned: Any, count: int) -> Tensor:
        if hasattr(returned, "toarray"):  # a sparse matrix
            returned = returned.toarray()
        if returned is None or numpy.ndim(getattr(returned, "shape", returned)) == 0:
            raise UnilensError(
                f"expected predictions of shape ({count},) or ({count}, K), one for each row, got "
                f"{type(returned).__name__}"
            )
        if self.votes:
            labels = numpy.asarray(returned).reshape(-1).tolist()
            known = cast(tuple[Any, ...], self.classes)
            strange = [label for label in labels if label not in known]
            require(
                not strange,
                f"expected predictions among the estimator's classes_ {known[:8]}, got "
                f"{strange[:1]}",
            )
            indices = [known.index(label) for label in labels]
            return torch.eye(len(self.classes or ()), dtype=torch.float64)[indices]
        if isinstance(returned, (list, tuple)) and returned and numpy.ndim(returned[0]) == 2:
            raise UnilensError(
                f"expected one prediction for each row, got a list of {len(returned)}, one per "
                "output; explain one of them: lambda rows: model.predict_proba(rows)[0]"
            )
        outputs = returned.detach() if isinstance(returned, Tensor) else _to_tensor(returned)
        whole = not (outputs.is_floating_point() or outputs.is_complex())
        outputs = outputs.double() if whole else outputs
        outputs = outputs.unsqueeze(1) if outputs.ndim == 1 else outputs
        require(
            outputs.ndim == 2 and len(outputs) == count,
            f"expected predictions of shape ({count},) or ({count}, K), one for each row, got "
            f"{tuple(outputs.shape)}",
        )
        if self.classes is not None and outputs.shape[1] == 1 and len(self.classes) == 2:
            outputs = torch.cat([-outputs, outputs], 1)
        require(
            self.classes is None or outputs.shape[1] == len(self.classes),
            f"expected an output for each of {len(self.classes or ())} classes, got "
            f"{outputs.shape[1]}; with decision_function_shape='ovo' take 'ovr'",
        )
        return outputs

    def at(self, table: Table, what: str = "row") -> Tensor:
        """Return the outputs `(n, K)` of a table; raise where they are not finite.

        The model gets a copy, which it may change.
        """
        outputs = self.outputs(table.take(range(len(table))).data)
        wrong = (~outputs.isfinite()).any(1).nonzero().flatten().tolist()
        require(
            not wrong,
            f"expected finite predictions, got NaN or infinity for {what} "
            f"{', '.join(map(str, wrong[:5]))}{', ...' if len(wrong) > 5 else ''} of {len(outputs)}"
            "; leave these rows out, or fill what is missing in them",
        )
        self.spec.check(outputs)
        return outputs

    def check_alone(self, table: Table, outputs: Tensor) -> None:
        """Raise where a row has other outputs alone than among the rows of a table."""
        for row in sorted({0, len(table) - 1}):
            alone = self.outputs(table.take([row]).data)[0].double()
            require(
                torch.allclose(alone, outputs[row].double(), rtol=1e-4, atol=1e-6),
                "expected a model that gives a row the same output alone and among others, got "
                f"{[round(value, 6) for value in alone.tolist()[:4]]} and "
                f"{[round(value, 6) for value in outputs[row].tolist()[:4]]} for row {row}; take "
                "what depends on the other rows, or on earlier calls, out of it",
            )

    def targets(self, target: Target, outputs: Tensor) -> Tensor:
        """Return the indices `(n,)` of the outputs to explain.

        Args:
            target: a class of the estimator's `classes_`, or an index; one for all or one per row.
            outputs: `(n, K)`.
        """
        if self.classes is not None and target is not None:
            return _class_indices(target, self.classes, len(outputs))
        module = torch.nn.Identity() if self.module is None else self.module
        return check_target(target, outputs, module, self.spec)

    def label(self, index: int) -> Any:
        """Return the label of an output; its index where it has none."""
        return index if self.classes is None else self.classes[index]


def predictor(model: Any, table: Table, outputs: str | None) -> Predictor:
    """Return what to explain of an estimator or a function.

    `predict_proba` where there is one, else `decision_function`, else `predict`, whose labels count
    as votes for a class.

    Args:
        model: an estimator, or a function of data in the table's type.
        table: on which the kind of the outputs is looked at.
        outputs: their kind, a name in `unilens.outputs.OUTPUTS`; None for that of the estimator.
    """
    if outputs is not None:
        check_choice("outputs", outputs, OUTPUTS)
    name = next((name for name in _NAMES if callable(getattr(model, name, None))), None)
    if name is None or isinstance(model, type):
        return _of_function(model, table, outputs)
    if _is_clusterer(model):
        raise NotApplicableError(
            f"expected a classifier or a regressor, got {type(model).__name__}, whose clusters are "
            "numbered without order; pass a function, such as lambda rows: -model.transform(rows)"
        )
    classes = classes_of(model)
    call, votes = getattr(model, name), name == "predict" and classes is not None
    kind = {"predict_proba": "probabilities", "decision_function": "decision_function"}.get(name)
    kind = outputs or kind or ("decision_function" if votes else "regression")
    if votes or kind != "probabilities" or outputs is not None:
        return Predictor(call, OutputSpec(kind, "estimator"), classes, votes)
    values = Predictor(call, OutputSpec("decision_function"), classes).at(table)
    exclusive = values.shape[1] == 1 or bool(((values.sum(1) - 1).abs() < 1e-3).all())
    kind = "probabilities" if exclusive else "multi_label_probabilities"
    return Predictor(call, OutputSpec(kind, "estimator"), classes)


def _of_function(model: Any, table: Table, outputs: str | None) -> Predictor:
    """Return the predictor of a function; that of an estimator's method knows its classes."""
    if not callable(model) or isinstance(model, type):
        raise UnilensError(
            "expected a torch.nn.Module, an estimator with predict_proba, decision_function or "
            f"predict, or a function of tables, got {_kind(model)}"
        )
    owner, name = getattr(model, "__self__", None), getattr(model, "__name__", "")
    if owner is not None and name in _NAMES:
        found = predictor(owner, table, outputs)
        if found.call == model:
            return found
        classes = classes_of(owner)
        if name == "predict" and classes is not None and outputs is None:
            return Predictor(model, OutputSpec("decision_function", "estimator"), classes, True)
    values = Predictor(model, OutputSpec("regression")).at(table)
    kind = outputs or ("regression" if values.shape[1] == 1 else "decision_function")
    return Predictor(model, OutputSpec(kind, "assumed" if outputs is None else "setting"))


def _kind(model: Any) -> str:
    return (
        f"the class {model.__name__}; make one"
        if isinstance(model, type)
        else (f"{type(model).__name__}")
    )


def classes_of(model: Any) -> tuple[Any, ...] | None:
    """Return the labels of a classifier; those of several outputs have none in common."""
    try:
        classes = model.classes_
    except Exception:  # a property of a user's can raise anything
        return None
    if classes is None or not numpy.size(numpy.asarray(classes, dtype=object)):
        return None
    if isinstance(classes, (list, tuple)) and len(classes) and numpy.ndim(classes[0]):
        return None
    return tuple(numpy.asarray(classes).tolist())


def fitted_table(model: Any, table: Table, names: Sequence[str] | None) -> Table:
    """Return the table with the columns that a model has been fitted with, in their order.

    A frame for an estimator that was fitted with arrays becomes an array; an array for one that was
    fitted with a frame becomes a frame of pandas, its columns in order.

    Args:
        model: an estimator, or anything else.
        table: the user's.
        names: that the user gives, which are taken in place of the estimator's.

    Raises:
        UnilensError: columns are missing or too many; the message names them.
    """
    owner = getattr(model, "__self__", model)
    known, width = (_attribute(owner, name) for name in ("feature_names_in_", "n_features_in_"))
    if known is not None and not isinstance(table, (TensorTable,)) and _is_frame(table):
        columns = positions(table.names, list(known), "a frame", type(owner).__name__)
        extra = [name for name in table.names if name not in set(map(str, known))]
        require(
            not extra or names is not None,
            f"expected the {len(known)} columns that {type(owner).__name__} was fitted with, got "
            f"others as well: {', '.join(map(repr, extra[:8]))}; leave them out, as by "
            f"frame.drop(columns={extra[:8]!r}), or on the command line with --label-column",
        )
        return table.select(columns)
    if isinstance(width, (int, numpy.integer)) and width != len(table.names):
        raise UnilensError(
            f"expected a table with the {width} columns that {type(owner).__name__} was fitted "
            f"with, got {len(table.names)}: {', '.join(table.names[:8])}"
            f"{', ...' if len(table.names) > 8 else ''}; leave out what it does not know, such as "
            "an id or the label"
        )
    if known is not None:
        return _as_frame(table, known)
    if isinstance(width, (int, numpy.integer)) and (
        _is_frame(table) or isinstance(table, TensorTable)
    ):
        data = table.data.cpu() if isinstance(table, TensorTable) else table.data
        data = data.to_numpy() if hasattr(data, "to_numpy") else data.numpy()
        return read(data, names=table.names)
    return table


def _attribute(owner: Any, name: str) -> Any:
    """Return an attribute; None where there is none, or it raises."""
    try:
        return getattr(owner, name, None)
    except Exception:  # a property of a user's can raise anything
        return None


def _is_clusterer(model: Any) -> bool:
    """Whether an estimator, or the last step of a pipeline, predicts clusters."""
    if (
        _attribute(model, "cluster_centers_") is not None
        or _attribute(model, "labels_") is not None
    ):
        return True
    tags = _attribute(model, "__sklearn_tags__")
    kind = _attribute(model, "_estimator_type")
    try:
        kind = tags().estimator_type if callable(tags) else kind
    except Exception:  # an estimator of another version of scikit-learn
        return False
    return kind == "clusterer"


def _is_frame(table: Table) -> bool:
    return hasattr(table.data, "columns")


def _as_frame(table: Table, names: Any) -> Table:
    """Return an array as a frame with the names that an estimator was fitted with."""
    try:
        import pandas
    except ModuleNotFoundError:
        return table
    data = table.data.cpu().numpy() if isinstance(table, TensorTable) else table.data
    frame = pandas.DataFrame(data, columns=list(names))
    frame = frame.infer_objects() if data.dtype.kind == "O" else frame
    return PandasTable(frame, tuple(map(str, names)))


def _class_indices(target: Target, classes: tuple[Any, ...], count: int) -> Tensor:
    """Return the indices `(count,)` of classes given by their labels."""
    given = read_target(target)
    given = given.tolist() if isinstance(given, Tensor) else given
    labels = given if isinstance(given, list) else [given] * count
    require(
        len(labels) == count,
        f"expected a target for each of {count} rows, or one for all, got {len(labels)}",
    )
    known = {as_number(label): index for index, label in enumerate(classes)}
    texts = {str(label): index for index, label in enumerate(classes)}
    indices = []
    for label in map(as_number, labels):
        index = known.get(label) if _hashable(label) else None
        index = texts.get(label) if index is None and isinstance(label, str) else index
        if index is None:
            names = ", ".join(repr(name) for name in classes[:20])
            raise UnilensError(
                f"expected `target` to be one of the estimator's classes, got {label!r}; valid: "
                f"{names}{', ...' if len(classes) > 20 else ''}"
            )
        indices.append(index)
    return torch.tensor(indices)


def _hashable(value: object) -> bool:
    return isinstance(value, (str, int, float, bool))


def _to_tensor(returned: Any) -> Tensor:
    array: Array = numpy.asarray(returned.to_numpy() if hasattr(returned, "to_numpy") else returned)
    require(
        array.dtype.kind in "biufO",
        f"expected predictions that are numbers, got {array.dtype}; return probabilities or "
        "scores, one column for each class",
    )
    try:
        precise = array.dtype != numpy.float32
        return torch.from_numpy(array.astype(numpy.float64 if precise else numpy.float32))
    except (TypeError, ValueError):
        raise UnilensError(
            f"expected predictions that are numbers, got {array.dtype}; return probabilities or "
            "scores, one column for each class"
        ) from None


def _refusal(call: Any, error: BaseException) -> UnilensError:
    """Return the error of a model that does not take the rows."""
    owner = getattr(call, "__self__", None)
    name = getattr(call, "__name__", type(call).__name__)
    if type(error).__name__ == "NotFittedError":
        return UnilensError(
            f"expected a fitted estimator, got {type(owner).__name__} that is not; call its fit "
            "first"
        )
    whose = f"{type(owner).__name__}.{name}" if owner is not None else name
    return UnilensError(
        f"the model could not take the rows: {whose} raised {type(error).__name__}: "
        f"{first_line(error)}"
    )
