"""The statistics of benchmarks/calibration.py, against scipy and by hand."""

import sys
from pathlib import Path

import numpy
import pytest
import scipy.stats

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import calibration


def rows(values, truths, network="a", method="m"):
    return [
        {"network": network, "method": method, "item": str(k), "found": value, "truth": truth}
        for k, (value, truth) in enumerate(zip(values, truths, strict=True))
    ]


def test_correlation_of_one_group_is_spearmans():
    generator = numpy.random.default_rng(0)
    first = generator.normal(size=40).round(1)
    second = (first + generator.normal(size=40)).round(1)
    found, low, high = calibration.correlation(rows(first, second), "found", 1, "truth")
    assert found == pytest.approx(scipy.stats.spearmanr(first, second).statistic)
    assert low < found < high
    assert calibration.correlation(rows(first, second), "found", -1, "truth")[0] == -found


def test_correlation_is_within_groups():
    """Two methods with the same order inside, and levels that would turn it round."""
    mixed = rows([1, 2, 3], [1, 2, 3], method="m") + rows([11, 12, 13], [-3, -2, -1], method="n")
    assert calibration.correlation(mixed, "found", 1, "truth")[0] == pytest.approx(1)


def test_halves_alternate_by_item():
    made = rows([1, 2, 3, 4], [0, 0, 0, 0])
    first, second = calibration.halves(made + made)
    assert {row["item"] for row in first} == {"0", "2"}
    assert {row["item"] for row in second} == {"1", "3"}
    assert len(first) == len(second) == 4


def test_drops_are_from_the_best_method_of_the_same_input():
    made = [
        {"network": "a", "item": "x", "method": "m", "mu_fidelity": 0.3, "insertion": 0.5},
        {"network": "a", "item": "x", "method": "n", "mu_fidelity": 0.1, "insertion": 0.7},
        {"network": "b", "item": "x", "method": "n", "mu_fidelity": 0.0, "insertion": 0.0},
    ]
    drops = [row["drop"] for row in calibration.with_drops(made)]
    assert drops == pytest.approx([0.1, 0.1, 0.0])


def test_rates_are_those_of_each_half():
    made = [
        {"item": str(k), "method": "m", "warnings": ["few_steps"] if k in (0, 2, 3) else []}
        for k in range(4)
    ]
    assert list(calibration.rates(made))[-1] == "| m | 4 | 100% / 50% |"


def test_the_tables_models_have_their_truth():
    model, held_out, truth = calibration.table_model("raw units")
    predicted = model(held_out).argmax(1)
    assert ((truth.sum(1) > 0) == (predicted == 1)).float().mean() > 0.75
    assert truth[:, [1, 2, 4, 5, 6, 8, 9, 10, 11]].abs().sum() == 0
    assert held_out.std(0).max() > 50


def test_sentences_have_one_word_of_each_kind():
    made = list(calibration.sentences())
    assert len({text for text, _, _ in made}) == 50
    for text, good, bad in made:
        assert (
            sum(
                word in text.split()
                or f"{word}," in text
                or f"{word}." in text
                or f"{word};" in text
                for word in calibration.GOOD
            )
            == 1
        )
        assert good in text
        assert bad in text
