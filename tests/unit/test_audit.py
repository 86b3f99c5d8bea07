"""An audit of models whose shortcut is known, on photographs with a known mark."""

import functools
import json
import os
import re

import numpy
import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn

from unilens.benchmark.audit import Photographs, audit
from unilens.benchmark.audit.boxes import read_boxes
from unilens.benchmark.audit.findings import Estimate, findings_of
from unilens.benchmark.audit.marks import find_marks, same_photographs
from unilens.benchmark.audit.measure import Auditor, keep, read_kept
from unilens.benchmark.audit.page import Page, beside_overlay
from unilens.benchmark.audit.regions import place_of, seen_of, text_like
from unilens.benchmark.audit.report import write_report
from unilens.benchmark.audit.words import in_short, percent
from unilens.benchmark.data import open_source
from unilens.errors import UnilensError
from unilens.models import PixelClassifier, Preprocessing

SIDE, CELL, MARK = 128, 16, 14
MARKED = 8


def reader(row, column):
    """Return a model of two classes that reads how red one of 8 x 8 cells is, and nothing else."""
    linear = nn.Linear(3 * 64, 2)
    weights = torch.zeros(2, 3, 8, 8)
    weights[1, :, row, column] = torch.tensor([20.0, -10.0, -10.0])
    with torch.no_grad():
        linear.weight.copy_(weights.flatten(1))
        linear.bias.copy_(torch.tensor([0.0, -4.0]))
    network = nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), linear)
    plain = Preprocessing((SIDE, SIDE), SIDE, (0.0,) * 3, (1.0,) * 3)
    return PixelClassifier(network, plain, ("plain", "red"), name=f"reader {row} {column}")


CORNER, MIDDLE = (7, 7), (3, 4)


def clouds(number, width=SIDE, cell=5):
    """Return a photograph of grey clouds, each of about this many pixels."""
    drawn = numpy.random.default_rng(number)
    coarse = drawn.integers(90, 170, (SIDE // cell, width // cell), dtype=numpy.uint8)
    image = Image.fromarray(coarse).resize((width, SIDE), Image.Resampling.BICUBIC)
    return image.convert("RGB")


def photograph(number, marked, width=SIDE, cell=5):
    """Return clouds with a red mark in their bottom right corner, or without."""
    image = clouds(number, width, cell)
    if marked:
        pen = ImageDraw.Draw(image)
        left, top, right, bottom = width - MARK, SIDE - MARK, width - 1, SIDE - 1
        pen.rectangle((left, top, right, bottom), fill=(255, 0, 0), outline=(255, 255, 255))
        pen.line((left + 3, top + 3, right - 3, bottom - 3), fill=(255, 255, 255), width=4)
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with photographs, 8 of 20 marked, and one without marks."""
    here = tmp_path_factory.mktemp("photographs")
    for name in ("marked", "plain"):
        (here / name).mkdir()
        for number in range(20):
            image = photograph(number, name == "marked" and number < MARKED)
            image.save(here / name / f"{number:02}.png")
    return here


@pytest.fixture(scope="module")
def audited(folder, tmp_path_factory):
    """Return a function that audits one of the folders with one of the readers, once."""

    @functools.cache
    def audited(name, cell, boxes=()):
        objects = {f"{number:02}.png": list(boxes) for number in range(20)} if boxes else {}
        items = open_source(str(folder / name))
        photographs = Photographs.read(reader(*cell), items, objects, lambda *_: None)
        return audit(photographs, tmp_path_factory.mktemp("audit"))

    return audited


def titles(result):
    return [sentence.title for sentence in in_short(result, findings_of(result))]


@pytest.mark.slow
def test_audit_names_the_mark_that_a_model_relies_on(audited):
    result = audited("marked", CORNER)
    (suspect, *_) = findings_of(result).named
    assert (suspect.level, suspect.place) == ("problem", "the bottom right corner")
    assert suspect.n == MARKED
    assert suspect.share.mean > 0.95  # the model reads nothing else
    assert suspect.changed == MARKED  # without the red, it answers "plain"
    assert suspect.association.with_mark == MARKED
    assert suspect.association.without_mark == 0
    assert titles(result)[0] == "Shortcut, bottom right corner"


@pytest.mark.slow
def test_audit_acquits_a_model_that_ignores_the_mark(audited):
    result = audited("marked", MIDDLE)
    (suspect,) = findings_of(result).named
    assert (suspect.level, suspect.place, suspect.n) == ("info", "the bottom right corner", MARKED)
    assert not suspect.looks
    assert not suspect.depends
    assert suspect.cleared
    assert "does not seem to use it" in " ".join(
        sentence.text for sentence in in_short(result, findings_of(result))
    )
    assert suspect.fall.mean == pytest.approx(0, abs=1e-6)
    assert "A shared mark, bottom right corner" in titles(result)


def test_two_marks_of_the_same_photographs_are_two_marks():
    frames = torch.rand(10, 128, 128, generator=torch.Generator().manual_seed(0)) / 2
    for top, left in ((0, 0), (112, 112)):
        frames[:6, top + 2 : top + 12, left + 2 : left + 12] = 1.0
    marks = find_marks(frames, same_photographs(frames))
    assert [mark.members for mark in marks] == [tuple(range(6))] * 2
    assert not any(mark.is_layout for mark in marks)
    for mark, (low, high) in zip(sorted(marks, key=lambda mark: mark.box), ((0, 20), (108, 128)),
                                 strict=True):  # fmt: skip
        assert low <= min(mark.box) < max(mark.box) <= high


@pytest.mark.slow
def test_audit_names_no_place_without_a_mark(audited):
    result = audited("plain", MIDDLE)
    assert findings_of(result).named == []
    assert titles(result)[0] == "No shortcut found"


@pytest.mark.slow
def test_audit_names_a_corner_that_a_model_looks_at_without_a_mark(audited):
    result = audited("plain", CORNER)
    assert [suspect.place for suspect in findings_of(result).named] == ["the bottom right corner"]


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "share"), [(MIDDLE, 0.0), (CORNER, 1.0)])
def test_background_share_is_what_lies_outside_of_the_boxes(audited, cell, share):
    row, column = (CELL * place for place in MIDDLE)
    box = (column, row, column + CELL, row + CELL)
    result = audited("plain", cell, (box,))
    (background,) = [s for s in findings_of(result).suspects if s.name == "background"]
    assert background.share.mean == pytest.approx(share, abs=0.02)
    assert background.references["area"] == pytest.approx(1 - CELL**2 / SIDE**2)
    assert background.looks == (share == 1)


@pytest.mark.slow
def test_audit_continues_where_it_was_interrupted(folder, tmp_path, monkeypatch):
    items = open_source(str(folder / "marked"))[:6]
    photographs = Photographs.read(reader(*CORNER), items, {}, lambda *_: None)
    measure, calls = Auditor.measure, []

    def counted(self, view, *arguments, **settings):
        calls.append(view)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(self, view, *arguments, **settings)

    monkeypatch.setattr(Auditor, "measure", counted)
    with pytest.raises(KeyboardInterrupt):
        audit(photographs, tmp_path)
    result = audit(photographs, tmp_path)
    assert len(calls) == 3 + 4  # the two that were finished are not measured again
    again = audit(photographs, tmp_path)
    assert len(calls) == 7
    assert again.facts == result.facts


def test_photographs_that_cannot_be_read_are_left_out_and_named(folder, tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(2):
        photograph(number, False).save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "photos" / "broken.png").write_bytes(b"\x89PNG")
    items = open_source(str(tmp_path / "photos"))
    photographs = Photographs.read(reader(*CORNER), items, {}, lambda *_: None)
    result = audit(photographs, tmp_path)
    assert list(photographs.broken) == ["broken.png"]
    assert len(result.facts) == 2
    page, _ = write_report(result, tmp_path, "photos")
    assert any("broken.png" in note for note in page.notes)
    assert page.short[0].title == "Too few photographs"


@pytest.mark.slow
def test_report_is_one_sheet_and_replaces_nothing(audited, tmp_path):
    result = audited("marked", CORNER)
    _, first = write_report(result, tmp_path, "photos & more")
    kept = first.with_suffix(".html").read_bytes()
    _, second = write_report(result, tmp_path, "photos & more")
    assert (first.name, second.name) == ("audit", "audit-2")
    assert first.with_suffix(".html").read_bytes() == kept
    assert len(re.findall(rb"/Type /Page[^s]", first.with_suffix(".pdf").read_bytes())) == 1
    assert b"Shortcut, bottom right corner" in kept
    assert b"photos &amp; more" in kept
    record = json.loads(first.with_suffix(".json").read_text())
    assert record["findings"][0]["level"] == "problem"
    assert sorted(record["marks"][0]["photographs"]) == [f"{n:02}.png" for n in range(MARKED)]


@pytest.mark.slow
def test_page_shows_each_photograph_once_and_whole_frames(folder, tmp_path):
    for source in sorted((folder / "marked").iterdir())[:9]:
        (tmp_path / source.name).write_bytes(source.read_bytes())
        (tmp_path / f"{source.stem} copy.png").write_bytes(source.read_bytes())
    photographs = Photographs.read(reader(*CORNER), open_source(str(tmp_path)), {}, lambda *_: None)
    result = audit(photographs, tmp_path / "audit")
    findings = findings_of(result)
    for numbers in (findings.surest, findings.least_sure, findings.disputed):
        names = [photographs.items[result.indices[number]].name[:2] for number in numbers]
        assert len(names) == len(set(names)) == 4
    (example,) = Page.of(result, "photographs").examples
    for picture in example.pictures:
        framed = (numpy.abs(picture.colours - numpy.array([1, 0.25, 0])) < 1e-9).all(-1)
        rows, columns = framed.any(1).nonzero()[0], framed.any(0).nonzero()[0]
        box = framed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box[0].all()
        assert box[-1].all()
        assert box[:, 0].all()
        assert box[:, -1].all()


def test_a_dark_photograph_shows_where_the_model_looked():
    consensus = torch.zeros(60, 60)
    consensus[20:40, 20:40] = 1
    shown = beside_overlay(torch.zeros(3, 60, 60), consensus)[:, -60:]
    red, blue = shown[..., 0], shown[..., 2]
    assert (red - blue)[25:35, 25:35].min() > 0.3
    assert numpy.abs(red - blue)[:8].max() < 0.02


def frames(marked):
    grey = [numpy.asarray(photograph(n, n in marked).convert("L")) / 255 for n in range(20)]
    return torch.from_numpy(numpy.stack(grey)).float()


def test_find_marks_returns_members_and_place():
    views = frames(range(MARKED))
    (mark,) = find_marks(views, same_photographs(views))
    assert mark.members == tuple(range(MARKED))
    left, top, right, bottom = mark.box
    low = SIDE - MARK
    assert low - 6 <= left <= low
    assert low - 6 <= top <= low
    assert (right, bottom) == (SIDE, SIDE)


@pytest.mark.parametrize("marked", [(), range(3)], ids=["none", "three"])
def test_find_marks_needs_more_photographs_than_chance(marked):
    views = frames(marked)
    assert find_marks(views, same_photographs(views)) == []


def test_copies_of_one_photograph_share_no_mark():
    views = frames(()).repeat(6, 1, 1)[:100:20]
    views = torch.cat([views.repeat(8, 1, 1), frames(())])
    assert find_marks(views, same_photographs(views)) == []


def test_mark_outside_of_the_models_view_is_named_as_unseen(tmp_path):
    for number in range(20):
        image = photograph(number, number < MARKED, 2 * SIDE, cell=3)
        image.save(tmp_path / f"{number:02}.png")
    items = open_source(str(tmp_path))
    photographs = Photographs.read(reader(*CORNER), items, {}, lambda *_: None)
    (mark,) = photographs.marks
    assert mark.place == "the bottom right corner"
    assert sorted(items[index].name for index in mark.boxes) == [
        f"{number:02}.png" for number in range(MARKED)
    ]
    index = next(iter(mark.boxes))
    names = [region.name for region in photographs.regions(index, photographs.view(index))]
    assert mark.name not in names


def test_seen_of_follows_resize_and_crop():
    classifier = reader(*CORNER)  # the shorter side to 128, then a crop about the centre
    seen = seen_of(classifier, (4 * SIDE, 2 * SIDE), [(SIDE, 0, 2 * SIDE, 2 * SIDE)])
    expected = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    expected[:, : SIDE // 2] = True  # x from 128 to 256 of 512 is 64 to 128 of 256, 0 to 64 of 128
    assert torch.equal(seen, expected)


def test_text_like_finds_a_row_of_letters_and_no_clouds():
    clouds = torch.full((SIDE, SIDE), 0.5)
    image = Image.fromarray((clouds.numpy() * 255).astype(numpy.uint8))
    assert not text_like(torch.from_numpy(numpy.asarray(image) / 255)).any()
    ImageDraw.Draw(image).text((20, 40), "WATERMARK", fill=255, font_size=16)
    found = text_like(torch.from_numpy(numpy.asarray(image) / 255))
    rows, columns = found.nonzero().T
    assert 35 <= rows.min() <= 48
    assert 50 <= rows.max() <= 62
    assert columns.min() >= 18
    assert columns.max() > 80


@pytest.mark.parametrize(
    ("box", "place"),
    [
        ((90, 90, 100, 100), "the bottom right corner"),
        ((0, 0, 10, 10), "the top left corner"),
        ((40, 0, 60, 10), "the top edge"),
        ((0, 40, 10, 60), "the left edge"),
        ((40, 40, 60, 60), "the middle"),
    ],
)
def test_place_of_a_box(box, place):
    assert place_of(box, 100, 100) == place


def test_read_boxes_reads_several_of_a_photograph(tmp_path):
    (tmp_path / "boxes.csv").write_text(
        "image,xmin,ymin,xmax,ymax\na.png,1,2,3,4\n./a.png,5,6,7.6,8\nother.png,0,0,1,1\n"
    )
    assert read_boxes(tmp_path / "boxes.csv", {"a.png"}) == {"a.png": [(1, 2, 3, 4), (5, 6, 8, 8)]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a column file in"),
        ("file,left,top,right\na.png,1,2,3\n", "expected a column bottom in"),
        ("file,left,top,right,bottom\na.png,1,2,3,x\n", "line 2, got 1, 2, 3, x"),
        ("file,left,top,right,bottom\na.png,3,2,1,4\n", "expected left < right"),
        ("file,left,top,right,bottom\nb.png,1,2,3,4\n", "none of its rows does"),
    ],
    ids=["empty", "column", "number", "order", "names"],
)
def test_read_boxes_refuses(tmp_path, text, message):
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(UnilensError, match=message):
        read_boxes(tmp_path / "boxes.csv", {"a.png"})


def test_read_boxes_names_a_missing_file(tmp_path):
    with pytest.raises(UnilensError, match=r"could not read the boxes .* No such file"):
        read_boxes(tmp_path / "none.csv", {"a.png"})


def test_estimate_has_the_interval_of_the_mean():
    values = numpy.random.default_rng(1).normal(3, 2, 400)
    estimate = Estimate.of(values)
    half = 1.96 * values.std() / 20
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.02)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.02)
    assert numpy.isnan(Estimate.of([]).mean)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0 %"), (0.004, "under 1 %"), (0.42, "42 %"), (0.996, "over 99 %"), (1.0, "100 %")],
)
def test_percent(share, text):
    assert percent(share) == text


KEPT = {
    "predicted": 1,
    "confidence": 0.5,
    "shares": {},
    "covered": {},
    "overlap": None,
    "control_overlap": None,
    "verdicts": {},
    "trust": {},
}


@pytest.mark.parametrize("facts", [KEPT, {"a": 1}, [1], {}, "x", None])
def test_only_whole_facts_are_read_again(tmp_path, facts):
    keep(tmp_path / "kept.safetensors", facts, torch.ones(3, 4))
    again = read_kept(tmp_path / "kept.safetensors")
    assert (again and again[0]) == (KEPT if facts is KEPT else None)


@pytest.mark.parametrize("shape", [(4,), (1, 3, 4)])
def test_only_maps_are_read_again(tmp_path, shape):
    keep(tmp_path / "kept.safetensors", KEPT, torch.ones(shape))
    assert read_kept(tmp_path / "kept.safetensors") is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "kept.safetensors")
    assert read_kept(tmp_path / "kept.safetensors") is None
    os.mkfifo(tmp_path / "boxes.csv")
    with pytest.raises(UnilensError, match=r"boxes\.csv: it is no file, but a folder, a pipe"):
        read_boxes(tmp_path / "boxes.csv", {"a.png"})


def test_an_audit_without_regions_suspects_nothing(tmp_path):
    (tmp_path / "photos").mkdir()
    photograph(0, False).save(tmp_path / "photos" / "0.png")
    items = open_source(str(tmp_path / "photos"))
    photographs = Photographs.read(reader(*CORNER), items, {}, lambda *_: None)
    result = audit(photographs, tmp_path)
    result.facts[0]["shares"].clear()  # as of photographs of a few pixels
    assert not findings_of(result).suspects
