"""`unilens query`: SQL over the rows, and over nothing else."""

import contextlib
import csv
import io
import json

import duckdb
import pyarrow
import pytest

from unilens import UnilensError
from unilens.benchmark.report import queries
from unilens.benchmark.report.queries import query


@pytest.fixture
def run(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    return command


def test_a_mean_is_that_of_the_rows(make_run):
    store = make_run()
    columns, rows = query(
        store, "SELECT method, avg(value) AS mean FROM rows GROUP BY method ORDER BY method"
    )
    values = store.table(["method", "value"]).to_pylist()
    assert columns == ["method", "mean"]
    for method, mean in rows:
        mine = [row["value"] for row in values if row["method"] == method]
        assert mean == pytest.approx(sum(mine) / len(mine))
    assert len(rows) == 5


def test_the_three_ways_to_print(make_run, run):
    folder = make_run().folder
    sql = (
        "SELECT image, count(*) AS n, NULL AS nothing FROM rows WHERE image < 'photo002' "
        "GROUP BY 1 ORDER BY 1"
    )
    code, out, err = run("query", folder, sql, "--csv")
    assert (code, err) == (0, "")
    assert list(csv.reader(io.StringIO(out))) == [
        ["image", "n", "nothing"],
        ["photo000.png", "15", ""],
        ["photo001.png", "15", ""],
    ]
    code, out, err = run("query", folder, sql, "--json")
    assert json.loads(out) == [
        {"image": "photo000.png", "n": 15, "nothing": None},
        {"image": "photo001.png", "n": 15, "nothing": None},
    ]
    code, out, err = run("query", folder, sql)
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["image", "n", "nothing"],
        ["photo000.png", "15"],
        ["photo001.png", "15"],
    ]


def test_pictures_are_not_printed_and_the_table_stays_narrow(make_run, run):
    folder = make_run().folder
    code, out, _ = run(
        "query", folder, "SELECT picture, curves FROM rows WHERE picture IS NOT NULL"
    )
    assert code == 0
    assert "bytes)" in out
    assert "RIFF" not in out
    assert max(len(line) for line in out.splitlines()) <= 100
    _, out, _ = run(
        "query", folder, "SELECT picture FROM rows WHERE picture IS NOT NULL LIMIT 1", "--json"
    )
    assert json.loads(out)[0]["picture"].endswith("bytes)")


def test_what_is_not_finite_is_null_in_json(make_run, run):
    _, out, _ = run(
        "query", make_run().folder, "SELECT 'nan'::DOUBLE a, [1.5, 'inf'::DOUBLE] b", "--json"
    )
    assert json.loads(out) == [{"a": None, "b": [1.5, None]}]


def test_wrong_sql_is_one_clear_line(make_run, run):
    folder = make_run().folder
    code, out, err = run("query", folder, "SELECT valu FROM rows")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert '"valu" not found' in err
    assert "Columns of rows: image, corruption" in err
    code, out, err = run("query", folder, "SELEC 1")
    assert (code, err.count("\n")) == (2, 1)
    assert "syntax error" in err
    code, out, err = run("query", folder, "SELECT * FROM results")
    assert "The view is called rows" in err
    code, out, err = run("query", folder, " ")
    assert (code, err.count("\n")) == (2, 1)
    assert "expected a query" in err


class Silent:
    """A store, and a connection to one, of which nothing can be read for no reason that is said."""

    folder = "there"

    def dataset(self):
        raise pyarrow.ArrowInvalid("")

    def execute(self, sql):
        raise duckdb.BinderException("")

    def interrupt(self):
        pass


def test_errors_that_say_nothing_are_told_by_their_kind(monkeypatch):
    with pytest.raises(UnilensError, match="could not read the rows in there: ArrowInvalid; unil"):
        query(Silent(), "SELECT 1")
    monkeypatch.setattr(queries, "opened", lambda *_, **__: contextlib.nullcontext(Silent()))
    with pytest.raises(UnilensError, match=r"^BinderException$"):
        query(Silent(), "SELECT 1")


def test_a_run_without_rows_and_none_at_all(make_run, run, tmp_path):
    folder = make_run(rows=[]).folder
    code, out, _ = run("query", folder, "SELECT count(*) AS n FROM rows", "--csv")
    assert (code, out) == (0, "n\n0\n")
    code, out, err = run("query", tmp_path, "SELECT 1")
    assert code == 2
    assert "expected the folder of a run" in err


def test_csv_and_json_exclude_each_other(make_run, run):
    code, _, err = run("query", make_run().folder, "SELECT 1", "--csv", "--json")
    assert code == 2
    assert "--csv or --json" in err


@pytest.mark.parametrize("sql", ['SELECT "Parquet" FROM rows', "SELECT * FROM Arrow"])
def test_words_of_a_query_are_no_broken_files(make_run, run, sql):
    code, _, err = run("query", make_run().folder, sql)
    assert (code, err.count("\n")) == (2, 1)
    assert "could not read" not in err
