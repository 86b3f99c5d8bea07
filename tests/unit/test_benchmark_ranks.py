"""Ranks over tables against Demšar's example, and what the report makes of them."""

import csv
import math

import numpy
import pytest
from scipy import stats

from unilens.benchmark.report.findings import result_of
from unilens.benchmark.report.page import write_report
from unilens.benchmark.report.rank_diagram import rank_diagram
from unilens.benchmark.report.ranks import Ranking, ranking
from unilens.benchmark.report.statistics import Family, analyse
from unilens.metrics import metrics

METHODS = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")
DEMSAR = """
0.763 0.768 0.771 0.798
0.599 0.591 0.590 0.569
0.954 0.971 0.968 0.967
0.628 0.661 0.654 0.657
0.882 0.888 0.886 0.898
0.936 0.931 0.916 0.931
0.661 0.668 0.609 0.685
0.583 0.583 0.563 0.625
0.775 0.838 0.866 0.875
1.000 1.000 1.000 1.000
0.940 0.962 0.965 0.962
0.619 0.666 0.614 0.669
0.972 0.981 0.976 0.975
0.957 0.978 0.946 0.970
"""
"""Table 6 of Demšar 2006: four classifiers on 14 data sets, higher is better.

The last but one shows 0.975 twice, and ranks that are not equal: 0.976 is ours.
"""
VALUES = [[float(value) for value in line.split()] for line in DEMSAR.strip().splitlines()]


def result(model, metric, means, methods=METHODS):
    """A table in which each method has these means over two images."""
    values = numpy.array([means, means]) + numpy.array([[0.01], [-0.01]])
    none = (0,) * len(methods)
    family = Family("", 0, model, metric, tuple(methods), values, none, none, none)
    return result_of(family, metrics[metric].card, analyse(family))


@pytest.fixture(scope="module")
def example():
    return ranking([result(f"set {n}", "insertion_auc", row) for n, row in enumerate(VALUES)])


def test_mean_ranks_and_critical_difference_are_those_of_demsar(example):
    found = dict(zip(example.methods, example.means, strict=True))
    expected = {"C4.5": 3.143, "C4.5+m": 2.000, "C4.5+cf": 2.893, "C4.5+m+cf": 1.964}
    assert found == pytest.approx(expected, abs=5e-4)
    assert example.methods == ("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5")
    assert example.critical_difference == pytest.approx(1.25, abs=5e-3)
    assert example.groups == [(0, 3)]


def test_friedman_test_is_that_of_iman_and_davenport(example):
    """The statistic of Friedman from the formula, divided by its correction for ties."""
    count, k = example.ranks.shape
    chi = 12 * count / (k * (k + 1)) * (example.ranks.mean(0) ** 2).sum() - 3 * count * (k + 1)
    assert chi == pytest.approx(9.28, abs=5e-3)  # Demšar's, without ties
    ties = sum(t**3 - t for row in example.ranks for t in numpy.unique(row, return_counts=True)[1])
    chi /= 1 - ties / (count * (k**3 - k))
    ratio = (count - 1) * chi / (count * (k - 1) - chi)
    assert example.p == pytest.approx(stats.f.sf(ratio, k - 1, (k - 1) * (count - 1)), rel=1e-9)


def test_ranks_turn_with_the_direction_and_leave_out_what_has_no_rank():
    half = METHODS[:3]
    found = ranking(
        [
            result("a", "insertion_auc", [0.1, 0.2, 0.3, 0.9]),
            result("b", "insertion_auc", [0.1, 0.2, 0.3], half),
            result("a", "deletion_auc", [0.1, 0.2, 0.3, 0.9]),
            result("b", "deletion_auc", [0.1, 0.2, 0.3], half),
            result("a", "monotonicity", [0.1, 0.2, math.nan, 0.9]),
            result("b", "monotonicity", [0.1, 0.2, 0.3], half),
        ]
    )
    assert set(found.methods) == set(half)
    assert found.missing_methods == ("C4.5+m+cf",)
    assert found.missing_metrics == ("monotonicity",)
    assert found.tables == tuple(
        (model, metric) for metric in ("insertion_auc", "deletion_auc") for model in "ab"
    )
    assert found.means == [2.0, 2.0, 2.0]
    assert found.p > 0.9
    assert found.groups == []
    by_metric = found.of((), ["insertion_auc", "deletion_auc"])
    ranks = {
        name: dict(zip(found.methods, means, strict=True)) for name, means in by_metric.items()
    }
    assert ranks["insertion_auc"] == {"C4.5": 3.0, "C4.5+m": 2.0, "C4.5+cf": 1.0}
    assert ranks["deletion_auc"] == {"C4.5": 1.0, "C4.5+m": 2.0, "C4.5+cf": 3.0}


def test_one_table_or_two_methods_have_no_ranks():
    assert ranking([result("a", "insertion_auc", VALUES[0])]) is None
    few = [result(model, "insertion_auc", VALUES[0][:2], METHODS[:2]) for model in "ab"]
    assert ranking(few) is None
    assert ranking([]) is None


def test_tables_that_all_agree_leave_no_doubt():
    ranks = numpy.tile(numpy.arange(1.0, 5.0), (9, 1))
    agreed = Ranking(METHODS, tuple(("a", str(n)) for n in range(9)), ranks)
    assert agreed.p == 0
    assert agreed.groups == [(0, 1), (1, 2), (2, 3)]
    tied = Ranking(METHODS, agreed.tables, numpy.full((9, 4), 2.5))
    assert tied.p == 1


def test_diagram_puts_the_best_left_and_bars_over_groups():
    ranks = numpy.tile(numpy.arange(1.0, 5.0), (9, 1))
    agreed = Ranking(METHODS, tuple(("a", str(n)) for n in range(9)), ranks)
    chart = rank_diagram(agreed, ["C4.5+m+cf"])
    assert [mark.label for mark in chart.marks] == list(agreed.methods)
    places = [mark.x for mark in chart.marks]
    assert places == sorted(places)
    assert [mark.left for mark in chart.marks] == [True, True, False, False]
    assert [mark.ours for mark in chart.marks] == [False, False, False, True]
    heights = [height for *_, height in chart.bars]
    assert len(heights) == len({*heights}) == 3
    for number, (first, last, _) in enumerate(chart.bars):
        assert [first < place < last for place in places] == [
            number <= index <= number + 1 for index in range(4)
        ]
    scale = (chart.x.last - chart.x.first) / 3
    length = chart.difference[1] - chart.difference[0]
    assert length == pytest.approx(scale * agreed.critical_difference, abs=0.1)


def test_report_has_the_ranks(make_run):
    store = make_run()
    write_report(store, store.folder / "report")
    with (store.folder / "report" / "ranks.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    overall = {row["method"]: float(row["mean_rank"]) for row in rows if row["scope"] == "all"}
    assert set(overall) == set(store.plan.methods)
    assert sum(overall.values()) == pytest.approx(15)  # 1 + 2 + 3 + 4 + 5
    named = {(row["scope"], row["name"]) for row in rows} - {("all", "")}
    models = {("model", model) for model in store.plan.models}
    assert named == models | {("metric", metric) for metric in store.plan.metrics}
    page = (store.folder / "report" / "report.html").read_text(encoding="utf-8")
    assert 'id="ranks"' in page
    assert page.count("critical difference</text>") == 1
