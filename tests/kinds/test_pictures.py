"""Pictures of series, volumes, clips and rows: what is drawn is what the map holds."""

from dataclasses import replace

import numpy
import pytest
import torch
from matplotlib.colors import to_rgb
from torch import nn

import unilens
from unilens import Attribution, UnilensError, explain, tables
from unilens.output.colours import STYLES, coloured, heatmap
from unilens.output.figures import AGAINST, FOR, scale_of
from unilens.output.viz import comparison, panel
from unilens.text.attribution import TextAttribution

SHAPES = {
    "row": (30,),
    "series": (3, 20),
    "image": (3, 9, 8),
    "volume": (1, 7, 9, 8),
    "clip": (3, 12, 9, 8),
}
DRAW = [panel, comparison]


def attribution(values, baseline=True, **provenance):
    """Return a map made by hand."""
    ones = torch.ones(1)
    values = torch.as_tensor(values)[None]
    made = Attribution(values, ones.long(), ones, torch.tensor([[0.2, 0.8]]))
    if baseline:
        made = Attribution(
            values, ones.long(), ones, made.outputs, torch.zeros_like(values), 0 * ones
        )
    return made.with_provenance(**provenance)


def random_map(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pictures(figure):
    """Return the arrays drawn as images."""
    figure.canvas.draw()
    return [numpy.asarray(ax.images[0].get_array()) for ax in figure.axes if ax.images]


def texts(figure):
    from matplotlib.text import Text

    figure.canvas.draw()
    return " | ".join(text.get_text() for text in figure.findobj(Text))


@pytest.mark.slow
@pytest.mark.parametrize("draw", DRAW)
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", SHAPES)
def test_every_kind_is_drawn_in_every_style(kind, style, draw, tmp_path):
    maps = {
        name: attribution(random_map(SHAPES[kind]), baseline)
        for name, baseline in (("a", style == "signed"), ("b", True))
    }
    figure = draw(torch.rand(SHAPES[kind]), maps, style=style, title="why?")
    figure.savefig(tmp_path / "x.png", dpi=40)
    assert figure.get_suptitle() == "why?"
    assert "a | b" in " | ".join(t for t in texts(figure).split(" | ") if t in ("a", "b"))


ODD = {
    "zeros": lambda shape: torch.zeros(shape),
    "NaN": lambda shape: torch.full(shape, torch.nan),
    "infinite": lambda shape: torch.full(shape, torch.inf),
    "huge": lambda shape: torch.full(shape, 1e300, dtype=torch.float64),
    "tiny": lambda shape: torch.full(shape, 1e-310, dtype=torch.float64),
    "half precision": lambda shape: torch.ones(shape, dtype=torch.bfloat16),
}


@pytest.mark.slow
@pytest.mark.parametrize("values", ODD)
@pytest.mark.parametrize("kind", SHAPES)
def test_odd_values_are_drawn_without_a_warning(kind, values, tmp_path):
    image, maps = ODD[values](SHAPES[kind]), {"$a_": attribution(ODD[values](SHAPES[kind]))}
    panel(image, maps, title="$why$ 猫?").savefig(tmp_path / "x.png", dpi=30)
    comparison(image, maps)


@pytest.mark.parametrize("draw", DRAW)
@pytest.mark.parametrize(
    "shape",
    [(1,), (1, 1), (1, 300), (300, 2), (1, 1, 1), (1, 1, 1, 1), (1, 300, 2, 1), (3, 1, 4, 4)],
)
def test_sides_of_any_length_are_drawn(shape, draw, tmp_path):
    made = attribution(random_map(shape))
    draw(torch.rand(shape), {"a": made}, channels="first").savefig(tmp_path / "x.png", dpi=30)


@pytest.mark.parametrize("channels", ["first", "last"])
def test_series_are_lines_over_their_map(channels):
    series, values = 10 * random_map((4, 12)), random_map((4, 12), 1)
    given = [each if channels == "first" else each.T for each in (series, values)]
    figure = panel(given[0], {"ig": attribution(given[1], channels=channels)})
    axes = [ax for ax in figure.axes if ax.images]
    assert [ax.get_ylabel() for ax in axes] == [f"channel {c}" for c in range(4)]
    for channel, ax in enumerate(axes):
        baseline, signal = (line.get_ydata() for line in ax.lines)
        assert numpy.array_equal(signal, series[channel].numpy())
        assert not baseline.any()
        expected = coloured(values[channel, None].numpy(), scale_of(values, "signed"))
        assert numpy.allclose(ax.images[0].get_array(), expected)


def test_series_show_the_channels_with_the_largest_attribution():
    values = torch.zeros(20, 12)
    values[[2, 3, 5, 7, 11, 13, 17, 19], 4] = torch.arange(1.0, 9.0)
    figure = panel(torch.rand(20, 12), {"ig": attribution(values, channels="first")})
    labels = [ax.get_ylabel() for ax in figure.axes if ax.images]
    assert labels == [f"channel {c}" for c in (2, 3, 5, 7, 11, 13, 17, 19)]
    assert "8 of 20 channels, those with the largest attribution" in texts(figure)


def test_series_say_where_the_channels_are_assumed():
    values = random_map((5, 12))
    said = "pass channels= to say which"
    assert said in texts(panel(torch.rand(5, 12), {"gradient": attribution(values)}))
    assert said not in texts(
        panel(torch.rand(5, 12), {"gradient": attribution(values)}, channels="first")
    )


@pytest.mark.parametrize("channels", ["first", "last"])
def test_volumes_are_slices_through_the_strongest_voxel(channels):
    volume, values = torch.rand(1, 7, 6, 5), random_map((1, 7, 6, 5)) / 10
    values[0, 4, 1, 3] = -9.0
    given = [each if channels == "first" else each.movedim(0, -1) for each in (volume, values)]
    figure = panel(given[0], {"ig": attribution(given[1], channels=channels)})
    drawn, scale = pictures(figure), scale_of(values, "signed")
    for row, (axis, at) in enumerate(((0, 4), (1, 1), (2, 3))):
        image, baseline, heat, _ = drawn[4 * row : 4 * row + 4]
        assert numpy.allclose(image[..., 0], volume[0].select(axis, at), atol=1e-6)
        assert not baseline.any()
        expected = heatmap(values.select(axis + 1, at), scale=scale)
        assert numpy.allclose(heat, expected)
    shown = texts(figure)
    for said in ("axis 0 at 4", "axis 1 at 1", "axis 2 at 3", "↓ axis 0  → axis 1"):
        assert said in shown


@pytest.mark.slow
def test_volumes_of_an_empty_map_are_shown_by_their_middle():
    volume = torch.rand(1, 7, 6, 5)
    drawn = pictures(panel(volume, {"ig": attribution(torch.zeros(1, 7, 6, 5))}))
    assert numpy.allclose(drawn[0][..., 0], volume[0, 3], atol=1e-6)


def test_volumes_of_other_units_are_shown_between_their_quantiles():
    volume = torch.linspace(-1000, 3000, 7 * 6 * 5).view(1, 7, 6, 5)
    drawn = pictures(panel(volume, {"ig": attribution(torch.zeros(1, 7, 6, 5))}))
    assert drawn[0].min() > 0
    assert drawn[0].max() < 1
    assert drawn[0].max() - drawn[0].min() == pytest.approx(29 / (209 * 0.99), rel=1e-4)


def test_spacing_is_the_shape_of_voxels():
    made = attribution(random_map((1, 7, 6, 5)))
    figure = panel(torch.rand(1, 7, 6, 5), {"ig": made}, spacing=(4.0, 2.0, 1.0))
    shapes = [ax.get_aspect() for ax in figure.axes if ax.images]
    assert shapes[::4] == [2.0, 4.0, 2.0]


@pytest.mark.parametrize("draw", DRAW)
def test_clips_are_the_strongest_and_evenly_spaced_frames(draw):
    values = torch.zeros(3, 40, 4, 4)
    for frame, strength in ((5, 3.0), (6, -2.0), (30, 1.0)):
        values[:, frame] = strength
    figure = draw(torch.rand(3, 40, 4, 4), {"ig": attribution(values)})
    shown = texts(figure)
    for frame, share in ((0, 0), (5, 50), (6, 33), (30, 17), (39, 0)):
        assert f"frame {frame}\n{share}% of the map" in shown
    assert shown.count("frame ") == 6


@pytest.mark.parametrize(
    ("shape", "channels", "kind", "expected"),
    [
        ((3, 5, 4, 4), "first", "auto", "frame"),
        ((5, 3, 4, 4), 2, "auto", "frame"),
        ((1, 5, 4, 4), "first", "auto", "axis"),
        ((1, 5, 4, 4), "first", "clip", "frame"),
        ((3, 5, 4, 4), "first", "volume", "axis"),
    ],
)
def test_clips_are_known_from_volumes(shape, channels, kind, expected):
    made = attribution(random_map(shape))
    shown = texts(panel(torch.rand(shape), {"a": made}, channels=channels, kind=kind))
    assert f"{expected} " in shown
    assert {"frame": "axis ", "axis": "frame "}[expected] not in shown


def bars_of(figure):
    ax = figure.axes[0]
    labels = [label.get_text() for label in ax.get_yticklabels()]
    return [
        (label, bar.get_width(), bar.get_facecolor())
        for label, bar in zip(labels, ax.containers[0], strict=True)
    ]


@pytest.mark.parametrize("draw", DRAW)
def test_rows_are_bars_of_their_strongest_columns(draw):
    row, values = torch.arange(15.0), torch.arange(15.0) * torch.tensor([1, -1] * 7 + [1])
    figure = draw(row, {"ig": attribution(values)}, names=[f"$x_{i}" for i in range(15)])
    found = bars_of(figure)
    assert [label for label, *_ in found][:2] == ["$x_14 = 14", "$x_13 = 13"]
    assert found[12][:2] == ("3 other columns together", 1.0)
    for label, width, colour in found[:12]:
        assert width == float(values[int(label.partition(" ")[0][3:])])
        assert colour[:3] == pytest.approx(to_rgb(FOR if width > 0 else AGAINST))
    assert found[12][2][3] < 1


def test_names_that_the_font_lacks_are_drawn():
    made = attribution(torch.tensor([1.0, 2.0]))
    figure = panel(torch.ones(2), {"猫 $": made}, names=["\n猫" * 50, 3])
    assert bars_of(figure)[0][0] == "3 = 1"
    figure.canvas.draw()


def two_inputs():
    class Two(nn.Module):
        def forward(self, a, b):
            return torch.stack([a.sum(1), b.sum(1)], 1)

    return explain(Two().eval(), (torch.rand(1, 2), torch.rand(1, 2)), "ig", 0)


GOOD = attribution(random_map((3, 9, 8)))
TABLE = tables.explain(lambda rows: rows.sum(1), numpy.eye(2), references=numpy.zeros((1, 2)))


class Words:
    """What is drawn of a text's attribution."""

    label, attribution = "against", GOOD

    def pieces(self, by="word"):
        words = [("never", -2.0), (" ", None), ("bad", 1.0), (" ", None), ("€日\n", 0.0)]
        return words * 20


def test_words_of_a_text_are_drawn_in_their_colours():
    words = Words()
    text = "".join(piece for piece, _ in words.pieces())
    figure = panel(text, {"ig": words, "$x$": words}, title="two")
    figure.canvas.draw()
    axes = figure.axes
    assert [ax.get_title() for ax in axes] == ["ig: against", "$x$: against"]
    written = {label.get_text(): label for label in axes[0].texts}
    never, bad = (written[word].get_bbox_patch().get_facecolor() for word in ("never", "bad"))
    assert never[2] > never[0]  # purple
    assert bad[0] > bad[2]  # orange
    width = axes[0].get_xlim()[1]
    ends = [label.get_position()[0] + len(label.get_text()) for label in axes[0].texts]
    assert max(ends) <= width
    assert "".join(label.get_text() for label in axes[0].texts).count("bad") == 20


REFUSED = {
    "no maps": (torch.rand(3, 9, 8), {}, {}, "expected maps by name"),
    "no mapping": (torch.rand(3, 9, 8), GOOD, {}, "maps by name, .* got Attribution"),
    "a batch": (torch.rand(1, 3, 9, 8), {"a": GOOD}, {}, r"shape \(3, 9, 8\), got \(1, 3, 9, 8\)"),
    "an array": (numpy.zeros((3, 9, 8)), {"a": GOOD}, {}, "as a tensor .* got ndarray"),
    "index": (torch.rand(3, 9, 8), {"a": GOOD}, {"index": 1}, "an input among 1, got 1"),
    "style": (torch.rand(3, 9, 8), {"a": GOOD}, {"style": "red"}, "style to be one of signed"),
    "kind": (torch.rand(3, 9, 8), {"a": GOOD}, {"kind": "film"}, "kind to be one of auto"),
    "axis": (torch.rand(3, 9, 8), {"a": GOOD}, {"channels": 4}, "axis up to 3"),
    "names": (torch.rand(3, 9, 8), {"a": GOOD}, {"names": "abc"}, "got 1 for the kind 'image'"),
    "spacing": (torch.rand(3, 9, 8), {"a": GOOD}, {"spacing": (1, 1, 1)}, "a volume's voxels"),
    "no names": (torch.rand(3), {"a": attribution(torch.rand(3))}, {"names": 5}, "names .* got 5"),
    "title": (torch.rand(3, 9, 8), {"a": GOOD}, {"title": 5}, "title to be a text, got 5"),
    "title of a text": ("one", {"a": Words()}, {"title": 5}, "title to be a text, got 5"),
    "tensor": (torch.rand(3, 9, 8), {"a": GOOD.values}, {}, "an Attribution .* got Tensor"),
    "a table": (numpy.zeros(2), {"a": TABLE}, {}, r"got TableAttribution; .*tables.waterfall"),
    "a table alone": (numpy.zeros(2), TABLE, {}, r"got TableAttribution; .*tables.waterfall"),
    "several inputs": (torch.rand(2), {"a": two_inputs()}, {}, "inputs one by one"),
    "text": (torch.rand(2), {"a": TextAttribution(None, "x", GOOD)}, {}, "pass the text itself"),
    "another text": ("one", {"a": Words()}, {}, "the text that was explained, .*got 'one'"),
    "a text and a map": ("one", {"a": GOOD}, {}, "explain_text returns for 'a', got Attribution"),
    "a text and no map": ("one", {}, {}, "expected maps by name"),
    "too many axes": (
        torch.rand(1, 2, 2, 2, 2), {"a": attribution(torch.rand(1, 2, 2, 2, 2))}, {},
        r"to show, got \(1, 2, 2, 2, 2\)",
    ),
    "no axes": (torch.tensor(1.0), {"a": attribution(torch.tensor(1.0))}, {}, "to show, got"),
    "empty": (torch.rand(0), {"a": attribution(torch.rand(0))}, {}, "expected values to show"),
    "too few names": (
        torch.rand(3), {"a": attribution(torch.rand(3))}, {"names": ["a"]}, "3 columns .* got 1"
    ),
}  # fmt: skip


BRAIN = attribution(torch.rand(1, 7, 6, 5))


@pytest.mark.slow
@pytest.mark.parametrize("draw", DRAW)
@pytest.mark.parametrize(
    "spacing",
    [
        (1, 1, numpy.nan),
        (1, 1, torch.inf),
        (1, 0, 1),
        (1e200, 1e-200, 1),
        (1, 1),
        "abc",
        1.0,
        (1, "a", 1),
    ],
)
def test_spacing_is_three_finite_lengths(spacing, draw):
    with pytest.raises(UnilensError, match=r"expected spacing to be (three|a finite)") as caught:
        draw(torch.rand(1, 7, 6, 5), {"a": BRAIN}, spacing=spacing)
    assert "\n" not in str(caught.value)
    for lengths in (numpy.ones(3), torch.ones(3), [1, 2, 3]):
        draw(torch.rand(1, 7, 6, 5), {"a": BRAIN}, spacing=lengths)


@pytest.mark.parametrize("draw", DRAW)
@pytest.mark.parametrize("kind", SHAPES)
def test_values_too_large_to_draw_are_refused(kind, draw):
    small = torch.rand(SHAPES[kind], dtype=torch.float64)
    large = (small - 0.5).sign() * 1e308
    far = replace(attribution(small), baseline=large[None])
    for image, made, what in (
        (large, attribution(small), "input"),
        (small, attribution(large), "map of 'a'"),
        (small, far, "baseline of 'a'"),
    ):
        with pytest.raises(UnilensError, match=rf"up to 1e\+300 in the {what}, got 1e\+308"):
            draw(image, {"a": made})


@pytest.mark.parametrize("draw", DRAW)
def test_names_of_maps_may_be_anything(draw):
    assert "3" in texts(draw(torch.rand(3, 9, 8), {3: GOOD})).split(" | ")


def test_large_gaps_are_short():
    model = nn.Sequential(nn.Flatten(), nn.Linear(60, 1)).double().eval()
    series = torch.rand(1, 3, 20, dtype=torch.float64)
    made = explain(model, series, "ig", 0)
    large = replace(made, values=made.values * 1e280)
    gaps = [text for text in texts(panel(series[0], {"ig": large})).split(" | ") if "gap" in text]
    assert max(map(len, gaps)) < 20


@pytest.mark.parametrize("draw", DRAW)
@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_drawn_is_refused_in_a_line(kind, draw):
    image, maps, more, message = REFUSED[kind]
    with pytest.raises(UnilensError, match=message) as caught:
        draw(image, maps, **more)
    assert "\n" not in str(caught.value)


def test_a_notebook_shows_the_strongest_slice_of_a_volume():
    values = torch.zeros(1, 7, 6, 5)
    values[0, 4] = 1.0
    html = attribution(values, channels="first")._repr_html_()
    assert "heatmap, axis 0 at 4" in html
    assert html.count("<img") == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["row", "series", "volume"])
def test_real_attributions_are_drawn(kind, tmp_path):
    shape = SHAPES[kind]
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(3)).eval()
    model(torch.rand(1, *shape))
    maps = {name: explain(model, torch.rand(2, *shape), name, 0) for name in ("ig", "uni")}
    unilens.viz.panel(torch.rand(shape), maps, index=1).savefig(tmp_path / "x.png", dpi=40)
