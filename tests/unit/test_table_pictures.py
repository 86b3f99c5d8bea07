"""Pictures of tables: nothing is cut, nothing overlaps, and the numbers are those of the values."""

import itertools

import numpy
import pandas
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from unilens import UnilensError, tables

LONG = "a_column_with_a_name_that_no_line_can_hold_since_it_goes_on_and_on_" * 3


def explained(count, method=None):
    random = numpy.random.default_rng(0)
    names = [f"{LONG}{number}" if number % 4 == 1 else f"x{number}" for number in range(count)]
    frame = pandas.DataFrame(random.normal(size=(30, count)), columns=names)
    frame[names[0]] = random.choice(["日本", "$x_1^2$", "red\nblue"], 30)
    frame.loc[3, names[1]] = numpy.nan
    weights = random.normal(size=count)

    def model(rows):
        return numpy.nan_to_num(rows.iloc[:, 1:].to_numpy()) @ weights[1:]

    settings = {"n_permutations": 4} if method is None else {}
    return tables.explain(model, frame.iloc[:8], method=method, references=frame[20:], **settings)


def drawn(figure):
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    return figure.axes[0], figure.canvas.get_renderer()


@pytest.mark.parametrize("count", [1, 3, 60])
@pytest.mark.parametrize(
    "draw",
    [
        tables.waterfall,
        tables.bars,
        tables.beeswarm,
        lambda result: tables.waterfall(result, 2, n_columns=60),
    ],
)
def test_names_are_neither_cut_nor_overlapping(draw, count):
    figure = draw(explained(max(count, 2)))
    ax, renderer = drawn(figure)
    boxes = [label.get_window_extent(renderer) for label in ax.get_yticklabels()]
    for box, below in itertools.pairwise(boxes):
        assert box.y0 > below.y1
    texts = [*ax.get_yticklabels(), *ax.texts, ax.xaxis.label, figure._suptitle]
    for text in texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y0 >= 0
        assert box.y1 <= figure.bbox.y1


def test_a_waterfall_leads_from_the_base_to_the_score():
    result = explained(20)
    ax, _ = drawn(tables.waterfall(result, 1, n_columns=5))
    bars = ax.patches
    assert len(bars) == 6
    assert bars[0].get_x() == pytest.approx(result.base[1])
    assert bars[-1].get_x() + bars[-1].get_width() == pytest.approx(result.score[1])
    lengths = [part.value for part in result.strongest(1, 5)]
    assert [bar.get_width() for bar in bars[:5]] == pytest.approx(lengths)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[-1] == "15 others together"
    cell = result.strongest(1, 1)[0].cell
    assert labels[0].replace("\n", "").endswith(f" = {cell}")


def test_a_beeswarm_has_a_point_for_each_row_and_column():
    result = explained(3)
    ax, _ = drawn(tables.beeswarm(result))
    points = sum(len(collection.get_offsets()) for collection in ax.collections)
    assert points == 8 * 3


@pytest.mark.parametrize("draw", [tables.waterfall, tables.bars])
def test_the_title_names_the_row(draw):
    result = explained(4)
    assert draw(result, 2).get_suptitle().startswith("Row 2: ")
    assert draw(result, 2, title="Row 17").get_suptitle().startswith("Row 17: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.5,), "row to be a number from 0 to 7, got 1.5"),
        (("0",), "row to be a number from 0 to 7, got '0'"),
        ((True,), "row to be a number from 0 to 7, got True"),
        ((None,), "row to be a number from 0 to 7, got None"),
        ((0, "a"), "to be a whole number of at least [01], got 'a'"),
        ((0, -1), "to be a whole number of at least [01], got -1"),
        ((0, 1.0), "to be a whole number of at least [01], got 1.0"),
    ],
)
def test_rows_and_counts_are_whole_numbers(arguments, message):
    result = explained(4)
    for draw in (tables.waterfall, tables.bars, tables.TableAttribution.strongest):
        with pytest.raises(UnilensError, match=message) as caught:
            draw(result, *arguments)
        assert "\n" not in str(caught.value)
    assert result.strongest(numpy.int64(1), numpy.int64(2)) == result.strongest(1)[:2]
    assert result.strongest(1, 0) == []


@pytest.mark.parametrize("draw", [tables.waterfall, tables.bars, tables.beeswarm])
def test_other_results_and_titles_are_refused(draw):
    for other in (None, explained(4).attribution):
        with pytest.raises(UnilensError, match=r"result of unilens.tables.explain, got (None|Att)"):
            draw(other)
    if draw is not tables.beeswarm:
        with pytest.raises(UnilensError, match="title to be a text, got 5"):
            draw(explained(4), title=5)


def test_values_without_a_base_have_no_waterfall():
    with pytest.raises(UnilensError, match="those of occlusion; draw them with bars"):
        tables.waterfall(explained(4, "occlusion"))
    with pytest.raises(UnilensError, match="from 0 to 7, got 8"):
        tables.bars(explained(4, "occlusion"), 8)
