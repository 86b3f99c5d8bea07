"""Means, intervals and paired tests, against slow loops, other libraries and hand-made cases."""

import itertools
from fractions import Fraction

import numpy
import pytest
from scipy import stats

from unilens.benchmark.report import cells, queries, statistics
from unilens.benchmark.report.statistics import Family, analyse, holm, resampled, signed_rank

NAN = numpy.nan


def family(values, methods=None):
    values = numpy.asarray(values, float)
    count = values.shape[1]
    names = methods or tuple("abcdefgh"[:count])
    none = (0,) * count
    return Family("", 0, "model", "metric", names, values, none, none, none)


def exact_by_all_signs(differences):
    """Wilcoxon's p with every set of signs tried, ties with mean ranks; two-sided."""
    moved = [one for one in differences if one]
    sizes = sorted(abs(one) for one in moved)
    ranks = [Fraction(2 * sizes.index(abs(d)) + sizes.count(abs(d)) + 1, 2) for d in moved]
    reached = sum(rank for rank, d in zip(ranks, moved, strict=True) if d > 0)
    sums = [
        sum(rank for rank, up in zip(ranks, signs, strict=True) if up)
        for signs in itertools.product((0, 1), repeat=len(ranks))
    ]
    tail = min(sum(one <= reached for one in sums), sum(one >= reached for one in sums))
    return min(1.0, 2 * tail / len(sums))


def test_a_summary_by_hand():
    (one, gone, single), _ = analyse(family([[1, NAN, NAN], [2, NAN, 7], [6, NAN, NAN]]))
    assert (one.n, one.mean, one.median) == (3, 3.0, 2.0)
    assert one.sd == pytest.approx(7**0.5)  # (4 + 1 + 9) / 2
    assert 1 <= one.low < 3 < one.high <= 6
    assert (gone.n, gone.mean, gone.sd, gone.low) == (0, None, None, None)
    assert (single.n, single.mean, single.sd, single.low, single.high) == (1, 7.0, None, None, None)


@pytest.mark.parametrize("kept", [2**27, 0])
def test_resampled_means_and_differences_are_those_of_a_loop(monkeypatch, kept):
    monkeypatch.setattr(statistics, "_CACHED", kept)
    monkeypatch.setattr(statistics, "_BATCH", 24)  # three resamples at a time
    random = numpy.random.default_rng(0)
    values = random.normal(size=(8, 3))
    values[[1, 4], 0], values[2, 2] = NAN, NAN
    means, differences = resampled(values, seed=5, resamples=20)
    twin = numpy.random.default_rng(5)
    for first in range(0, 20, 3):
        some = min(3, 20 - first)
        for row, drawn in enumerate(twin.integers(8, size=(some, 8)), start=first):
            images = values[drawn]
            assert means[row] == pytest.approx(numpy.nanmean(images, axis=0))
            for i, j in itertools.product(range(3), repeat=2):
                shared = images[:, i] - images[:, j]
                assert differences[row, i, j] == pytest.approx(numpy.nanmean(shared), abs=1e-12)


def test_the_interval_is_scipys_percentile_interval_but_for_the_draw():
    values = numpy.random.default_rng(1).gamma(2, size=200)
    (ours,), _ = analyse(family(values[:, None]))
    theirs = stats.bootstrap(
        (values,),
        numpy.mean,
        n_resamples=9999,
        method="percentile",
        rng=numpy.random.default_rng(2),
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.02)
    assert ours.high == pytest.approx(theirs.high, abs=0.02)


def test_the_interval_holds_the_mean_as_often_as_it_says():
    random = numpy.random.default_rng(3)
    held = 0
    for seed in range(200):
        (one,), _ = analyse(family(random.normal(1, 2, size=(60, 1))), seed)
        held += one.low <= 1 <= one.high
    assert 0.90 <= held / 200 <= 0.985  # 95 %, three standard errors, a little too narrow


def test_the_seed_decides_the_draw():
    values = numpy.random.default_rng(4).normal(size=(30, 2))
    assert analyse(family(values), 1) == analyse(family(values), 1)
    assert analyse(family(values), 1)[0] != analyse(family(values), 2)[0]


@pytest.mark.parametrize(
    "differences",
    [
        [1.0],
        [1, -2],
        [1, 2, 3, 4, 5, 6],
        [0, 0, 1, -1, 2, 2, 3],
        [0.5, 0.5, 0.5, -0.5, 1, 1, -1, 2, 2, 2],
    ],
)
def test_the_exact_p_is_that_of_all_signs_ties_included(differences):
    _, p = signed_rank(numpy.array(differences, float))
    assert p == pytest.approx(exact_by_all_signs(differences))


@pytest.mark.parametrize("n", [20, 50, 51, 300])
def test_p_is_scipys(n):
    differences = numpy.random.default_rng(n).normal(0.2, 1, n)
    method = "exact" if n <= 50 else "asymptotic"
    _, p = signed_rank(differences)
    assert p == pytest.approx(stats.wilcoxon(differences, method=method).pvalue)


def test_the_effect_is_the_share_of_ranks():
    effect, _ = signed_rank(numpy.array([3.0, -1.0, 2.0]))
    assert effect == pytest.approx((3 + 2 - 1) / 6)
    assert signed_rank(numpy.array([1.0, 2.0]))[0] == 1
    assert signed_rank(numpy.array([-1.0, -2.0]))[0] == -1


def test_no_p_where_nothing_differs():
    assert signed_rank(numpy.zeros(5)) == (None, None)
    _, (pair,) = analyse(family([[1, 1], [2, 2], [3, 3]]))
    assert (pair.n, pair.difference, pair.effect, pair.p, pair.adjusted) == (3, 0, None, None, None)
    assert pair.same
    assert not pair.significant


def test_rounding_is_no_difference():
    effect, p = signed_rank(numpy.array([1.0, 2.0, 1e-16, -1e-16]))
    assert (effect, p) == (1.0, 0.5)


def test_pairs_are_over_the_images_that_both_have():
    values = [[1, 5, NAN], [2, NAN, NAN], [4, 1, NAN], [NAN, 9, 3]]
    _, pairs = analyse(family(values))
    ab, ac, bc = pairs
    assert (ab.first, ab.second, ab.n) == ("a", "b", 2)
    assert ab.difference == pytest.approx(((1 - 5) + (4 - 1)) / 2)
    assert ab.p == 1.0  # ranks 2 (down) and 1 (up) of two: nothing
    assert ab.low == pytest.approx(-4)
    assert ab.high == pytest.approx(3)
    assert (ac.n, ac.difference, ac.p, ac.low) == (0, None, None, None)
    assert (bc.n, bc.difference, bc.low) == (1, 6.0, None)


def test_a_pair_from_the_other_side():
    _, (pair,) = analyse(family([[1, 5], [4, 1], [2, 0]]))
    turned = pair.starting_with("b")
    assert (turned.first, turned.second) == ("b", "a")
    assert (turned.difference, turned.low) == (-pair.difference, -pair.high)
    assert (turned.effect, turned.p) == (-pair.effect, pair.p)
    assert pair.starting_with("a") == pair


def test_holm_by_hand():
    # ascending 0.01, 0.02, 0.03, 0.5 of four: x4, x3, x2, x1, never falling
    assert holm([0.03, 0.01, None, 0.5, 0.02]) == pytest.approx([0.06, 0.04, None, 0.5, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_all_pairs_of_a_family_are_adjusted_together():
    random = numpy.random.default_rng(0)
    base = random.normal(size=(12, 1))
    values = base + numpy.arange(4) + random.normal(0, 0.01, (12, 4))
    _, pairs = analyse(family(values))
    least = 2 / 2**12  # every difference has one sign
    assert [pair.p for pair in pairs] == pytest.approx([least] * 6)
    assert [pair.adjusted for pair in pairs] == pytest.approx([6 * least] * 6)
    assert all(pair.significant for pair in pairs)
    assert pairs[0].min_p == pytest.approx(6 * least)


def test_so_few_images_can_tell_nothing_apart():
    values = numpy.arange(5)[:, None] + [0.0, 10.0, 20.0]
    _, pairs = analyse(family(values))
    assert pairs[0].p == pytest.approx(2 / 32)
    assert not any(pair.significant for pair in pairs)
    assert pairs[0].min_p == pytest.approx(3 * 2 / 32)


@pytest.fixture
def grouped(make_run):
    def change(rows):
        for row in rows:
            if row["method"] == "gradient" and row["metric"] == "stability":
                status = {0: "undefined", 1: "inapplicable", 2: "failed"}.get(
                    int(row["image"][5:8])
                )
                if status:
                    row.update(value=None, status=status, reason=f"it is {status}")
            if row["method"] == "ig" and row["image"] == "photo003.png":
                row["value"] = float("inf")

    store = make_run(change=change)
    with queries.opened(rows=store) as connection:
        yield store, cells.Cells(connection, store.plan)


def test_families_are_the_rows(grouped):
    store, found = grouped
    rows = store.table().to_pylist()
    families = list(found.families())
    assert [one.metric for one in families] == list(store.plan.metrics)
    for one in families:
        assert one.methods == store.plan.methods
        for column, method in enumerate(one.methods):
            mine = [r for r in rows if (r["metric"], r["method"]) == (one.metric, method)]
            expected = [
                r["value"] if r["status"] == "ok" and numpy.isfinite(r["value"]) else NAN
                for r in sorted(mine, key=lambda r: r["image"])
            ]
            numpy.testing.assert_array_equal(one.values[:, column], expected)


def test_what_has_no_value_is_counted_by_why(grouped):
    _, found = grouped
    stability = list(found.families())[2]
    place = stability.methods.index("gradient")
    counts = stability.undefined, stability.inapplicable, stability.failed
    assert [one[place] for one in counts] == [1, 1, 1]
    infinite = stability.methods.index("ig")
    assert [one[infinite] for one in counts] == [1, 0, 0]
    assert {(status, reason): count for status, reason, count, *_ in found.reasons()} == {
        ("failed", "it is failed"): 1,
        ("inapplicable", "it is inapplicable"): 1,
        ("undefined", "it is undefined"): 1,
        ("ok", "no reason given"): 3,
    }


def test_cost_is_the_median_over_maps(grouped):
    store, found = grouped
    rows = store.table().to_pylist()
    for one in found.costs():
        maps = {r["image"]: r["map_seconds"] for r in rows if r["method"] == one.method}
        assert one.maps == 8
        assert one.seconds == pytest.approx(numpy.median(list(maps.values())))
        assert one.forward == 15 + store.plan.methods.index(one.method)


def test_curves_are_means_with_quartiles(grouped):
    store, found = grouped
    rows = store.table().to_pylist()
    curves = found.curves("", 0)
    assert {(one.metric, one.name) for one in curves} == {
        ("insertion_auc", "curve"),
        ("deletion_auc", "curve"),
    }
    one = next(one for one in curves if (one.metric, one.method) == ("insertion_auc", "uni"))
    mine = [
        dict(r["curves"])["curve"]
        for r in rows
        if (r["metric"], r["method"]) == ("insertion_auc", "uni")
    ]
    assert one.n == 8
    assert one.x == pytest.approx([step / 10 for step in range(11)])
    assert one.mean == pytest.approx(numpy.mean(mine, axis=0))
    assert one.low == pytest.approx(numpy.quantile(mine, 0.25, axis=0))
    assert one.high == pytest.approx(numpy.quantile(mine, 0.75, axis=0))


def test_accuracy_counts_each_image_once(grouped):
    _, found = grouped
    assert found.accuracy() == [("", 0, "torchvision:resnet18", 8, 6 / 8)]


def test_parts_are_means(grouped):
    store, found = grouped
    rows = [
        r for r in store.table().to_pylist() if (r["method"], r["metric"]) == ("uni", "stability")
    ]
    mine = {
        part: mean for _, metric, method, part, _, mean in found.parts("", 0) if method == "uni"
    }
    assert mine == pytest.approx(
        {
            part: numpy.mean([dict(r["parts"])[part] for r in rows])
            for part in ("1_steps", "15_steps")
        }
    )
