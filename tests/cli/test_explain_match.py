"""`unilens explain-match` as a user meets it."""

import json
import re

import pytest
from PIL import Image

from unilens.text import explain_match, load_image_text_model

from ..match_models import clip_processor, photograph, tiny_clip

TEXT = "a dog, a cat"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    tiny_clip().float().save_pretrained(folder)
    clip_processor().save_pretrained(folder)
    return folder


@pytest.fixture
def run(command, monkeypatch, tmp_path, folder):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photograph().numpy()).save(tmp_path / "photo.png")

    def run(*arguments, model=f"hf:{folder}"):
        return command("explain-match", *arguments, "--model", model)

    return run


def plain(settings):
    return json.loads(json.dumps(settings))


def test_a_match_is_printed_and_written(run, tmp_path, folder):
    chosen = ("--method", "ig:n_steps=4", "--text-method", "ig:baseline=pad")
    code, out, err = run("photo.png", TEXT, "--against", "a cot", *chosen, "--set", "n_steps=3")
    assert (code, err) == (0, "")
    expected = explain_match(
        load_image_text_model(f"hf:{folder}"), "photo.png", TEXT, "ig", against="a cot", n_steps=4,
        text_method="ig", text_settings={"baseline": "pad"},
    )  # fmt: skip
    assert f"score {expected.score:+.3f}" in out
    assert TEXT in out
    assert "  text, by ig: " in out
    assert "  other text, by ig: " in out
    assert re.search(r"strongest: .*“,” [+-]", out)
    record = json.loads((tmp_path / "unilens-out" / "photo.json").read_text())
    assert record["score"] == pytest.approx(expected.score, abs=1e-6)
    assert record["image"]["settings"] == plain(expected.image.provenance["settings"])
    first, second = record["texts"]
    assert first["settings"]["baseline"]["token"] == "pad"
    assert first["words"] == list(expected.text.tokens.words)
    assert first["word_values"] == pytest.approx(expected.text.word_values.tolist(), abs=1e-6)
    assert second["text"] == "a cot"
    html = (tmp_path / "unilens-out" / "photo.html").read_text()
    assert html.count("data:image/png") == 2
    assert "match “a dog, a cat”?" in html


@pytest.mark.slow
def test_json_alone_on_stdout_and_nothing_is_overwritten(run):
    code, out, err = run("photo.png", TEXT, "--method", "gradcam", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["texts"][0]["method"] == "ig"
    code, out, err = run("photo.png", TEXT, "--method", "gradcam")
    assert (code, err) == (0, "")
    assert "written: unilens-out/photo-2.html, .json" in out
    code, out, err = run("photo.png", TEXT, "--method", "gradcam", "--out", "unilens-out")
    assert (code, out) == (2, "")
    assert "photo.html exists already" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.png", TEXT), "no such image: nowhere.png"),
        (("photo.png", ""), "expected a text with words, got ''"),
        (("photo.png", TEXT, "--by", "letter"), "unknown unit 'letter'. Valid: word, token."),
        (("photo.png", TEXT, "--method", "gradcan"), "unknown method 'gradcan'"),
        (("photo.png", TEXT, "--text-method", "gradcam"), "unknown method 'gradcam'"),
        (("photo.png", TEXT, "--against", TEXT), "another text, got the same"),
        (("photo.png", TEXT, "--range", "5"), "expected --range LOW,HIGH"),
    ],
)
def test_matches_that_are_refused(run, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_models_that_are_refused(run):
    code, _, err = run("photo.png", TEXT, model="efficientnet_lite0")
    assert code == 2
    assert "hf:REPO or hf:FOLDER" in err
