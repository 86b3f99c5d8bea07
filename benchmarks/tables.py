"""Which method explains a row of a table best: the numbers of docs/tables.md.

    python benchmarks/tables.py ["two of twelve" ...]

Each model is trained on 70 % of the rows of a table; 40 of the others are explained, with 30 rows
of the training data as references. Columns are removed, or put in, in the order of the values; a
removed column has the cells of 50 other rows of the training data, over which scores are averaged.
`insertion - deletion` is the difference of the areas below both curves as a share of |f(x) - base|,
averaged over the rows whose |f(x) - base| is above 0.05 of the score's range: 0 by chance.
`truth` is how often the two strongest columns are the two that the table was made from.
"""

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy
import pandas
import torch
from sklearn import datasets
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from unilens import tables

ROWS, REFERENCES, IMPUTER_ROWS = 40, 30, 50


class Data(NamedTuple):
    """A table, what is predicted, and the columns that alone decide it, where they are known."""

    frame: pandas.DataFrame
    target: numpy.ndarray
    truth: tuple[str, ...] = ()

    @property
    def regression(self) -> bool:
        """Whether a number is predicted, and no class."""
        return self.target.dtype.kind == "f"


def informative() -> Data:
    """Two columns of twelve, correlated with none of the others, and their product."""
    random = numpy.random.default_rng(0)
    names = [f"x{number}" for number in range(12)]
    frame = pandas.DataFrame(random.normal(size=(1500, 12)), columns=names)
    signal = 2 * frame.x3 - 2 * frame.x8 + frame.x3 * frame.x8
    target = (signal + 0.2 * random.normal(size=1500) > 0).astype(int).to_numpy()
    return Data(frame, target, ("x3", "x8"))


def one_hot() -> Data:
    """A colour of four in one-hot columns, a number, and six columns of noise."""
    random = numpy.random.default_rng(1)
    colour = random.choice(["red", "green", "blue", "grey"], 1500)
    frame = pandas.get_dummies(pandas.DataFrame({"colour": colour}), dtype=float)
    for name in ["size", *(f"noise{number}" for number in range(6))]:
        frame[name] = random.normal(size=1500)
    warm = numpy.select([colour == "red", colour == "green"], [2.0, 1.0], -1.0)
    target = (warm + 1.5 * frame["size"] > 0.3).astype(int).to_numpy()
    return Data(frame, target, ("colour", "size"))


def loaded(load: Callable[..., Any]) -> Data:
    """A data set of scikit-learn; a target that is a number in standard deviations."""
    bunch = load(as_frame=True)
    target = bunch.target.to_numpy()
    target = (target - target.mean()) / target.std() if target.dtype.kind == "f" else target
    return Data(bunch.data, target)


TABLES = {
    "breast cancer": lambda: loaded(datasets.load_breast_cancer),
    "wine": lambda: loaded(datasets.load_wine),
    "diabetes": lambda: loaded(datasets.load_diabetes),
    "two of twelve": informative,
    "one-hot": one_hot,
}


class Network(nn.Module):
    """An MLP behind the standardisation of its columns."""

    def __init__(self, rows: torch.Tensor, outputs: int) -> None:
        super().__init__()
        self.register_buffer("mean", rows.mean(0))
        self.register_buffer("std", rows.std(0) + 1e-6)
        layers = [nn.Linear(rows.shape[1], 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(32, outputs))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the logits, or the prediction."""
        return self.layers((rows - self.mean) / self.std)


def mlp(frame: pandas.DataFrame, target: numpy.ndarray, regression: bool) -> nn.Module:
    """Train a network on all rows at once."""
    torch.manual_seed(0)
    rows = torch.tensor(frame.to_numpy()).float()
    labels = torch.tensor(target).float() if regression else torch.tensor(target).long()
    model = Network(rows, 1 if regression else int(target.max()) + 1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.005, weight_decay=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        outputs = model(rows)
        if regression:
            loss = (outputs[:, 0] - labels).square().mean()
        else:
            loss = nn.functional.cross_entropy(outputs, labels)
        loss.backward()
        optimiser.step()
    return model.eval()


def models(frame: pandas.DataFrame, target: numpy.ndarray, regression: bool) -> dict[str, Any]:
    """Train the four models."""
    linear = LinearRegression() if regression else LogisticRegression(max_iter=1000)
    boosting = HistGradientBoostingRegressor if regression else HistGradientBoostingClassifier
    forest = RandomForestRegressor if regression else RandomForestClassifier
    return {
        "mlp": mlp(frame, target, regression),
        "linear": make_pipeline(StandardScaler(), linear).fit(frame, target),
        "boosting": boosting(random_state=0).fit(frame, target),
        "forest": forest(random_state=0, n_estimators=50).fit(frame, target),
    }


def score(model: Any, frame: pandas.DataFrame, target: int, regression: bool) -> numpy.ndarray:
    """Return the probability of a class, or the prediction."""
    if isinstance(model, nn.Module):
        with torch.no_grad():
            outputs = model(torch.tensor(frame.to_numpy()).float())
        return (outputs[:, 0] if regression else outputs.softmax(1)[:, target]).double().numpy()
    if regression:
        return model.predict(frame)
    return model.predict_proba(frame)[:, target]


def curves(
    model: Any, result: tables.TableAttribution, imputer: pandas.DataFrame, row: int, data: Data
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return the mean scores of a row with the k first groups removed, and put in."""
    order = numpy.argsort(-result.attribution.values[row].numpy(), kind="stable")
    original = result.rows.data.iloc[row].to_numpy()
    points = numpy.tile(imputer.to_numpy(), (2, len(order) + 1, 1, 1))
    for count in range(len(order) + 1):
        first = [column for number in order[:count] for column in result.groups[number].columns]
        kept = [column for column in range(len(original)) if column not in first]
        points[0, count][:, kept] = original[kept]
        points[1, count][:, first] = original[first]
    target = 0 if data.regression else int(result.target[row])
    frame = pandas.DataFrame(points.reshape(-1, len(original)), columns=imputer.columns)
    scores = score(model, frame, target, data.regression)
    means = scores.reshape(2, len(order) + 1, len(imputer)).mean(2)
    return means[0], means[1]


def judge(
    model: Any, result: tables.TableAttribution, imputer: pandas.DataFrame, data: Data
) -> tuple[float, float]:
    """Return insertion - deletion, and the share of rows whose strongest columns are the truth."""
    gains, found = [], []
    changes = []
    for row in range(len(result)):
        deletion, insertion = curves(model, result, imputer, row, data)
        change = abs(deletion[0] - deletion[-1])
        gains.append((numpy.trapezoid(insertion) - numpy.trapezoid(deletion)) / (len(deletion) - 1))
        changes.append(change)
        strongest = {part.name for part in result.strongest(row, 2)}
        found.append(strongest == set(data.truth))
    gains, changes = numpy.array(gains), numpy.array(changes)
    kept = changes > 0.05 * (data.target.std() * 3 if data.regression else 1)
    gain = (gains[kept] / changes[kept]).mean() if kept.any() else numpy.nan
    return float(gain), float(numpy.mean(found)) if data.truth else numpy.nan


def methods(
    model: Any, references: pandas.DataFrame, groups: Any, regression: bool
) -> dict[str, dict[str, Any]]:
    """Return the settings of the methods that are compared."""
    middle = references.mean().to_frame().T
    median = references.median().to_frame().T
    all_rows = {"references": references}
    candidates = {
        "shapley": {"method": "shapley", **all_rows},
        "shapley, mean row": {"method": "shapley", "references": middle},
        "shapley, median row": {"method": "shapley", "references": median},
        "occlusion": {"method": "occlusion", **all_rows},
        "occlusion, mean row": {"method": "occlusion", "references": middle},
        "random": {"method": "random", **all_rows},
    }
    if isinstance(model, nn.Module):
        gradients = {"method": "expected_gradients", "n_steps": 1000}
        candidates["expected_gradients"] = gradients | all_rows
        candidates["ig, mean row"] = {"method": "ig", **all_rows}
    shared: dict[str, Any] = {"groups": groups}
    if isinstance(model, nn.Module) and regression:
        shared["outputs"] = "regression"
    return {name: {**settings, **shared} for name, settings in candidates.items()}


def main() -> None:
    """Print the table."""
    print("| table | model | method | insertion - deletion | truth | seconds a row |")
    print("|---|---|---|---|---|---|")
    for table in sys.argv[1:] or TABLES:
        data = TABLES[table]()
        order = numpy.random.default_rng(0).permutation(len(data.frame))
        train, test = numpy.split(order, [int(0.7 * len(order))])
        fitted = models(data.frame.iloc[train], data.target[train], data.regression)
        references = data.frame.iloc[train[:REFERENCES]]
        imputer = data.frame.iloc[train[REFERENCES : REFERENCES + IMPUTER_ROWS]]
        rows = data.frame.iloc[test[:ROWS]]
        groups = ["colour"] if table == "one-hot" else False
        for kind, model in fitted.items():
            for name, settings in methods(model, references, groups, data.regression).items():
                began = time.perf_counter()
                result = tables.explain(model, rows, **settings)
                seconds = (time.perf_counter() - began) / len(rows)
                gain, truth = judge(model, result, imputer, data)
                cells = (table, kind, name, f"{gain:.3f}", f"{truth:.2f}", f"{seconds:.4f}")
                print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
