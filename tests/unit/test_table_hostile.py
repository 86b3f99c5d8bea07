"""Tables as people bring them: models and frames that are not as they should be."""

import os

import numpy
import pandas
import polars
import pytest
import scipy.sparse
import torch
from sklearn.cluster import KMeans
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from unilens import UnilensError, tables
from unilens.errors import NotApplicableError
from unilens.tables.files import read_table

RANDOM = numpy.random.default_rng(0)


def test_a_model_that_changes_its_rows_gets_copies():
    def tenth(frame):
        frame["age"] = frame["age"] / 10
        return frame["age"].to_numpy()

    frame = pandas.DataFrame({"age": [10.0, 20.0, 30.0]})
    result = tables.explain(tenth, frame, references=frame)
    assert result.score.tolist() == [1.0, 2.0, 3.0]
    assert frame["age"].tolist() == [10.0, 20.0, 30.0]


def test_a_model_that_depends_on_other_rows_is_refused():
    rows = numpy.array([[1.0], [2.0], [4.0]])
    with pytest.raises(UnilensError, match="the same output alone and among others"):
        tables.explain(lambda given: given[:, 0] - given[:, 0].mean(), rows, references=rows)


@pytest.mark.parametrize("other", ["object", "float64"])
def test_none_in_a_column_of_objects_stays_none(other):
    frame = pandas.DataFrame({"a": pandas.Series([None, "u"] * 10, dtype=object)})
    frame["b"] = pandas.Series([1.0] * 20, dtype=other)

    def count_none(given):
        return given["a"].map(lambda cell: float(cell is None)).to_numpy()

    result = tables.explain(count_none, frame, references=frame)
    assert result.base.tolist() == [0.5] * 20
    assert result.score.tolist() == [1.0, 0.0] * 10


@pytest.mark.parametrize(
    "references",
    [
        pandas.DataFrame(numpy.full((2, 3), 0.5), columns=["0", "1", "2"]),
        numpy.full((2, 3), 0.5),
        torch.full((2, 3), 0.5),
    ],
    ids=["frame", "array", "tensor"],
)
@pytest.mark.parametrize("rows", [numpy.arange(6).reshape(2, 3), torch.arange(6).view(2, 3)])
def test_fractions_of_references_are_kept_beside_whole_numbers(rows, references):
    names = ["0", "1", "2"] if isinstance(references, pandas.DataFrame) else None
    result = tables.explain(lambda given: given.sum(1), rows, references=references, names=names)
    assert result.base.tolist() == [1.5, 1.5]
    assert result.score.tolist() == [3.0, 12.0]


def test_references_are_matched_by_the_names_of_the_model_or_the_call():
    frame = pandas.DataFrame(RANDOM.normal(size=(40, 3)) * [1, 10, 100], columns=list("abc"))
    model = LinearRegression().fit(frame, frame.sum(axis=1) + frame.c)
    swapped = frame[["c", "b", "a"]]
    expected = model.predict(frame).mean()
    result = tables.explain(model, frame.to_numpy(), references=swapped)
    assert result.base == pytest.approx([expected] * 40)
    result = tables.explain(
        lambda given: given @ [1.0, 1.0, 2.0],
        frame.to_numpy(),
        references=swapped,
        names=list("abc"),
    )
    assert result.base == pytest.approx([expected] * 40)


def test_no_group_has_the_name_of_another_column():
    city = numpy.arange(40) % 2
    frame = pandas.DataFrame({"city": RANDOM.normal(size=40), "city_a": city, "city_b": 1 - city})
    result = tables.explain(lambda given: given.sum(axis=1).to_numpy(), frame)
    assert result.names == ("city", "city_a", "city_b")
    with pytest.raises(UnilensError, match="expected a prefix that no column has as its name"):
        tables.explain(lambda given: given.sum(axis=1).to_numpy(), frame, groups=["city"])


def test_two_flags_of_few_rows_are_no_one_hot_columns():
    flag = numpy.array([1] * 11 + [0])
    frame = pandas.DataFrame({"has_dog": flag, "has_cat": 1 - flag})
    model = lambda given: given["has_dog"].to_numpy().astype(float)  # noqa: E731
    assert tables.explain(model, frame).names == ("has_dog", "has_cat")
    assert tables.explain(model, pandas.concat([frame] * 3)).names == ("has",)


def test_clusters_in_a_pipeline_are_refused():
    model = make_pipeline(StandardScaler(), KMeans(3, n_init=1, random_state=0))
    rows = RANDOM.normal(size=(30, 3))
    with pytest.raises(NotApplicableError, match="whose clusters are numbered without order"):
        tables.explain(model.fit(rows), rows)


def test_a_method_predict_gives_votes():
    rows = RANDOM.normal(size=(30, 3))
    model = LogisticRegression().fit(rows, numpy.where(rows[:, 0] > 0, 10, 20))
    result = tables.explain(model.predict, rows)
    assert set(result.target.tolist()) == {10, 20}
    assert set(result.score.tolist()) == {1.0}


class Odd:
    """An estimator with attributes of a kind that scikit-learn's do not have."""

    def __init__(self, returned, classes=()):
        self.returned, self.classes = returned, classes

    @property
    def classes_(self):
        if self.classes == "raises":
            raise RuntimeError("not known")
        return self.classes

    def predict(self, rows):
        return self.returned(rows)


@pytest.mark.parametrize("classes", [(), None, "raises"])
def test_classes_that_say_nothing_are_none(classes):
    rows = RANDOM.normal(size=(12, 2))
    result = tables.explain(Odd(lambda given: given[:, 0], classes), rows)
    assert result.score.tolist() == rows[:, 0].tolist()


STRANGE = {
    "nothing": (lambda rows: None, "got NoneType"),
    "a number": (lambda rows: 3.0, "got float"),
    "an empty list": (lambda rows: [], r"got \(0,"),
    "words": (lambda rows: numpy.array(["1"] * len(rows)), "predictions that are numbers"),
    "complex numbers": (lambda rows: rows[:, 0] * 1j, "predictions that are numbers"),
    "NaN at references": (lambda rows: numpy.log(rows[:, 0]), "got NaN or infinity for reference"),
}


@pytest.mark.parametrize("case", STRANGE)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_strange_predictions_are_one_line(case):
    function, message = STRANGE[case]
    rows = numpy.ones((3, 2))
    with pytest.raises(UnilensError, match=message):
        tables.explain(function, rows, references=-rows)


def test_sparse_predictions_and_tensors_with_gradients_are_read():
    rows = numpy.array([[1.0, 2.0], [3.0, 4.0]])
    for function in (
        lambda given: scipy.sparse.csr_matrix(given),
        lambda given: torch.tensor(given, requires_grad=True) * 1,
    ):
        result = tables.explain(function, rows, 1, references=rows)
        assert result.score.tolist() == [2.0, 4.0]


@pytest.mark.parametrize("names", [5, "abc", ["c", "c"]])
def test_names_are_a_list_each_once(names):
    with pytest.raises(UnilensError, match="expected names of columns as a list, each once"):
        tables.explain(lambda rows: rows.sum(1), numpy.ones((3, 2)), names=names)
    with pytest.raises(UnilensError, match="expected groups as a mapping"):
        tables.explain(lambda rows: rows.sum(1), numpy.ones((3, 2)), groups=5)


def test_frames_of_two_libraries_are_compared():
    frame = pandas.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    others = polars.DataFrame({"b": [1.0], "a": [0.0]})
    result = tables.explain(lambda given: given["a"].to_numpy(), frame, references=others)
    assert result.base.tolist() == [0.0, 0.0]
    back = tables.explain(
        lambda given: given["a"].to_numpy(), polars.from_pandas(frame), references=frame[["b", "a"]]
    )
    assert back.base.tolist() == [1.5, 1.5]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_pipe_is_not_waited_for(tmp_path, suffix):
    os.mkfifo(tmp_path / f"rows{suffix}")
    with pytest.raises(UnilensError, match="it is no file, but a folder, a pipe"):
        read_table(tmp_path / f"rows{suffix}")
