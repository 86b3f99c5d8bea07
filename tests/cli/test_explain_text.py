"""`unilens explain-text` as a user meets it."""

import json
import re

import pytest

from unilens.text import LanguageModel, explain_text

from ..text_models import tiny_bert, tiny_language_model, tiny_text_classifier, tiny_tokenizer

HERE = __name__
TEXT = "The film was [bold]not[/] <b>funny</b>!"


def small():
    return tiny_text_classifier()


def writer():
    return LanguageModel(tiny_language_model("GPT2"), tiny_tokenizer(special=False))


@pytest.fixture
def run(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments, model=f"py:{HERE}:small"):
        chosen = ("--model", model) if model else ()
        return command("explain-text", *arguments, *chosen)

    return run


def written(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_text_is_printed_and_written(run, tmp_path):
    code, out, err = run(TEXT, "--target", "1")
    assert (code, err) == (0, "")
    expected = explain_text(tiny_text_classifier(), TEXT, target=1)
    confidence = float(expected.attribution.confidence)
    assert f"LABEL_1 (class 1), probability {confidence:.3f}" in out
    assert TEXT in out
    folder = tmp_path / "unilens-out"
    name = "the-film-was-bold-not-b"
    assert written(folder) == [f"{name}.html", f"{name}.json"]
    record = json.loads((folder / f"{name}.json").read_text())
    assert record["text"] == TEXT
    assert record["words"] == list(expected.tokens.words)
    one = record["methods"]["ig:baseline=image_mean"]
    assert one["token_values"] == pytest.approx(expected.token_values.tolist(), rel=1e-6)
    assert one["word_values"] == pytest.approx(expected.word_values.tolist(), rel=1e-6)
    total = sum(one["token_values"]) + one["diagnostics"]["completeness_gap"]
    assert total == pytest.approx(one["score"] - one["baseline_score"], abs=1e-9)
    html = (folder / f"{name}.html").read_text()
    shown = re.findall(r'title="([^"]+)">', html)
    assert shown == [f"{value:+.3g}" for value in one["word_values"]]
    assert "<b>funny" not in html


def test_several_methods_texts_and_json_alone_on_stdout(run, tmp_path):
    chosen = ("--method", "uni", "--method", "ig:baseline=mask", "--set", "n_steps=3")
    code, out, err = run("The film", "the film!", *chosen, "--json", "--by", "token")
    assert (code, err) == (0, "")
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["text"] for record in records] == ["The film", "the film!"]
    assert list(records[0]["methods"]) == ["uni", "ig:baseline=mask"]
    assert records[0]["methods"]["ig:baseline=mask"]["settings"]["baseline"]["token"] == "mask"
    assert written(tmp_path / "unilens-out") == [
        "the-film-2.html", "the-film-2.json", "the-film.html", "the-film.json",
    ]  # fmt: skip


def test_nothing_is_overwritten_unless_asked(run):
    assert run("The film", "--method", "gradient")[0] == 0
    code, out, err = run("The film", "--method", "gradient")
    assert (code, err) == (0, "")
    assert "written: unilens-out/the-film-2.html, .json" in out
    code, out, err = run("The film", "--method", "gradient", "--out", "unilens-out")
    assert (code, out) == (2, "")
    assert "the-film.html exists already; choose another folder with --out" in err
    assert run("The film", "--method", "gradient", "--out", "unilens-out", "--overwrite")[0] == 0


def test_a_text_that_cannot_be_explained_leaves_the_others(run, tmp_path):
    code, out, err = run("", "The film", "very " * 40, "--method", "gradient", "--json")
    assert code == 1
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["The film"]
    first, second = err.splitlines()
    assert "expected a text with words, got ''" in first
    assert "at most 24 tokens, got 42" in second
    assert written(tmp_path / "unilens-out") == ["the-film.html", "the-film.json"]


def test_names_of_emoji_are_printed_as_they_are(run):
    code, out, _ = run("film :smile: was", "--generate", "2", model=f"py:{HERE}:writer")
    assert code == 0
    assert out.startswith("film :smile: was")
    assert "unit ':x:'" in run("film", "--by", ":x:")[2]


def test_notes_on_every_method_are_printed_once(run, tmp_path):
    chosen = ("--method", "ig:n_steps=2", "--method", "gradient", "--method", "smoothgrad")
    code, out, _ = run("The film", *chosen)
    assert code == 0
    notes = [line.strip() for line in out.splitlines() if line.startswith("  note: ")]
    assert [note.split(" are rounding errors")[0] for note in notes] == [
        "note: the words' values by gradient", "note: the words' values by smoothgrad",
    ]  # fmt: skip
    record = json.loads((tmp_path / "unilens-out" / "the-film.json").read_text())
    assert [f"note: {note}" for note in record["notes"]] == notes


@pytest.mark.slow
def test_small_values_are_printed(run):
    out = run("The film", "--method", "ig:n_steps=2,score=probability")[1]
    _, words = out.split("strongest: ")
    values = [float(value) for value in re.findall(r"[-+]\d\S*?(?=,|\n)", words)][:2]
    expected = explain_text(tiny_text_classifier(), "The film", "ig", n_steps=2)
    assert min(map(abs, values)) < 5e-4
    assert sorted(values) == pytest.approx(sorted(expected.word_values.tolist()), rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("The film", "--by", "letter"), "unknown unit 'letter'. Valid: word, token."),
        (("The film", "--target", "funny"), "unknown label 'funny'"),
        (("The film", "--method", "ig:baseline=masks"), "unknown baseline 'masks'; did you mean"),
        (("The film", "--method", "gradcam"), "unknown method 'gradcam'"),
        (("The film", "--set", "window=1"), "unknown setting of ig:baseline=image_mean 'window'"),
        (("The film", "--seed", "-1"), "expected seed to be a whole number"),
        ((), "Missing argument"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, message, run, tmp_path):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "unilens-out").exists()


def test_a_model_is_needed(run):
    code, _, err = run("The film", model=None)
    assert code == 2
    assert "Missing option" in err


def test_a_model_from_a_folder_loads_without_a_word(run, tmp_path, capsys):
    path = tmp_path / "model"
    tiny_bert().save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    capsys.readouterr()
    code, out, err = run("The film", "--method", "gradient", model=f"hf:{path}")
    assert (code, err) == (0, "")
    assert "The film" in out


def test_a_model_that_is_none_is_said_in_one_line(run, tmp_path):
    code, _, err = run("The film", model=f"hf:{tmp_path}/nowhere")
    assert code == 2
    assert "to be a sequence classifier with its tokenizer" in err
    assert err.count("\n") == 1
