"""`unilens explain-table` as a user meets it."""

import re

import joblib
import numpy
import pandas
import pytest
import torch
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from unilens import UnilensError, tables
from unilens.tables.files import read_table

HERE = __name__


def people(count=30):
    random = numpy.random.default_rng(0)
    frame = pandas.DataFrame(
        {"city": random.choice(["Rome", "Oslo"], count), "age": random.integers(18, 80, count)}
    )
    return frame.assign(bought=numpy.where((frame.city == "Rome") ^ (frame.age > 60), "yes", "no"))


def estimator():
    frame = people()
    encoder = make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough")
    model = make_pipeline(encoder, LogisticRegression(max_iter=1000))
    return model.fit(frame[["city", "age"]], frame.bought)


def broken():
    raise KeyError("weights")


FITTED = estimator()


class Doubled(torch.nn.Module):
    def forward(self, rows):
        return torch.stack([rows[:, 0] * 0, 2 * rows[:, 0]], 1)


def network():
    return Doubled().eval()


@pytest.fixture
def run(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    people().to_csv("data.csv", index=False)
    return lambda *arguments: command("explain-table", *arguments)


MODEL = f"py:{HERE}:estimator"


def test_rows_are_printed_and_written(run, tmp_path):
    code, out, err = run(
        MODEL, "data.csv", "--label-column", "bought", "--target", "yes", "--rows", "0,3-4",
        "--out", "values.csv", "--picture", "swarm.png",
    )  # fmt: skip
    assert (code, err) == (0, "")
    frame = people()[["city", "age"]]
    expected = tables.explain(FITTED, frame.iloc[[0, 3, 4]], "yes", references=frame)
    assert f"row 3: yes, probability {expected.score[1]:.3f} (base {expected.base[1]:.3f})" in out
    strongest = expected.strongest(0, 1)[0]
    assert strongest.name in out
    assert f"{strongest.value:+.3g}" in out
    assert "Usable: adds up" in out
    assert "shapley, compared with 30 rows of data.csv" in out
    written = pandas.read_csv("values.csv")
    assert written.row.tolist() == [0, 0, 3, 3, 4, 4]
    numpy.testing.assert_allclose(written.value, expected.to_frame().value)
    assert (tmp_path / "swarm.png").read_bytes().startswith(b"\x89PNG")


def test_the_label_left_in_a_table_is_named_with_the_option(run):
    code, out, err = run(MODEL, "data.csv")
    assert (code, out) == (2, "")
    assert "got others as well: 'bought'; leave them out" in err
    assert "on the command line with --label-column" in err


def test_estimators_in_files_are_loaded_where_they_are_trusted(run):
    joblib.dump(FITTED, "model.joblib")
    arguments = ("model.joblib", "data.csv", "--label-column", "bought", "--rows", "1")
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "pass --trust-pickle if you trust its source" in err
    code, out, err = run(*arguments, "--trust-pickle", "--picture", "row.svg")
    assert (code, err) == (0, "")
    assert "1 of 30 rows" in out


def test_modules_and_exported_programs_are_explained(run):
    people()[["age"]].to_csv("ages.csv", index=False)
    arguments = ("ages.csv", "--rows", "0", "--target", "1", "--score", "logit", "--outputs")
    code, out, err = run(f"py:{HERE}:network", *arguments, "logits")
    assert (code, err) == (0, "")
    first, base = 2 * people().age[0], 2 * people().age.mean()
    assert f"row 0: 1, logit {first:.3f}" in out
    rows = torch.export.Dim("rows", min=1, max=4096)
    program = torch.export.export(network(), (torch.ones(4, 1),), dynamic_shapes=({0: rows},))
    torch.export.save(program, "model.pt2")
    code, out, err = run("model.pt2", *arguments, "logits", "--method", "occlusion")
    assert (code, err) == (0, "")
    assert f"{first - base:+.3g}" in out


def test_nothing_is_overwritten_unless_asked(run):
    arguments = (MODEL, "data.csv", "--label-column", "bought", "--rows", "0", "--out", "a.csv")
    assert run(*arguments)[0] == 0
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "a.csv exists already" in err
    assert run(*arguments, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("option", "name"), [("--out", "data.csv"), ("--out", "others.csv"), ("--picture", "data.svg")]
)
def test_tables_that_are_read_are_not_overwritten(option, name, run, tmp_path):
    people()[["city", "age"]].to_csv("others.csv", index=False)
    (tmp_path / "data.svg").symlink_to("data.csv")
    before = (tmp_path / name).read_bytes()
    code, out, err = run(
        MODEL, "data.csv", "--label-column", "bought", "--references", "others.csv",
        "--rows", "0", option, str(tmp_path / name), "--overwrite",
    )  # fmt: skip
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "expected another file to write than the tables that are read" in err
    assert (tmp_path / name).read_bytes() == before


def two_outputs():
    frame = people()[["age"]]
    return LinearRegression().fit(frame, numpy.stack([frame.age, -3 * frame.age], 1))


def function():
    return lambda rows: rows[["age", "age"]].to_numpy() * [1, -3]


@pytest.mark.parametrize("model", ["two_outputs", "function"])
def test_outputs_without_labels_are_explained_by_index(model, run):
    people()[["age"]].to_csv("ages.csv", index=False)
    code, out, err = run(f"py:{HERE}:{model}", "ages.csv", "--rows", "0", "--target", "1")
    assert (code, err) == (0, "")
    assert f" {-3 * people().age[0]:.3f} (base " in out


def test_the_picture_of_a_row_names_its_number(run, tmp_path):
    code, _, err = run(
        MODEL, "data.csv", "--label-column", "bought", "--rows", "7", "--picture", "row.svg"
    )
    assert (code, err) == (0, "")
    text = (tmp_path / "row.svg").read_text()
    assert "<!-- Row 7: " in text


FILES = {
    "semicolons": b"city;age\nRome;30\nOslo;40\n",
    "a mark": b"\xef\xbb\xbfcity,age\nRome,30\nOslo,40\n",
    "tabs and blank lines": b"city\tage\nRome\t30\n\nOslo\t40\n",
    "other order": b"age,city\r\n30,Rome\r\n40,Oslo\r\n",
}


@pytest.mark.parametrize("case", FILES)
def test_files_are_read_as_they_are_written(case, run, tmp_path):
    (tmp_path / "given.csv").write_bytes(FILES[case])
    people()[["city", "age"]].to_csv("others.csv", index=False)
    code, out, err = run(MODEL, "given.csv", "--references", "others.csv", "--target", "no")
    assert (code, err) == (0, "")
    frame = people()[["city", "age"]]
    given = pandas.DataFrame({"city": ["Rome", "Oslo"], "age": [30, 40]})
    expected = tables.explain(FITTED, given, "no", references=frame)
    assert f"row 1: no, probability {expected.score[1]:.3f}" in out


def test_quoted_names_may_hold_other_separators(tmp_path):
    (tmp_path / "x.csv").write_text('"a;b;c","d\te\tf"\n1,2\n')
    assert read_table(tmp_path / "x.csv").columns.tolist() == ["a;b;c", "d\te\tf"]
    (tmp_path / "x.csv").write_text('"a,b";"c,""d"",e"\n1;2\n')
    assert read_table(tmp_path / "x.csv").columns.tolist() == ["a,b", 'c,"d",e']


@pytest.mark.parametrize("blank", ["\n", "\n\n", "  \n", "\r\n"])
def test_a_blank_line_never_shifts_the_rows_of_one_column(blank, tmp_path):
    (tmp_path / "x.csv").write_bytes(f"a\n1\n{blank}2\n".encode())
    with pytest.raises(UnilensError, match="got the blank line 3"):
        read_table(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_bytes(f'a\n1\n""\n2\n{blank}'.encode())
    numpy.testing.assert_equal(read_table(tmp_path / "x.csv").a.tolist(), [1, numpy.nan, 2])


BROKEN = {
    "a short row": (b"city,age\nRome,30\nOslo\n", "2 cells in line 3 of given.csv"),
    "a long row": (b"city,age\nRome,30,1\n", "2 cells in line 2 of given.csv.*got 3"),
    "latin": ("city,age\nM\u00fcnchen,30\n".encode("latin1"), "in UTF-8, got another encoding"),
    "no header": (b"1,30\n2,40\n", "first line of given.csv, got numbers: 1,30"),
    "twice": (b"age,age\n1,2\n", "'age' more than once"),
    "empty": (b"", "to begin with the names of columns"),
    "names alone": (b"city,age\n", "at least one row"),
    "an id": (b"id,city,age\n1,Rome,30\n", "others as well: 'id'; leave them out"),
    "a missing column": (b"city\nRome\n", "missing 'age'"),
    "words without references": (b"city,age\nRome,30\n", "references= or at least 10 rows"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_get_one_clear_line(case, run, tmp_path):
    content, message = BROKEN[case]
    (tmp_path / "given.csv").write_bytes(content)
    code, out, err = run(MODEL, "given.csv")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert re.search(message, err), err


REFUSED = {
    "no file": ((MODEL, "nothing.csv"), "could not read nothing.csv"),
    "another kind": ((MODEL, "data.xlsx"), "in .csv or .parquet, got data.xlsx"),
    "no model": (("py:nowhere:model", "data.csv"), "'nowhere:model' cannot be imported"),
    "a function that fails": (
        (f"py:{HERE}:broken", "data.csv"),
        "a function without arguments that returns one; it raised KeyError: 'weights'",
    ),
    "a kind of model": (("model.onnx", "data.csv"), ".pt2, .joblib, .pkl, .pickle, got"),
    "no model file": (("model.pkl", "data.csv", "--trust-pickle"), "no such file"),
    "a label": ((MODEL, "data.csv", "--label-column", "buys"), "unknown column 'buys'"),
    "the label kept": ((MODEL, "data.csv"), "'bought'; leave them out"),
    "rows": ((MODEL, "data.csv", "--rows", "1-"), "such as 0,5-9, got '1-'"),
    "rows too many": ((MODEL, "data.csv", "--rows", "30"), "from 0 to 29"),
    "out": ((MODEL, "data.csv", "--out", "a.txt"), "--out to end in .csv"),
    "no folder": ((MODEL, "data.csv", "--out", "no/a.csv"), "there is no no"),
    "a picture": ((MODEL, "data.csv", "--picture", "a.bmp"), "--picture to end in .png"),
    "a target": (
        (MODEL, "data.csv", "--label-column", "bought", "--target", "maybe"),
        "valid: 'no', 'yes'",
    ),
    "gradients": (
        (MODEL, "data.csv", "--label-column", "bought", "--method", "ig"),
        "ig needs gradients",
    ),
    "a group": (
        (MODEL, "data.csv", "--label-column", "bought", "--groups", "colour"),
        "begin with 'colour'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_gets_one_clear_line(case, run, tmp_path):
    arguments, message = REFUSED[case]
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv"]
