"""Explanations of tables, against closed forms, slow replicas, shap and the models themselves."""

import itertools
import subprocess
import sys

import numpy
import pandas
import polars
import pytest
import torch
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, Perceptron
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from torch import nn

import unilens
from unilens import UnilensError, tables
from unilens.errors import NotApplicableError

CANCER = load_breast_cancer(as_frame=True)
ROWS = CANCER.data.iloc[:6]


def people(count=60):
    random = numpy.random.default_rng(0)
    frame = pandas.DataFrame(
        {
            "city": random.choice(["Rome", "Oslo", "Bonn"], count),
            "age": random.integers(18, 80, count),
            "income": random.normal(50, 10, count),
            "grade": pandas.Categorical(random.choice(list("abc"), count)),
            "member": random.random(count) > 0.5,
            "since": pandas.date_range("2020-01-01", periods=count, tz="UTC"),
        }
    )
    frame.loc[frame.index % 7 == 0, "income"] = numpy.nan
    frame.loc[frame.index % 11 == 0, "city"] = None
    return frame


@pytest.fixture(scope="module")
def pipeline():
    frame = people()
    encoder = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["city", "grade"]),
        ("passthrough", ["age", "income", "member"]),
    )
    target = numpy.where((frame.city == "Rome") | (frame.income > 55), "yes", "no")
    model = make_pipeline(encoder, HistGradientBoostingClassifier(min_samples_leaf=3, max_iter=10))
    return model.fit(frame, target)


def slow_shapley(score, row, references):
    """Return Shapley values by all orders, from scores of lists of cells, one row at a time."""
    count = len(row)
    values = numpy.zeros(count)
    for reference in references:
        for order in itertools.permutations(range(count)):
            cells = list(reference)
            before = score(cells)
            for column in order:
                cells[column] = row[column]
                after = score(cells)
                values[column] += after - before
                before = after
    return values / len(references) / len(list(itertools.permutations(range(count))))


# --- values ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [None, "occlusion"])
def test_regression_is_explained_by_coefficients_times_differences(method):
    random = numpy.random.default_rng(0)
    rows, references = random.normal(size=(5, 4)), random.normal(size=(30, 4))
    model = LinearRegression().fit(references, references @ [1.0, -2.0, 0.0, 3.0] + 7)
    result = tables.explain(model, rows, method=method, references=references)
    numpy.testing.assert_allclose(
        result.values, (rows - references.mean(0)) * model.coef_, atol=1e-9
    )
    numpy.testing.assert_allclose(result.base, model.predict(references).mean())
    numpy.testing.assert_allclose(result.score, model.predict(rows))
    assert result.unit == "prediction"


@pytest.mark.slow
def test_words_and_missing_cells_have_the_values_of_all_orders():
    frame = people()[["city", "age", "income"]]
    encoder = make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough")
    target = (frame.city == "Rome") & (frame.income > 45) | frame.income.isna()
    model = make_pipeline(encoder, HistGradientBoostingClassifier(min_samples_leaf=2, max_iter=5))
    model.fit(frame, target)
    references = frame.iloc[20:24]
    result = tables.explain(model, frame.iloc[:2], True, references=references)

    def score(cells):
        row = pandas.DataFrame([cells], columns=frame.columns).astype(frame.dtypes)
        return model.predict_proba(row)[0, 1]

    rows, others = frame.iloc[:2].values.tolist(), references.values.tolist()
    expected = [slow_shapley(score, row, others) for row in rows]
    numpy.testing.assert_allclose(result.values, expected, atol=1e-12)
    numpy.testing.assert_allclose(result.score, model.predict_proba(frame.iloc[:2])[:, 1])
    numpy.testing.assert_allclose(result.base, model.predict_proba(references)[:, 1].mean())


@pytest.mark.slow
def test_values_agree_with_shap():
    shap = pytest.importorskip("shap")
    columns = CANCER.data.columns[:8]
    data = CANCER.data[columns]
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(data, CANCER.target)
    references = data.iloc[100:120]
    result = tables.explain(model, data.iloc[:3], 1, references=references)

    def probability(rows):
        return model.predict_proba(pandas.DataFrame(rows, columns=columns))[:, 1]

    explainer = shap.explainers.Exact(probability, shap.maskers.Independent(references.to_numpy()))
    expected = explainer(data.iloc[:3].to_numpy())
    numpy.testing.assert_allclose(result.values, expected.values, atol=1e-6)
    numpy.testing.assert_allclose(result.base, expected.base_values, atol=1e-6)


@pytest.mark.parametrize("score", ["probability", "logit", "log_probability", "margin"])
def test_values_add_up_for_every_score(pipeline, score):
    frame = people()
    result = tables.explain(pipeline, frame.iloc[:8], references=frame.iloc[20:40], score=score)
    sums = result.values.to_numpy().sum(1)
    numpy.testing.assert_allclose(sums, result.score - result.base, atol=1e-12)
    probabilities = pipeline.predict_proba(frame.iloc[:8])
    largest = probabilities.max(1)
    numpy.testing.assert_allclose(
        result.score,
        {
            "probability": largest,
            "logit": largest,
            "log_probability": numpy.log(largest),
            "margin": 2 * largest - 1,
        }[score],
        atol=1e-9,
    )


@pytest.mark.slow
def test_many_columns_are_sampled_with_standard_errors():
    random = numpy.random.default_rng(0)
    rows = random.normal(size=(200, 20))
    model = RandomForestClassifier(n_estimators=20, random_state=0)
    model.fit(rows, rows[:, 0] * rows[:, 1] > 0)
    arguments = {"references": rows[50:70], "target": True}
    result = tables.explain(model, rows[:2], **arguments)
    assert result.standard_error.shape == (2, 20)
    assert (result.standard_error > 0).any()
    finer = tables.explain(model, rows[:2], n_permutations=1600, **arguments)
    off = numpy.abs(result.values - finer.values) / numpy.maximum(result.standard_error, 1e-4)
    assert numpy.quantile(off, 0.9) < 3
    numpy.testing.assert_allclose(result.values.sum(1), result.score - result.base, atol=1e-9)


@pytest.mark.slow
def test_a_row_has_the_same_values_alone_and_among_others(pipeline):
    frame = people()
    for method in (None, "rise", "random"):
        arguments = {"references": frame.iloc[20:30], "method": method}
        together = tables.explain(pipeline, frame.iloc[:5], **arguments).values.iloc[3]
        alone = tables.explain(pipeline, frame.iloc[3:4], **arguments).values.iloc[0]
        assert together.tolist() == alone.tolist()


def informative():
    random = numpy.random.default_rng(0)
    rows = random.normal(size=(800, 12))
    rows[:, [3, 8]] += numpy.sign(rows[:, [3, 8]])
    return rows, (2 * rows[:, 3] - 2 * rows[:, 8] > 0).astype(int)


def recovered(result):
    strongest = [{part.name for part in result.strongest(row, 2)} for row in range(len(result))]
    return numpy.mean([names == {"column 3", "column 8"} for names in strongest])


@pytest.fixture(scope="module")
def two_of_twelve():
    rows, target = informative()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 2)).double()
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=0.1)
    inputs, labels = torch.tensor(rows), torch.tensor(target)
    for _ in range(200):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(inputs), labels).backward()
        optimiser.step()
    forest = HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(rows, target)
    return {"network": network.eval(), "boosting": forest}, rows[:20], rows[100:110]


@pytest.mark.parametrize(
    ("kind", "method"), [("network", None), ("network", "ig"), ("boosting", None)]
)
def test_the_strongest_two_of_twelve_columns_are_the_informative_ones(kind, method, two_of_twelve):
    models, rows, references = two_of_twelve
    result = tables.explain(models[kind], rows, method=method, references=references)
    assert recovered(result) >= 0.9
    control = tables.explain(models[kind], rows, method="random", references=references)
    assert recovered(control) < 0.3


# --- what reaches the model ------------------------------------------------------------------


class Recorder:
    """An estimator that keeps what it is asked, and counts characters."""

    def __init__(self):
        self.asked = []

    def predict(self, rows):
        self.asked.append(rows)
        if hasattr(rows, "columns"):
            return numpy.array(
                [len(str(row)) for row in zip(*map(list, columns(rows)), strict=True)]
            )
        return numpy.array([len(str(list(row))) for row in rows])


def columns(frame):
    return [frame[name].to_list() for name in frame.columns]


def same(left, right):
    missing = left is pandas.NA or left is None or left != left
    if missing:
        return right is left or (right != right and left != left)
    return type(left) is type(right) and left == right


@pytest.mark.slow
@pytest.mark.parametrize("groups", [None, {"both": ["age", "income"]}])
def test_every_cell_that_reaches_the_model_is_a_cell_of_the_frame(groups):
    frame, model = people(), Recorder()
    frame["count"] = pandas.array([*range(59), None], dtype="Int64")
    tables.explain(model, frame.iloc[:4], references=frame.iloc[50:], groups=groups)
    for asked in model.asked:
        assert isinstance(asked, pandas.DataFrame)
        assert asked.dtypes.tolist() == frame.dtypes.tolist()
        assert asked.columns.tolist() == frame.columns.tolist()
        for name in frame.columns:
            known = frame[name].tolist()
            assert all(any(same(cell, other) for other in known) for cell in asked[name].tolist())
    if groups:
        pairs = {tuple(map(str, pair)) for pair in frame[["age", "income"]].values}
        for asked in model.asked:
            assert {tuple(map(str, pair)) for pair in asked[["age", "income"]].values} <= pairs


def test_polars_frames_reach_the_model_as_polars():
    frame, model = polars.from_pandas(people()), Recorder()
    result = tables.explain(model, frame[:4], references=frame[50:])
    assert all(isinstance(asked, polars.DataFrame) for asked in model.asked)
    assert all(asked.schema == frame.schema for asked in model.asked)
    assert isinstance(result.values, polars.DataFrame)
    assert result.values.columns == frame.columns
    assert isinstance(result.to_frame(), polars.DataFrame)


KINDS = {
    "array": lambda rows: rows,
    "integers": lambda rows: rows.round().astype(int),
    "objects": lambda rows: numpy.array([[str(cell) for cell in row] for row in rows], object),
    "tensor": torch.tensor,
    "lists": lambda rows: rows.tolist(),
    "dictionaries": lambda rows: [dict(zip("abc", row, strict=True)) for row in rows.tolist()],
}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_reach_a_function_in_their_own_type(kind):
    given = KINDS[kind](numpy.random.default_rng(0).normal(size=(12, 3)) * 10)
    model = Recorder()
    result = tables.explain(model, given)
    expected = {"lists": numpy.ndarray, "dictionaries": pandas.DataFrame}.get(kind, type(given))
    assert all(type(asked) is expected for asked in model.asked)
    assert len(result) == 12
    assert result.provenance["references"] == "12 rows of this call"


def test_columns_of_an_estimator_are_found_by_name():
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(CANCER.data, CANCER.target)
    expected = tables.explain(model, ROWS, method="occlusion", references=CANCER.data.iloc[50:60])
    mixed = CANCER.data[CANCER.data.columns[::-1]]
    found = tables.explain(model, mixed.iloc[:6], method="occlusion", references=mixed.iloc[50:60])
    pandas.testing.assert_frame_equal(found.values, expected.values)
    assert found.values.columns.tolist() == CANCER.data.columns.tolist()
    bare = tables.explain(
        model, ROWS.to_numpy(), method="occlusion", references=CANCER.data.iloc[50:60]
    )
    numpy.testing.assert_array_equal(bare.values, expected.values)
    assert bare.names == tuple(CANCER.data.columns)


def test_names_choose_and_order_the_columns_of_a_frame():
    frame = pandas.DataFrame({"id": range(12), "b": range(12), "a": numpy.arange(12) ** 2})
    result = tables.explain(lambda rows: rows["a"] - rows["b"], frame, names=["a", "b"])
    assert result.names == ("a", "b")


def test_estimators_of_arrays_take_frames():
    standard = make_pipeline(StandardScaler(), LogisticRegression())
    model = standard.fit(CANCER.data.to_numpy(), CANCER.target)
    result = tables.explain(model, ROWS, method="occlusion", references=CANCER.data.iloc[50:60])
    named = make_pipeline(StandardScaler(), LogisticRegression()).fit(CANCER.data, CANCER.target)
    expected = tables.explain(named, ROWS, method="occlusion", references=CANCER.data.iloc[50:60])
    pandas.testing.assert_frame_equal(result.values, expected.values)
    assert result.values.index.tolist() == ROWS.index.tolist()


# --- outputs and targets ---------------------------------------------------------------------


def test_targets_are_labels_of_the_classes(pipeline):
    frame = people()
    found = tables.explain(pipeline, frame.iloc[:3], ["yes", "no", "yes"], references=frame[9:12])
    assert found.target.tolist() == ["yes", "no", "yes"]
    probabilities = pipeline.predict_proba(frame.iloc[:3])
    numpy.testing.assert_allclose(found.score, probabilities[[0, 1, 2], [1, 0, 1]])
    assert (
        tables.explain(pipeline, frame[:12]).target.tolist()
        == pipeline.predict(frame[:12]).tolist()
    )


def test_labels_that_are_numbers_are_no_indices():
    rows = numpy.random.default_rng(0).normal(size=(40, 2))
    model = LogisticRegression().fit(rows, numpy.where(rows[:, 0] > 0, 1, 2))
    found = tables.explain(model, rows, 1)
    numpy.testing.assert_allclose(found.score, model.predict_proba(rows)[:, 0])


def test_decision_functions_of_two_classes_have_both_signs():
    rows = numpy.random.default_rng(0).normal(size=(40, 2))
    model = SVC(kernel="linear").fit(rows, rows[:, 0] > 0)
    yes, no = (tables.explain(model, rows, label) for label in (True, False))
    numpy.testing.assert_allclose(yes.score, model.decision_function(rows))
    numpy.testing.assert_allclose(yes.values, -no.values)


def test_labels_without_scores_are_votes():
    rows = numpy.random.default_rng(0).normal(size=(40, 2))

    class Voting:
        classes_ = numpy.array(["left", "right"])

        def predict(self, rows):
            return self.classes_[(rows[:, 0] > 0).astype(int)]

    found = tables.explain(Voting(), rows, "right")
    assert set(found.score.tolist()) == {0.0, 1.0}
    assert numpy.abs(found.values[:, 1]).max() == 0


def test_modules_are_explained_as_explain_does():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(30, 8), nn.Tanh(), nn.Linear(8, 2)).double().eval()
    frame = pandas.DataFrame(
        StandardScaler().fit_transform(CANCER.data), columns=CANCER.data.columns
    )
    rows, references = frame.iloc[:6], frame.iloc[100:130]
    tensor = torch.tensor(references.to_numpy())
    found = tables.explain(network, rows, 1, "expected_gradients", references=references)
    expected = unilens.explain(
        network, torch.tensor(rows.to_numpy()), "expected_gradients", 1, references=tensor
    )
    numpy.testing.assert_allclose(found.values, expected.values, atol=1e-14)
    numpy.testing.assert_allclose(found.base, expected.baseline_score, atol=1e-14)
    ig = tables.explain(network, rows, 1, "ig", references=references)
    mean = tensor.mean(0)
    expected = unilens.explain(
        network,
        torch.tensor(rows.to_numpy()),
        "ig",
        1,
        baseline=lambda model, inputs, *_, **__: mean.expand_as(inputs),
    )
    numpy.testing.assert_allclose(ig.values, expected.values, atol=1e-14)
    assert ig.provenance["references"] == "the mean of 30 references given"


class Imputing(nn.Module):
    def forward(self, rows):
        return rows.nan_to_num(5.0) @ torch.tensor([[1.0], [2.0]], dtype=rows.dtype)


def test_modules_that_take_missing_values_are_explained_by_whole_cells():
    rows = torch.tensor([[1.0, torch.nan], [2.0, 3.0]], dtype=torch.float64)
    references = torch.zeros(1, 2, dtype=torch.float64)
    found = tables.explain(Imputing().eval(), rows, references=references, outputs="regression")
    numpy.testing.assert_allclose(found.values, [[1.0, 10.0], [2.0, 6.0]])
    with pytest.raises(UnilensError, match=r"NaN in row 0, column 'column 1'; .*shapley"):
        tables.explain(Imputing().eval(), rows, method="ig", outputs="regression")


@pytest.mark.slow
def test_the_room_is_loaded_when_it_is_asked_for():
    code = "import sys, unilens; assert 'unilens.tables' not in sys.modules; unilens.tables.explain"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- groups ----------------------------------------------------------------------------------


def coloured(count=20):
    random = numpy.random.default_rng(0)
    frame = pandas.get_dummies(pandas.DataFrame({"colour": random.choice(list("rgb"), count)}))
    frame["size"] = random.normal(size=count)
    frame["size_a"] = random.integers(0, 2, count)
    return frame


@pytest.mark.slow
@pytest.mark.parametrize(
    "groups", [None, ["colour"], {"colour": ["colour_r", "colour_g", "colour_b"]}]
)
def test_one_hot_columns_are_replaced_and_reported_as_one(groups):
    frame, asked = coloured(), []

    def model(rows):
        asked.append(rows)
        return 3.0 * rows["colour_r"] - rows["colour_g"] + rows["size"]

    found = tables.explain(model, frame, groups=groups)
    assert found.names == ("colour", "size", "size_a")
    hot = pandas.concat(asked)[["colour_b", "colour_g", "colour_r"]].sum(axis=1)
    assert set(hot) == {1}
    worth = 3.0 * frame.colour_r - frame.colour_g
    numpy.testing.assert_allclose(found.values["colour"], worth - worth.mean(), atol=1e-12)
    described = found.provenance["column_groups"]
    assert sorted(described["columns"]["colour"]) == ["colour_b", "colour_g", "colour_r"]
    assert described["source"] == ("given" if groups else "detected as one-hot columns")
    cells = {part.name: part.cell for part in found.strongest(0)}
    assert frame.loc[0, f"colour_{cells['colour']}"] == 1


@pytest.mark.slow
def test_no_groups_are_detected_where_they_are_not_wanted_or_not_sure():
    frame = coloured()
    assert len(tables.explain(Recorder(), frame, groups=False).names) == 5
    assert len(tables.explain(Recorder(), frame.iloc[:9], references=frame.iloc[:0:-30]).names) == 3
    frame.loc[3, "colour_r"] = frame.loc[3, "colour_g"] = frame.loc[3, "colour_b"] = False
    assert len(tables.explain(Recorder(), frame).names) == 5


def test_modules_of_one_hot_columns_are_explained_by_whole_cells():
    seen = []

    class Network(nn.Module):
        def forward(self, rows):
            seen.append(rows)
            return rows @ torch.tensor([[1.0], [2.0], [3.0], [4.0], [0.0]], dtype=rows.dtype)

    found = tables.explain(Network().eval(), coloured().astype(float), outputs="regression")
    assert found.provenance["default"] == "shapley with 20 rows of this call"
    assert found.names == ("colour", "size", "size_a")
    assert set(torch.cat(seen)[:, :3].sum(1).tolist()) == {1.0}
    numpy.testing.assert_allclose(found.values.sum(axis=1), found.score - found.base, atol=1e-9)
    network = tables.explain(
        Network().eval(), coloured().astype(float), outputs="regression", groups=False
    )
    assert network.provenance["method"] == "expected_gradients"


def test_gradients_of_a_group_are_summed():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double().eval()
    rows = numpy.random.default_rng(0).normal(size=(12, 3))
    whole = tables.explain(network, rows, 0, "ig", groups=False)
    found = tables.explain(network, rows, 0, "ig", names=["a", "b", "c"], groups={"ab": ["a", "b"]})
    numpy.testing.assert_allclose(found.values[:, 0], whole.values[:, :2].sum(1))
    assert found.names == ("ab", "c")


# --- the result ------------------------------------------------------------------------------


def test_the_result_says_what_it_is(pipeline):
    frame = people()
    found = tables.explain(pipeline, frame.iloc[:3], references=frame.iloc[10:30])
    long = found.to_frame()
    assert long.columns.tolist()[:5] == ["row", "column", "cell", "value", "target"]
    assert len(long) == 3 * 6
    pivoted = long.pivot(index="row", columns="column", values="value")[list(found.names)]
    numpy.testing.assert_allclose(pivoted, found.values)
    said = repr(found)
    strongest = found.strongest(0, 1)[0]
    assert f"{strongest.name} ({strongest.cell}) {strongest.value:+.3g}" in said
    assert found.verdicts[0] in said
    assert "shapley with 20 references given" in said
    assert found.verdicts[0].startswith("Usable: adds up")
    with pytest.raises(AttributeError):
        found.unit = "metres"


@pytest.mark.slow
def test_few_rows_without_references_are_compared_with_zeros_and_say_so():
    model = LinearRegression().fit(CANCER.data, CANCER.data["mean area"])
    found = tables.explain(model, ROWS)
    assert found.attribution.warnings[0] == ["no_reference"]
    assert (
        found.provenance["default"] == "shapley with a row of zeros, since there are no references"
    )
    numpy.testing.assert_allclose(found.base, model.intercept_, atol=1e-6)
    assert tables.explain(model, CANCER.data.iloc[:50]).attribution.warnings[0] == []


# --- hostile input ---------------------------------------------------------------------------


def linear():
    return LinearRegression().fit(CANCER.data, CANCER.target)


def words(rows):
    return numpy.asarray(rows["city"] == "Rome") * 1.0


def weights(rows):
    return numpy.asarray(rows, dtype=float).sum(1)


class Multi:
    def predict_proba(self, rows):
        return [numpy.full((len(rows), 2), 0.5)] * 3


HOSTILE = {
    "no rows": (lambda: tables.explain(linear(), ROWS[:0]), "at least one row"),
    "one dimension": (lambda: tables.explain(weights, numpy.ones(3)), r"shape \(rows, columns\)"),
    "a series": (lambda: tables.explain(linear(), ROWS.iloc[0]), r"\(rows, columns\), got \(30,\)"),
    "no table": (lambda: tables.explain(linear(), 3), "got int"),
    "a dictionary": (lambda: tables.explain(linear(), {"a": [1]}), "got dict"),
    "no model": (lambda: tables.explain(3, ROWS), "predict_proba.*got int"),
    "a class": (lambda: tables.explain(LinearRegression, ROWS), "the class LinearRegression"),
    "duplicate columns": (
        lambda: tables.explain(weights, pandas.DataFrame([[1, 2]], columns=["a", "a"])),
        "'a' more than once",
    ),
    "a missing column": (
        lambda: tables.explain(linear(), ROWS.drop(columns="mean area")),
        "LinearRegression has, missing 'mean area'",
    ),
    "an id": (
        lambda: tables.explain(linear(), ROWS.assign(id=1)),
        r"others as well: 'id'; leave them out, as by frame.drop\(columns=\['id'\]\)",
    ),
    "too few of an array": (
        lambda: tables.explain(linear(), ROWS.to_numpy()[:, :3]),
        "30 columns that LinearRegression was fitted with, got 3",
    ),
    "rows of lists": (
        lambda: tables.explain(weights, pandas.DataFrame({"a": [[1], [2]]})),
        "a list in column 'a'",
    ),
    "ragged rows": (lambda: tables.explain(weights, [[1, 2], [3]]), "rows of lengths 1, 2"),
    "names": (
        lambda: tables.explain(weights, numpy.ones((2, 3)), names=["a", "b"]),
        "expected 3 names, one for each column of frame, got 2",
    ),
    "unknown names": (
        lambda: tables.explain(linear(), ROWS, names=["age"]),
        "names= has, missing 'age'",
    ),
    "references of other columns": (
        lambda: tables.explain(linear(), ROWS, references=people()),
        "the frame has, missing 'mean radius', .*'city'",
    ),
    "references of another width": (
        lambda: tables.explain(weights, numpy.ones((2, 3)), references=numpy.ones((2, 2))),
        "references with 3 columns, as the frame has, got 2",
    ),
    "no references": (
        lambda: tables.explain(weights, numpy.ones((2, 3)), references=numpy.ones((0, 3))),
        "references with at least one row",
    ),
    "words without references": (
        lambda: tables.explain(words, people(3)),
        "references= or at least 10 rows, since column 'city' has no zero",
    ),
    "a target": (
        lambda: tables.explain(LogisticRegression().fit([[0], [1]], ["a", "b"]), [[1]], "c"),
        "one of the estimator's classes, got 'c'; valid: 'a', 'b'",
    ),
    "several targets": (
        lambda: tables.explain(LogisticRegression().fit([[0], [1]], [0, 1]), [[1]], [0, 1]),
        "a target for each of 1 rows, or one for all, got 2",
    ),
    "not fitted": (
        lambda: tables.explain(LogisticRegression(), ROWS),
        "a fitted estimator, got LogisticRegression that is not; call its fit",
    ),
    "not fitted pipeline": (
        lambda: tables.explain(make_pipeline(StandardScaler(), Perceptron()), ROWS),
        "a fitted estimator, got Pipeline",
    ),
    "several outputs": (
        lambda: tables.explain(Multi(), ROWS),
        r"a list of 3, one per output; .*lambda rows: model.predict_proba\(rows\)\[0\]",
    ),
    "several outputs of scikit-learn": (
        lambda: tables.explain(
            MultiOutputClassifier(LogisticRegression()).fit([[0], [1]], [[0, 1], [1, 0]]), [[1]]
        ),
        "a list of 2, one per output",
    ),
    "NaN": (
        lambda: tables.explain(lambda rows: rows[:, 0] * numpy.nan, numpy.ones((2, 3))),
        "finite predictions, got NaN or infinity for row 0, 1 of 2",
    ),
    "an error": (
        lambda: tables.explain(lambda rows: 1 / 0, numpy.ones((2, 3))),
        "could not take the rows: <lambda> raised ZeroDivisionError",
    ),
    "words predicted": (
        lambda: tables.explain(lambda rows: ["a"] * len(rows), numpy.ones((2, 3))),
        "predictions that are numbers",
    ),
    "too few predictions": (
        lambda: tables.explain(lambda rows: [1.0], numpy.ones((2, 3))),
        r"shape \(2,\) or \(2, K\)",
    ),
    "gradients": (
        lambda: tables.explain(linear(), ROWS, method="ig"),
        "ig needs gradients",
    ),
    "a mixture of cells": (lambda: tables.explain(linear(), ROWS, method="sobol"), "mixes cells"),
    "an unknown method": (lambda: tables.explain(linear(), ROWS, method="shapely"), "shapley"),
    "a baseline": (
        lambda: tables.explain(linear(), ROWS, baseline="black"),
        "expected references=, .*got baseline=",
    ),
    "an unknown setting": (lambda: tables.explain(linear(), ROWS, window=3), "window"),
    "outputs": (lambda: tables.explain(linear(), ROWS, outputs="logit"), "logits"),
    "an unknown column in a group": (
        lambda: tables.explain(linear(), ROWS, groups={"all": ["mean aria"]}),
        "unknown column 'mean aria'; did you mean mean area",
    ),
    "two groups": (
        lambda: tables.explain(linear(), ROWS, groups={"a": ["mean area"], "b": ["mean area"]}),
        "one group at most, got mean area in several",
    ),
    "an unknown prefix": (lambda: tables.explain(linear(), ROWS, groups=["colour"]), "'colour'"),
    "words for a module": (
        lambda: tables.explain(nn.Linear(2, 2).eval(), pandas.DataFrame({"a": ["x"], "b": [1]})),
        "text",
    ),
    "clusters": (
        lambda: tables.explain(__import__("sklearn.cluster").cluster.KMeans(2).fit(ROWS), ROWS),
        "whose clusters are numbered without order",
    ),
    "an unknown row": (lambda: tables.explain(linear(), ROWS).strongest(9), "from 0 to 5, got 9"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_does_not_fit_gets_one_clear_line(case):
    run, message = HOSTILE[case]
    with pytest.raises(UnilensError, match=message) as caught:
        run()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["uni_blur", "ig", "gradient", "smoothgrad", "agi"])
def test_methods_that_need_gradients_are_refused_for_estimators(method):
    with pytest.raises(NotApplicableError, match=f"{method} needs gradients"):
        tables.explain(linear(), ROWS, method=method)


@pytest.mark.slow
def test_constant_columns_have_no_value_and_missing_ones_are_cells():
    frame = pandas.DataFrame({"one": 1.0, "empty": numpy.nan, "x": numpy.arange(20.0)})
    full = frame.fillna(2.0)
    model = HistGradientBoostingClassifier(min_samples_leaf=2).fit(full, frame.x > 9)
    found = tables.explain(model, frame)
    assert numpy.abs(found.values[["one", "empty"]]).max().max() < 1e-12
    assert found.strongest(0, 3)[-1].cell in ("missing", "1")


def test_huge_integers_reach_the_model_as_they_are():
    frame = pandas.DataFrame({"id": [2**62 + row for row in range(12)], "x": range(12)})
    model = Recorder()
    tables.explain(model, frame)
    assert set(pandas.concat(model.asked)["id"]) == set(frame["id"])


def test_categories_that_references_have_not_are_joined():
    frame = people()
    rows = frame.iloc[:3].assign(grade=pandas.Categorical(["a", "d", "b"]))
    model = Recorder()
    tables.explain(model, rows, references=frame.iloc[5:9])
    categories = ["".join(sorted(asked["grade"].cat.categories)) for asked in model.asked]
    alone = categories.index("abcd")  # before, rows and references by themselves
    assert set(categories[:alone]) == {"abd", "abc"}
    assert set(categories[alone:]) == {"abcd"}


def test_rows_of_several_types_reach_the_model_with_their_values():
    rows = [["a", 1.5, None], ["b", 2.5, 3]]
    seen = []

    def model(rows):
        seen.extend(rows.tolist())
        return numpy.ones(len(rows))

    tables.explain(model, rows, references=[["c", 0.5, 1]])
    assert {type(cell) for row in seen for cell in row} == {str, float, int, type(None)}
