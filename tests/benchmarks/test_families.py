"""The tables of methods on networks of several families, from small reports."""

import csv

import pytest

import families

RANKS = [
    ("all", "", "uni", 1.25),
    ("all", "", "ig:n_steps=8", 1.75),
    ("model", "net", "uni", 1.25),
    ("model", "net", "ig:n_steps=8", 1.75),
    ("metric", "deletion_auc", "uni", 2.0),
    ("metric", "deletion_auc", "ig:n_steps=8", 1.0),
]


def write(path, columns, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "report"
    folder.mkdir()
    write(
        folder / "ranks.csv",
        ("scope", "name", "method", "mean_rank", "tables"),
        [(*row, 4) for row in RANKS],
    )
    methods = ("uni", "ig:n_steps=8", "random")
    directions = {"insertion_auc": "true", "deletion_auc": "false", "sparseness": ""}
    write(
        folder / "summary.csv",
        ("corruption", "metric", "higher_is_better", "method"),
        [("", metric, up, method) for metric, up in directions.items() for method in methods],
    )
    columns = (
        *("corruption", "metric", "first", "second"),
        *("mean_difference", "rank_biserial", "significant"),
    )
    rows = [
        ("", "insertion_auc", "uni", "ig:n_steps=8", "0.1", "0.9", "true"),  # uni is better
        ("", "deletion_auc", "ig:n_steps=8", "uni", "-0.1", "-0.9", "true"),  # ig is better
        ("", "insertion_auc", "uni", "random", "0.3", "1.0", "true"),
        ("", "deletion_auc", "uni", "random", "-0.1", "-0.2", "false"),
        ("", "sparseness", "uni", "random", "0.5", "1.0", "true"),  # neither end is good
        ("blur", "insertion_auc", "random", "uni", "0.5", "1.0", "true"),  # other images
    ]
    write(folder / "tests.csv", columns, rows)
    return tmp_path


def test_tables_of_ranks_and_duels(run, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["families.py", str(run), "--against", "uni"])
    families.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "| method | all | net | deletion_auc |",
        "|---|---:|---:|---:|",
        "| `uni` | **1.2** | **1.2** | 2.0 |",
        "| `ig:n_steps=8` | 1.8 | 1.8 | **1.0** |",
        "",
        "| won : lost, of tables | `uni` |",
        "|---|---:|",
        "| `uni` | – |",
        "| `ig:n_steps=8` | 1 : 1, 2 |",
        "| `random` | 1 : 0, 2 |",
    ]


def test_missing_report_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["families.py", str(tmp_path)])
    with pytest.raises(SystemExit):
        families.main()
    assert f"run unilens report {tmp_path}" in capsys.readouterr().err
