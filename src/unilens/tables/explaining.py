"""`explain` for tables: gradients of modules, and whole cells of anything else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from .._engine.evaluator import Evaluator
from .._engine.output_detection import output_spec
from .._ops.precision import to_float64
from .._validation.inputs import Target, check_seed
from .._validation.models import check_outputs
from ..errors import NotApplicableError, UnilensError, require
from ..explainer import with_outputs
from ..methods import explain as explain_tensors
from ..methods import methods
from ..methods.defaults import FEWEST_ROWS
from ..outputs import LOGITS, OutputSpec
from ..scores import AnyScore
from ..scores import resolve as resolve_score
from .attribution import TableAttribution, labels
from .cells import MASKED, CellModel, CodedRows, row_codes
from .frame import Table, TensorTable
from .groups import Group, Groups
from .groups import resolve as resolve_groups
from .predictors import Predictor, fitted_table, predictor
from .reading import positions, read
from .references import evenly, matching, references_of
from .units import described, in_units, unit_of

BY_CELLS = ("shapley", "occlusion", "rise", "random")
"""Methods that replace whole cells, and need no gradient."""


def explain(
    model: Any,
    frame: Any,
    target: Target = None,
    method: str | None = None,
    *,
    names: Sequence[str] | None = None,
    references: Any = None,
    groups: Groups = None,
    outputs: str | None = None,
    score: AnyScore | None = None,
    seed: int = 0,
    on_pass: Callable[[int], object] | None = None,
    **settings: Any,
) -> TableAttribution:
    """Explain a model's output for each row of a table by what each column contributes.

    Modules of PyTorch are explained by gradients, or by whole cells. All other models are explained
    by whole cells: masked ones are replaced by those of the references, in the types of the
    columns, and the scores are averaged over the references. So words, categories, dates and
    missing values are handled as the model handles them.

    Args:
        model: a module from `(n, F)` to outputs `(n, K)`, in eval mode, or an `Evaluator` of one;
            an estimator of scikit-learn or like one, whose `predict_proba`, `decision_function`
            or `predict` is explained, the first there is; or a function from data of the frame's
            type to `(n,)` or `(n, K)`.
        frame: the rows to explain: a frame of pandas or polars, an array, a tensor, a list of rows
            or of dictionaries. An estimator's columns are found by their names, in any order.
        target: a class, one for all or one per row: a label of the estimator's `classes_`, else the
            index of an output. None for the class that the model predicts.
        method: a name in `unilens.methods()`; None for "shapley", or for modules whose columns are
            neither missing nor one-hot for "expected_gradients"; `provenance["default"]` says
            which. Models other than modules have "shapley", "occlusion", "rise" and "random".
        names: of the columns, in the order in which the model takes them: of an array all of them,
            of a frame those that the model takes.
        references: typical rows to compare with, with the same columns, such as a sample of the
            training data. None for rows of this call, at most 30, evenly chosen; of fewer than 10
            rows a row of zeros, with the warning `no_reference`.
        groups: columns to take as one: `{"colour": ["colour_red", "colour_blue"]}`, or a list of
            prefixes, `["colour"]`. None to detect one-hot columns (a common prefix before `_` or
            `=`, one 1 in each of 10 or more rows); False for none.
        outputs: what the outputs are, as in `unilens.explain`; for an estimator known.
        score: what is explained, a name in `unilens.scores` or a function; None for the probability
            where there is one, else the output itself.
        seed: of everything random.
        on_pass: of the `Evaluator` of whole cells, called with the number of rows before each pass;
            a module's own `Evaluator` has one for gradients.
        **settings: of the method.

    Returns:
        Values with named columns, with the attribution behind them.

    Raises:
        NotApplicableError: the method needs gradients, which the model does not have.
        UnilensError: the frame, target, references, groups or model do not fit; in one line.

    Example:
        >>> import numpy
        >>> result = explain(lambda rows: rows @ [2.0, -1.0], numpy.array([[1.0, 3.0]]),
        ...                  references=numpy.zeros((1, 2)))
        >>> result.values.tolist(), result.base.tolist()
        ([[2.0, -3.0]], [0.0])
    """
    seed = check_seed(seed)
    torch_model = isinstance(model, (nn.Module, Evaluator))
    _check_names(names)
    table = read(frame, names=names)
    if names is not None:
        table = table.select(positions(table.names, list(names), "a frame", "names="))
    rows = table if torch_model else fitted_table(model, table, names)
    given = None
    if references is not None:
        own = hasattr(table.data, "columns")  # a frame; else names are given, or the model's
        named = own or names is not None or hasattr(rows.data, "columns")
        given = matching(references, table if own or torch_model else rows, named)
    if not torch_model:
        table = _shown(table, rows.names)
        given = None if given is None else fitted_table(model, given, rows.names)
    found = resolve_groups(groups, [rows] if given is None else [rows, given])
    call = _Call(rows, table, given, found, target, method, score, seed, on_pass, settings)
    if torch_model:
        result = call.of_module(Evaluator.of(with_outputs(model, outputs)))
    else:
        result = call.of_cells(predictor(model, rows, outputs), rows, given)
    return _with_groups(result, "given" if groups else "detected as one-hot columns")


def _check_names(names: object) -> None:
    """Raise unless names of columns are a list of texts, each once."""
    if names is None:
        return
    several = isinstance(names, (list, tuple)) or hasattr(names, "tolist")
    listed = [str(name) for name in cast(Sequence[str], names)] if several else []
    require(
        bool(listed) and len(set(listed)) == len(listed),
        f"expected names of columns as a list, each once, got {names!r}",
    )


def _shown(table: Table, names: tuple[str, ...]) -> Table:
    """Return the user's table with its columns as the model names and orders them."""
    if hasattr(table.data, "columns"):
        return table.select(positions(table.names, names, "a frame", "the model"))
    return dataclasses.replace(table, names=names)


def _with_groups(result: TableAttribution, source: str) -> TableAttribution:
    """Return a result whose provenance names the groups of several columns."""
    several = {
        group.name: [result.rows.names[column] for column in group.columns]
        for group in result.groups
        if len(group.columns) > 1
    }
    if not several:
        return result
    described = {"source": source, "columns": several}
    attribution = result.attribution.with_provenance(column_groups=described)
    return dataclasses.replace(result, attribution=attribution)


@dataclasses.dataclass(frozen=True)
class _Call:
    """The arguments of one call, read and checked."""

    rows: Table
    shown: Table
    references: Table | None
    groups: tuple[Group, ...]
    target: Target
    method: str | None
    score: AnyScore | None
    seed: int
    on_pass: Callable[[int], object] | None
    settings: Mapping[str, Any]

    def of_module(self, evaluator: Evaluator) -> TableAttribution:
        """Explain a module of PyTorch, by gradients unless cells are missing or one-hot."""
        numbers = _numbers(self.rows, evaluator)
        references = None if self.references is None else _numbers(self.references, evaluator)
        missing = self._missing(numbers, references)
        whole = missing or any(group.one_hot for group in self.groups)  # no gradient path has them
        if self.method in BY_CELLS or (whole and self.method is None):
            table = TensorTable(numbers, self.rows.names)
            others = None if references is None else TensorTable(references, self.rows.names)
            return self.of_cells(_of_module(evaluator, numbers), table, others)
        if missing:
            raise UnilensError(
                f"expected no missing values for {self.method}, which takes differences between "
                f"cells, got NaN in {missing}; fill them, or use method='shapley', which replaces "
                "whole cells"
            )
        return self._by_gradients(evaluator, numbers, references)

    def _missing(self, numbers: Tensor, references: Tensor | None) -> str:
        """Return which rows and columns have NaN, for a message; empty where none has."""
        nan = numbers.isnan()
        if references is not None and references.isnan().any() and not nan.any():
            return "the references"
        columns = [self.rows.names[i] for i in nan.any(0).nonzero().flatten().tolist()]
        rows = nan.any(1).nonzero().flatten().tolist()
        some = f"row {', '.join(map(str, rows[:5]))}{', ...' if len(rows) > 5 else ''}"
        more = ", ..." if len(columns) > 5 else ""
        return f"{some}, column {', '.join(map(repr, columns[:5]))}{more}" if rows else ""

    def _by_gradients(
        self, evaluator: Evaluator, rows: Tensor, references: Tensor | None
    ) -> TableAttribution:
        settings = dict(self.settings) | ({} if self.score is None else {"score": self.score})
        chosen = "no references" if references is None else f"{len(references)} references given"
        if references is None and len(rows) >= FEWEST_ROWS:
            index = evenly(len(rows))
            references, chosen = rows[index], f"{len(index)} rows of this call"
        known = {} if self.method is None else methods[self.method].settings_with(settings)
        if references is not None and "baseline" not in settings:
            if self.method is None or "references" in known:
                settings["references"] = references
            elif known.get("baseline") == "black":
                mean = references.mean(0)
                settings["baseline"] = lambda model, inputs, *_, **__: mean.expand_as(inputs)
                chosen = f"the mean of {chosen}"
        attribution = explain_tensors(
            evaluator, rows, self.method, self.target, seed=self.seed, **settings
        )
        if "default" in attribution.provenance and "references" in settings:
            reason = f"{attribution.provenance['method']} with {chosen}"
            attribution = attribution.with_provenance(default=reason)
        values = attribution.values
        sums = torch.stack([values[:, list(group.columns)].sum(1) for group in self.groups], 1)
        base = attribution.baseline_score
        base = torch.full_like(attribution.score, torch.nan) if base is None else base
        spec = OutputSpec.of(attribution.provenance)
        return TableAttribution(
            dataclasses.replace(
                attribution.with_provenance(references=chosen),
                values=sums,
                baseline=attribution.baseline if sums.shape == values.shape else None,
            ),
            self.rows,
            self.groups,
            attribution.target.cpu().numpy(),
            to_float64(base).cpu().numpy(),
            unit_of(self.score, spec),
        )

    def of_cells(self, model: Predictor, rows: Table, given: Table | None) -> TableAttribution:
        """Explain any model by replacing whole cells by those of the references."""
        method = self.method or "shapley"
        self._check_method(method)
        outputs = model.at(rows)
        model.check_alone(rows, outputs)
        target = model.targets(self.target, outputs)
        distinct, index = torch.unique(target, return_inverse=True)
        score = resolve_score(self.score or "probability", _spec_holder(model.spec))
        references, chosen, known = references_of(rows, given)
        model.at(references, "reference")
        pool = rows.join(references)
        coded = CodedRows(model, pool, len(rows), self.groups, score, distinct, outputs.dtype)
        codes = row_codes(rows)
        evaluator = Evaluator(
            CellModel(coded, codes).eval(),
            independent=False,
            outputs="decision_function",
            on_pass=self.on_pass,
        )
        fixed: dict[str, Any] = {"score": "logit"}
        if "baseline" in methods[method].settings:
            fixed |= {"baseline": "constant", "value": MASKED}
        attribution = explain_tensors(
            evaluator,
            codes[:, None].repeat(1, len(self.groups)),
            method,
            index,
            seed=self.seed,
            **fixed,
            **self.settings,
        )
        base = coded.base()[index]
        attribution = in_units(attribution, model.spec, target, outputs, base, known)
        attribution = attribution.with_provenance(
            references=chosen,
            **described(attribution, self.score or "probability", model.spec),
            **({} if self.method else {"default": f"shapley with {chosen}"}),
        )
        errors = attribution.record.get("standard_error")
        sampled = errors is not None and bool((errors > 0).any())
        return TableAttribution(
            attribution,
            self.shown,
            self.groups,
            labels([model.label(number) for number in target.tolist()]),
            base.numpy(),
            unit_of(self.score, model.spec),
            errors.cpu().numpy() if errors is not None and sampled else None,
        )

    def _check_method(self, method: str) -> None:
        methods[method]  # an unknown name is refused with the nearest ones
        if method not in BY_CELLS:
            raise NotApplicableError(
                f"{method} needs gradients or mixes cells, which this model or these rows do not "
                f"allow; use method={', '.join(map(repr, BY_CELLS[:-1]))}, or pass a "
                "torch.nn.Module"
            )
        for name in ("baseline", "value"):
            require(
                name not in self.settings,
                f"expected references=, the rows whose cells replace masked ones, got {name}=; "
                "pass one row to compare with it alone",
            )


def _numbers(table: Table, evaluator: Evaluator) -> Tensor:
    """Return a table as a tensor on the model's device and in its dtype."""
    numbers = table.numbers()
    dtype = evaluator.dtype or (numbers.dtype if numbers.is_floating_point() else torch.float32)
    return numbers.to(evaluator.device or numbers.device, dtype)


def _of_module(evaluator: Evaluator, numbers: Tensor) -> Predictor:
    """Return a module as a function of tensors without gradient."""

    def call(rows: Tensor) -> Tensor:
        with torch.no_grad():
            returned = evaluator.model(rows)
        returned = check_outputs(returned, len(rows))
        return returned.to(torch.promote_types(returned.dtype, torch.float32))

    outputs = call(numbers)
    spec = output_spec(evaluator, numbers, outputs) if outputs.isfinite().all() else LOGITS
    return Predictor(call, spec, module=evaluator.model)


def _spec_holder(spec: OutputSpec) -> Evaluator:
    """Return what `unilens.scores.resolve` reads the kind of the outputs from."""
    return Evaluator(nn.Identity().eval(), outputs=spec.kind)
