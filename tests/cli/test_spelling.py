"""Names are spelled alike everywhere, and the second command never fails."""

import csv
import json
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from torch import nn

from unilens.models import PixelClassifier, Preprocessing

LABELS = ("tiger cat", "Egyptian cat", "tabby, tabby cat", "car", "Maltese dog")
SMALL = ("--model", f"py:{__name__}:small_model")
CHEAP = ("--metric", "mu-fidelity:subsets=4,cells=3", "--method", "gradient")


def small_model():
    torch.manual_seed(0)
    network = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(48, len(LABELS)))
    preprocessing = Preprocessing((64, 64), 64, (0.0,) * 3, (1.0,) * 3, "bilinear")
    return PixelClassifier(network.eval(), preprocessing, LABELS)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    random = numpy.random.default_rng(0)
    for name in ("a.png", "b.jpg", "c.png"):
        pixels = random.integers(0, 256, (70, 80, 3), dtype=numpy.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.txt").write_text("no photograph")
    return folder


def records(out):
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (("photographs",), "abc"),
        (("photographs/*.png",), "ac"),
        (("photographs/a.png,photographs/b.jpg",), "ab"),
        (("photographs/c.png", "photographs/[ab]*"), "cab"),
    ],
)
def test_photographs_are_files_folders_patterns_and_lists(images, expected, run, folder):
    code, out, err = run("explain", *images, *SMALL, "--method", "gradient", "--json")
    assert (code, err) == (0, "")
    assert [Path(record["source"]).stem for record in records(out)] == list(expected)
    code, out, err = run("evaluate", *images, *SMALL, *CHEAP, "--json")
    assert (code, err) == (0, "")
    (record,) = records(out)
    assert [Path(row["source"]).stem for row in record["rows"]] == list(expected)


@pytest.mark.parametrize(
    "given",
    [
        ("--method", "gradient,ig:n_steps=2,baseline=blur"),
        ("--methods", "gradient", "--methods", "ig:n_steps=2,baseline=blur"),
    ],
)
def test_methods_are_lists_and_repeated_options(given, run, folder):
    names = ["gradient", "ig:n_steps=2,baseline=blur"]
    code, out, _ = run("explain", "photographs/a.png", *SMALL, *given, "--quick", "--json")
    assert code == 0
    assert list(records(out)[0]["methods"]) == names
    metrics = ("--metrics", "deletion_auc:step=0.5,cells=4,mu_fidelity:subsets=4,cells=3")
    code, out, _ = run("evaluate", "photographs/a.png", *SMALL, *given, *metrics, "--json")
    assert code == 0
    (record,) = records(out)
    assert list(record["methods"]) == names
    assert list(record["metrics"]) == [
        "deletion_auc:step=0.5,cells=4",
        "mu_fidelity:subsets=4,cells=3",
    ]
    code, out, _ = run("benchmark", "--data", "photographs", *SMALL, *given, *metrics, "--dry-run")
    assert code == 0
    plan = json.loads(out[: out.rindex("}") + 1])
    assert plan["methods"] == names
    assert plan["metrics"] == list(record["metrics"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        ("--target", "car,tabby, tabby cat"),
        ("--target", "car", "--target", "2"),
        ("--targets", "3,2"),
    ],
)
def test_targets_are_lists_and_repeated_options(given, run, folder, tmp_path):
    if given[1] == "car,tabby, tabby cat":
        given = ("--target", "car", "--target", "tabby, tabby cat")
    code, out, err = run(
        "explain", "photographs/a.png", *SMALL, "--method", "gradient", *given, "--json"
    )
    assert (code, err) == (0, "")
    assert [record["target"]["label"] for record in records(out)] == ["car", "tabby"]
    names = {path.name for path in (tmp_path / "unilens-out").glob("*.png")}
    assert names == {"a-car.png", "a-tabby.png"}
    code, out, _ = run("evaluate", "photographs/a.png", *SMALL, *CHEAP, *given, "--json")
    assert code == 0
    assert [row["target"] for row in records(out)[0]["rows"]] == [3, 2]


def test_a_class_for_all_images_of_a_benchmark(run, folder, tmp_path):
    rows = ("query", "unilens-out/benchmark", "SELECT target FROM rows", "--json")
    code, _, err = run("benchmark", "--data", "photographs", *SMALL, *CHEAP, "--target", "car")
    assert (code, err) == (0, "")
    assert {row["target"] for row in json.loads(run(*rows)[1])} == {3}


def test_a_word_of_several_labels_offers_them(run, folder):
    of_all = ("benchmark", "--data", "photographs", "--method", "edges", "--metric", "road")
    for command in (("explain", "photographs/a.png"), ("evaluate", "photographs/a.png"), of_all):
        code, out, err = run(*command, *SMALL, "--target", "cat")
        assert (code, out) == (2, "")
        assert "unknown label 'cat'; did you mean tiger cat, Egyptian cat or tabby cat?" in err


def test_the_second_command_never_fails(run, folder, tmp_path):
    made = tmp_path / "unilens-out"
    for number in ("", "-2", "-3"):
        code, _, err = run("explain", "photographs/a.png", *SMALL, "--method", "gradient")
        assert (code, err) == (0, "")
        assert {path.suffix for path in made.glob(f"a{number}.*")} == {
            *(".png", ".json", ".safetensors")
        }
        code, _, err = run("evaluate", "photographs/a.png", *SMALL, *CHEAP)
        assert (code, err) == (0, "")
        assert (made / f"evaluation{number}.json").exists()
    assert len(list(made.iterdir())) == 12


@pytest.mark.slow
def test_a_benchmark_of_another_plan_gets_another_folder(run, folder, tmp_path):
    arguments = ("benchmark", "--data", "photographs", "--limit", "2", *SMALL, *CHEAP)
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    assert "2 rows written" in out
    assert "0 rows written" in run(*arguments)[1]  # the same run, continued
    code, out, err = run(*arguments, "--seed", "1")
    assert (code, err) == (0, "")
    assert "2 rows written" in out
    assert {path.name for path in (tmp_path / "unilens-out").iterdir()} == {
        *("benchmark", "benchmark-2")
    }
    for expected in (0, 2):  # a report's folder is replaced only when asked
        code, _, err = run("report", "unilens-out/benchmark", "--out", "reports")
        assert (code, "reports has files already" in err) == (expected, expected == 2)
    assert run("report", "unilens-out/benchmark", "--out", "reports", "--overwrite")[0] == 0
    code, _, err = run(*arguments, "--seed", "2", "--out", tmp_path / "unilens-out/benchmark")
    assert code == 2
    assert "seed: was 0, now 2" in err


def test_a_benchmark_ends_with_a_leader_board(run, folder):
    code, out, err = run(
        "benchmark", "--data", "photographs", *SMALL, "--method", "gradient,edges,ig:n_steps=2",
        "--metric", "mu_fidelity:subsets=40,cells=4",
    )  # fmt: skip
    assert (code, err) == (0, "")
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("mu_fidelity:subsets=40"))
    assert lines[start + 1].split() == [
        *("rank", "method", "mean", "95", "%", "interval", "n", "s", "per", "map", "passes")
    ]
    board = [line.split() for line in lines[start + 2 : start + 5]]
    assert [row[0].rstrip("=") for row in board] == ["1", "2", "3"]
    assert {row[1] for row in board} == {"gradient", "edges", "ig:n_steps=2"}
    with Path("unilens-out/benchmark/report/summary.csv").open(encoding="utf-8") as file:
        by_method = {row["method"]: row for row in csv.DictReader(file)}
    means = [float(row[2]) for row in board]
    assert means == sorted(means, reverse=True)
    for rank, method, mean, low, _, high, count, *_ in board:
        row = by_method[method]
        assert float(mean) == pytest.approx(float(row["mean"]), abs=6e-4)
        assert float(low) <= float(mean) <= float(high)
        assert count == "3"
        assert rank.endswith("=") == (row["standing"] == "level")


def test_a_query_prints_whole_columns(run, folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run("benchmark", "--data", "photographs", *SMALL, *CHEAP, "--no-report")[0] == 0
    code, out, _ = run(
        "query", "unilens-out/benchmark",
        "SELECT image, method, metric, status, content, predicted, target FROM rows "
        "ORDER BY image",
    )  # fmt: skip
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert [line.rstrip() for line in out.splitlines()][:4] == [
        "image      a.png",
        "method     gradient",
        "metric     mu-fidelity:subsets=4,cells=3",
        "status     ok",
    ]
    assert out.count("mu-fidelity:subsets=4,cells=3") == 3
    code, out, _ = run("query", "unilens-out/benchmark", "SELECT image, target FROM rows")
    assert code == 0
    assert out.splitlines()[0].split() == ["image", "target"]


def test_a_manifold_is_replaced_only_when_asked(run, folder, tmp_path):
    shutil.copy(folder / "a.png", folder / "d.png")
    arguments = ("manifold", "fit", "m.safetensors", "--data", "photographs", "--kind", "pca")
    sizes = ("--dimension", "2", "--size", "8")
    assert run(*arguments, *sizes)[0] == 0
    code, _, err = run(*arguments, *sizes)
    assert code == 2
    assert "m.safetensors exists already; choose another name, or replace it" in err
    assert run(*arguments, *sizes, "--overwrite")[0] == 0


def sure_model():
    """A model that gives class 1 a probability of 0.004, and class 4 one of 1e-7."""
    model = small_model()
    nn.init.zeros_(model.network[-1].weight)
    model.network[-1].bias.data = torch.tensor([0.5, 0.004, 0.4, 0.0959999, 1e-7]).log()
    return model


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("1", "photographs/a.png: Egyptian cat (class 1), probability 0.004"),
        ("dog", "error: unknown label 'dog'; did you mean Maltese dog"),
        ("Maltese_dog", "photographs/a.png: Maltese dog (class 4), probability 1.0e-07"),
    ],
)
def test_small_probabilities_are_readable(target, line, run, folder):
    chosen = ("--model", f"py:{__name__}:sure_model", "--method", "edges", "--target", target)
    _, out, err = run("explain", "photographs/a.png", *chosen)
    assert (out + err).startswith(line)
