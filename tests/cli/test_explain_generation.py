"""`unilens explain-text --generate` as a user meets it."""

import json
import re

import pytest
import torch

from unilens.text import LanguageModel, generate

from ..text_models import tiny_bert, tiny_language_model, tiny_tokenizer

HERE = __name__
PROMPT = "The film was not"


def small():
    return LanguageModel(tiny_language_model("GPT2"), tiny_tokenizer(special=False))


@pytest.fixture
def run(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments, model=f"py:{HERE}:small"):
        return command("explain-text", *arguments, "--model", model)

    return run


@pytest.fixture
def save(tmp_path, capsys):
    """Save a model and its tokenizer, and return how the command line names them."""

    def save(network, tokenizer):
        network.save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
        capsys.readouterr()  # transformers prints a bar
        return f"hf:{tmp_path}/model"

    return save


def written(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_generated_text_is_printed_and_written(run, tmp_path):
    code, out, err = run(PROMPT, "--generate", "4", "--by", "token")
    assert (code, err) == (0, "")
    expected = generate(small(), prompt=PROMPT, max_new_tokens=4)
    assert out.splitlines()[0] == PROMPT + expected.continuation.text
    assert "balanced: 4 generated tokens, 4 of the prompt, by token" in out
    folder = tmp_path / "unilens-out"
    assert written(folder) == ["the-film-was-not.html", "the-film-was-not.json"]
    record = json.loads((folder / "the-film-was-not.json").read_text())
    assert (record["text"], record["continuation"]) == (PROMPT, expected.continuation.text)
    assert record["tokens"]["prompt"] == list(expected.prompt.names)
    one = record["methods"]["balanced"]
    rows = [[float("nan") if value is None else value for value in row] for row in one["values"]]
    values = torch.tensor(rows)
    torch.testing.assert_close(values, expected.values.float(), equal_nan=True)
    assert one["score"] == pytest.approx(expected.score.tolist())
    assert one["completeness_gap"] == pytest.approx(expected.completeness_gap.tolist())
    assert one["settings"]
    html = (folder / "the-film-was-not.html").read_text()
    assert re.findall(r'data-row="(\d)"', html) == ["0", "1", "2", "3"]
    assert f"why “{expected.continuation.text.strip()}”?" in html


def test_several_methods_and_texts_and_json_alone_on_stdout(run, tmp_path):
    chosen = ("--method", "ig:baseline=zero,n_steps=3", "--method", "random")
    code, out, err = run("The film", "a plot", "--generate", "2", *chosen, "--json")
    assert (code, err) == (0, "")
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["text"] for record in records] == ["The film", "a plot"]
    assert list(records[0]["methods"]) == ["ig:baseline=zero,n_steps=3", "random"]
    ig = records[0]["methods"]["ig:baseline=zero,n_steps=3"]
    assert ig["settings"]["n_steps"] == 3
    total = sum(value for value in ig["values"][1] if value is not None)
    change = ig["score"][1] - ig["baseline_score"][1]
    assert total + ig["completeness_gap"][1] == pytest.approx(change, abs=1e-9)
    assert len(written(tmp_path / "unilens-out")) == 4


def test_a_given_continuation_is_contrasted(run):
    arguments = ("--continuation", " good", "--against", "bad", "--score", "logit", "--json")
    code, out, err = run(PROMPT, *arguments)
    assert (code, err) == (0, "")
    record = json.loads(out)
    assert record["against"] == ["bad"]
    expected = generate(small(), prompt=PROMPT, continuation=" good", against="bad", score="logit")
    got = record["methods"]["balanced"]["values"][0]
    assert got[:-1] == pytest.approx(expected.values[0, :-1].tolist(), rel=1e-5)
    code, out, _ = run(PROMPT, *arguments[:-1], "--overwrite")
    assert "good (not bad)" in out


def test_nothing_is_overwritten_unless_asked(run):
    assert run("The film", "--generate", "1")[0] == 0
    code, out, err = run("The film", "--generate", "1")
    assert (code, err) == (0, "")
    assert "written: unilens-out/the-film-2.html, .json" in out
    code, out, err = run("The film", "--generate", "1", "--out", "unilens-out")
    assert (code, out) == (2, "")
    assert "the-film.html exists already" in err
    assert run("The film", "--generate", "1", "--out", "unilens-out", "--overwrite")[0] == 0


def test_a_prompt_that_cannot_be_explained_leaves_the_others(run, tmp_path):
    code, out, err = run("very " * 40, "The film", "--generate", "1", "--json")
    assert code == 1
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["The film"]
    assert err.count("\n") == 1
    assert written(tmp_path / "unilens-out") == ["the-film.html", "the-film.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--against", "bad"), "expected --generate N beside --against 'bad'"),
        (("--generate", "1", "--continuation", "x"), "expected --generate or --continuation"),
        (("--generate", "0"), "expected --generate to be a whole number"),
        (("--generate", "many"), "Invalid value for '--generate'"),
        (
            ("--generate", "1", "--by", "letter"),
            "unit of a generated text 'letter'. Valid: token, word, sentence",
        ),
        (("--generate", "1", "--target", "1"), "expected --target and --outputs for classifiers"),
        (("--generate", "1", "--outputs", "logits"), "expected --target and --outputs"),
        (("--generate", "1", "--method", "gradcam"), "unknown method 'gradcam'"),
        (("--generate", "1", "--method", "ig:baseline=masks"), "unknown baseline 'masks'"),
        (("--generate", "1", "--method", "ig:n_steps=0"), "expected n_steps to be"),
        (("--generate", "1", "--seed", "-1"), "expected seed to be a whole number"),
        (("--by", "sentence"), "unknown unit 'sentence'. Valid: word, token."),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, message, run, tmp_path):
    code, out, err = run("The film", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "unilens-out").exists()


def test_a_language_model_from_a_folder_needs_generate(run, save):
    model = save(tiny_language_model("GPT2"), tiny_tokenizer(special=False))
    code, out, err = run("The film", model=model)
    assert (code, out) == (2, "")
    assert f"got the language model {model}; add --generate N" in err
    assert err.count("\n") == 1
    code, out, err = run("The film", "--generate", "2", model=model)
    assert (code, err) == (0, "")
    assert out.startswith("The film")


def test_an_encoder_decoder_from_a_folder_is_explained(run, save):
    model = save(tiny_language_model("T5"), tiny_tokenizer(eos_token="[SEP]"))
    code, out, err = run("The film", "--generate", "2", "--json", model=model)
    assert (code, err) == (0, "")
    assert json.loads(out)["tokens"]["prompt"] == ["[CLS]", "the", "film", "[SEP]"]
    assert "add --generate N" in run("The film", model=model)[2]


def test_a_classifier_generates_nothing(run, save):
    model = save(tiny_bert(), tiny_tokenizer())
    code, out, err = run("The film", "--generate", "2", model=model)
    assert (code, out) == (2, "")
    assert "expected a trained language model" in err
    assert "saved as BertForSequenceClassification, has no weights" in err
    assert err.count("\n") == 1
