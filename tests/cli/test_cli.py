"""The command line as a user meets it: what it writes, what it prints, how it refuses."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from unilens import cli, evaluate, explain, load_model
from unilens._catalogue import listing
from unilens.cli import sources
from unilens.cli.listing import KINDS
from unilens.diagnostics import WARNINGS
from unilens.methods import methods
from unilens.metrics import imputers, metrics, similarities
from unilens.models import read_image
from unilens.output.levels import verdict_line, warning_lines

FAST = ("--quick", "--set", "n_steps=2")
OF_OTHER_MODELS = {
    name for name in methods if {"perceptron", "attention"} & {*methods[name].card.traits}
}
HERE = __name__


def small_model():
    """A classifier that takes no time, for `--model py:`."""
    torch.manual_seed(0)
    hidden = nn.Linear(3 * 49, 8), nn.ReLU(), nn.Linear(8, 5)
    return nn.Sequential(nn.AvgPool2d(32), nn.Flatten(), *hidden)


def broken_model():
    return nn.Sequential(nn.Flatten(), nn.Linear(7, 5))


def written(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "photo.png"
    random = numpy.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (240, 300, 3), dtype=numpy.uint8)).save(path)
    return path


def explain_small(run, *arguments):
    return run("explain", "--model", f"py:{HERE}:small_model", *arguments)


@pytest.mark.slow
def test_the_default_command_on_a_sample(run, tmp_path):
    code, out, err = run("explain", "--sample", "chelsea", *FAST, "--set", "matching_steps=1")
    assert out.index("uni_blur: why this class") < out.index("uni: UNI: why is the model surer")
    assert "Usable" in out
    assert (code, err) == (0, "")
    assert "tiger cat (class 282), probability 0.39" in out
    folder = tmp_path / "unilens-out"
    assert written(folder) == ["chelsea.json", "chelsea.png", "chelsea.safetensors"]
    record = json.loads((folder / "chelsea.json").read_text())
    assert record["target"] == {"index": 282, "label": "tiger cat"}
    assert record["model"]["size"] == [224, 224]
    assert list(record["methods"]) == ["uni_blur", "uni"]
    assert record["methods"]["uni"]["diagnostics"]["proximity"] == pytest.approx(0.25)
    one = record["methods"]["uni_blur"]
    assert one["diagnostics"]["proximity"] > 30  # from the blurred photograph
    assert one["reference"].startswith("this package, after Choi et al. 2025")
    assert one["given"] == {"n_steps": 2, "matching_steps": 1}
    assert one["seed"] == 0
    assert one["seconds"] > 0
    maps = load_file(folder / "chelsea.safetensors")
    assert maps["uni_blur/values"].shape == maps["uni_blur/baseline"].shape == (3, 224, 224)
    total = float(maps["uni_blur/values"].double().sum())
    change = one["score"] - one["baseline_score"]
    assert total + one["diagnostics"]["completeness_gap"] == pytest.approx(change, abs=1e-6)
    with Image.open(folder / "chelsea.png") as picture:
        assert picture.width > 1000


@pytest.mark.slow
def test_all_diagnostics_without_quick(run, photograph):
    code, out, _ = explain_small(run, photograph, "--method", "ig", "--json")
    assert code == 0
    measured = json.loads(out)["methods"]["ig"]["diagnostics"]
    assert {
        "completeness_gap",
        "confidence_change",
        "proximity",
        "monotonicity",
        "flat_fraction",
        "riemann_error_bound",
        "stability_1_30",
        "stability_15_30",
        "curvature_input",
        "curvature_baseline",
    } <= measured.keys()


@pytest.mark.slow
def test_every_method_side_by_side_and_json_alone_on_stdout(run, photograph):
    needed = {
        "deeplift_shap": f":references={photograph}",
        "expected_gradients": f":references={photograph}",
        "ig2": f":references={photograph},iterations=2",
    }
    names = [name + needed.get(name, "") for name in methods if name not in OF_OTHER_MODELS]
    chosen = [part for name in names for part in ("--method", name)]
    chosen += ["--method", "ig:baseline=blur,sigma=3"]
    chosen += ["--set", "n_masks=9", "--set", "designs=2", "--set", "cells=2"]
    code, out, err = explain_small(
        run, photograph, "--sample", "coffee", *chosen, *FAST, "--json", "--target", "3"
    )
    assert (code, err) == (0, "")
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["source"] for record in records] == [str(photograph), "coffee"]
    for record in records:
        assert set(record["methods"]) == {*names, "ig:baseline=blur,sigma=3"}
        assert record["target"] == {"index": 3, "label": "class 3"}
    blurred = records[0]["methods"]["ig:baseline=blur,sigma=3"]
    assert blurred["settings"]["baseline"] == {
        "type": "Blur",
        "sigma": 3,
        "boundary": "replicate",
        "along": "all",
    }
    assert blurred["settings"]["n_steps"] == 2
    black = records[0]["methods"]["ig"]
    assert black["settings"]["baseline"] == {"type": "Constant", "value": 0.0}


@pytest.mark.slow
def test_the_same_command_twice_gives_the_same_maps(run, photograph, tmp_path):
    for out in ("first", "second"):
        explain_small(run, photograph, "--out", out, *FAST, "--method", "ig:baseline=uniform_noise")
    name = "ig:baseline=uniform_noise/values"
    first, second = (
        load_file(tmp_path / o / "photo.safetensors")[name] for o in ("first", "second")
    )
    assert torch.equal(first, second)
    explain_small(
        run,
        photograph,
        "--out",
        "third",
        *FAST,
        "--method",
        "ig:baseline=uniform_noise",
        "--seed",
        1,
    )
    assert not torch.equal(load_file(tmp_path / "third" / "photo.safetensors")[name], first)


def test_references_are_read_from_a_folder(run, photograph, tmp_path):
    folder = tmp_path / "others"
    folder.mkdir()
    Image.new("RGB", (250, 250), (51, 102, 153)).save(folder / "one.png")
    code, _, err = explain_small(
        run, photograph, *FAST, "--method", f"ig:baseline=dataset_sample,references={folder}"
    )
    assert (code, err) == (0, "")
    maps = load_file(tmp_path / "unilens-out" / "photo.safetensors")
    (baseline,) = (value for name, value in maps.items() if name.endswith("baseline"))
    assert baseline[:, 5, 5].tolist() == pytest.approx([0.2, 0.4, 0.6], abs=1e-3)


@pytest.mark.slow
def test_nothing_is_overwritten_unless_asked(run, photograph, tmp_path):
    folder = tmp_path / "unilens-out"
    folder.mkdir()
    (folder / "photo.json").write_text("mine")
    code, out, err = explain_small(run, photograph, *FAST)
    assert (code, err) == (0, "")
    assert "written: unilens-out/photo-2.png, .safetensors, .json" in out
    code, out, err = explain_small(run, photograph, *FAST, "--out", folder)
    assert (code, out) == (2, "")
    assert "photo.json exists already; choose another folder with --out, or replace" in err
    assert (folder / "photo.json").read_text() == "mine"
    code, _, _ = explain_small(run, photograph, *FAST, "--out", folder, "--overwrite")
    assert code == 0
    assert json.loads((folder / "photo.json").read_text())["source"] == str(photograph)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cost$_$x", "猫", "caf\udce9", "n" * 240])
def test_file_names_of_every_kind(run, photograph, tmp_path, name):
    path = photograph.rename(tmp_path / f"{name}.png")
    code, _, err = explain_small(run, path, *FAST)
    assert (code, err) == (0, "")
    assert len(written(tmp_path / "unilens-out")) == 3


@pytest.mark.slow
def test_the_score_can_be_set_in_three_ways(run, photograph):
    for given in (("--score", "logit"), ("--set", "score=logit"), ("--method", "uni:score=logit")):
        _, out, _ = explain_small(run, photograph, *FAST, *given, "--json", "--overwrite")
        for made in json.loads(out)["methods"].values():
            assert made["settings"]["score"] == "logit"


def test_a_list_can_be_a_setting_of_one_method(run, photograph):
    text = "ig:baseline=constant,value=[0.1,0.2,0.3],n_steps=1"
    code, out, _ = explain_small(run, photograph, "--method", text, "--quick", "--json")
    assert code == 0
    made = json.loads(out)["methods"][text]["settings"]
    assert made["baseline"]["value"] == [0.1, 0.2, 0.3]
    assert made["n_steps"] == 1


def test_settings_reach_the_method_that_another_one_smooths(run, photograph):
    text = "smoothgrad:inner=ig,baseline=blur,n_samples=2"
    shared = ("--set", "n_steps=3", "--set", "sigma=4")
    code, out, _ = explain_small(run, photograph, "--method", text, *shared, "--quick", "--json")
    assert code == 0
    made = json.loads(out)["methods"][text]["settings"]
    assert made["explainer"]["baseline"] == {
        "type": "Blur",
        "sigma": 4,
        "boundary": "replicate",
        "along": "all",
    }
    assert (made["explainer"]["n_steps"], made["n_samples"]) == (3, 2)


def test_a_method_that_does_not_apply_says_so_in_one_line(run, photograph):
    code, out, err = explain_small(run, photograph, "--method", "neutral", "--quick")
    assert (code, out) == (2, "")
    assert err.startswith("error: expected a model that is a chain of Linear")
    assert err.count("\n") == 1


@pytest.mark.slow
def test_random_weights_are_on_the_record(run, photograph):
    _, out, _ = run(
        "explain",
        photograph,
        "--model",
        "torchvision:resnet18",
        "--random-weights",
        "--json",
        *FAST,
    )
    assert json.loads(out)["model"]["origin"] == "random weights"


@pytest.mark.slow
def test_a_model_in_the_current_folder(tmp_path, photograph):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def make(): return nn.Sequential(nn.AvgPool2d(56), nn.Flatten(), nn.Linear(48, 3))\n"
    )
    command = [sys.executable, "-P", "-c", "from unilens.cli import main; main()", "explain"]
    done = subprocess.run(
        [*command, photograph, "--model", "py:mine:make", "--json", *FAST],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.stderr == ""
    assert json.loads(done.stdout)["model"]["name"] == "py:mine:make"


@pytest.mark.slow
def test_images_of_one_name_do_not_collide(run, photograph, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    Image.open(photograph).save(other / "photo.jpg")
    code, _, _ = explain_small(run, photograph, other / "photo.jpg", *FAST)
    assert code == 0
    names = {name.split(".")[0] for name in written(tmp_path / "unilens-out")}
    assert names == {"photo", "photo-2"}


@pytest.mark.slow
def test_a_broken_image_costs_itself_alone(run, photograph, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    code, out, err = explain_small(run, broken, photograph, *FAST)
    assert code == 1
    assert err.startswith("error: expected an image")
    assert "broken.jpg is none that can be read" in err
    assert "photo.png" in out
    assert written(tmp_path / "unilens-out") == ["photo.json", "photo.png", "photo.safetensors"]


NO_DEVICE = "meta" if torch.cuda.is_available() else "cuda"
BAD = {
    "no image": ((), "expected an image or --sample NAME; try: unilens list samples"),
    "sample": (("--sample", "chelsae"), "unknown sample 'chelsae'; did you mean chelsea?"),
    "method": (("--method", "gradeint"), "unknown method 'gradeint'; did you mean gradient?"),
    "model": (("--model", "efficientnet"), "unknown model 'efficientnet'; did you mean effic"),
    "style": (("--style", "red"), "unknown style 'red'. Valid: signed, unsigned, green."),
    "score": (("--score", "logits"), "unknown score 'logits'; did you mean logit"),
    "setting": (
        ("--set", "nsteps=3"),
        "unknown setting of uni_blur, uni 'nsteps'; did you mean n_steps",
    ),
    "setting of one": (("--method", "uni:budgt=3"), "setting of uni 'budgt'; did you mean budget"),
    "no value": (("--set", "n_steps"), "expected a setting as key=value, got 'n_steps'"),
    "wrong value": (
        ("--set", "n_steps=many"),
        "n_steps to be a whole number of at least 1, got 'm",
    ),
    "wrong baseline": (
        ("--method", "ig:baseline=blurr"),
        "unknown baseline 'blurr'; did you mean b",
    ),
    "seed": (("--seed", "-1"), "expected seed to be a whole number from 0 to 2^63 - 1, got -1"),
    "device": (("--device", "gpu"), "expected --device cpu, cuda, cuda:0 or mps, got 'gpu'"),
    "device not there": (("--device", NO_DEVICE), f"could not use the device '{NO_DEVICE}'"),
    "target": (("--target", "5000"), "expected --target between 0 and 999, or a label, got 5000"),
    "label": (("--target", "tigre cat"), "unknown label 'tigre cat'; did you mean tiger cat"),
    "label of two": (("--target", "crane"), "the label 'crane' names classes 134, 517"),
    "not finite": (
        ("--method", "ig:baseline=constant,value=NaN"),
        "expected a finite baseline, got NaN or infinity",
    ),
    "rule": (("--set", "rule=3"), "expected rule to be a name or a function of n_steps, got 3"),
    "gauss": (("--method", "ig:n_steps=2000"), "expected at most 1000 steps of gauss_legendre"),
    "option": (("--colour", "red"), "No such option: --colour"),
    "no number": (("--seed", "x"), "Invalid value for '--seed': Input should be a valid integer"),
    "references": (
        ("--method", "ig:baseline=dataset_sample,references=nowhere"),
        "expected references to be an image or a folder of images, got nowhere",
    ),
    "references missing": (
        ("--method", "ig:baseline=dataset_sample"),
        "dataset_sample needs the setting 'references'",
    ),
    "model fails": (
        ("--model", f"py:{HERE}:broken_model"),
        r"the model could not take an input of shape \(3, 224, 224\)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_use_is_one_clear_line_and_a_non_zero_exit(case, run, tmp_path):
    arguments, message = BAD[case]
    given = () if case == "no image" or "--sample" in arguments else ("--sample", "chelsea")
    code, out, err = run("explain", *given, *arguments, *FAST[:1])
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert re.search(message if "\\" in message else re.escape(message), err)
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("unilens-out/*"))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc cannot be written, root or not")
def test_an_output_folder_that_cannot_be_written(run, photograph):
    code, _, err = explain_small(run, photograph, *FAST, "--out", "/proc/unilens")
    assert code == 2
    assert "expected an output folder that can be written, got /proc/unilens" in err
    code, _, err = explain_small(run, photograph, *FAST, "--out", photograph)
    assert code == 2
    assert "expected an output folder that can be written" in err
    assert photograph.stat().st_size > 1000


def test_a_traceback_only_with_debug(run, monkeypatch):
    monkeypatch.setattr(sources, "listing", None)
    code, _, err = run("explain", "--sample", "chelsea")
    assert code == 1
    assert "Traceback" not in err
    assert err.startswith("error: TypeError: ")
    assert "(--debug shows where)" in err
    monkeypatch.setattr(sys, "argv", ["unilens", "explain", "--sample", "chelsea", "--debug"])
    with pytest.raises(TypeError):
        cli.main()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("methods", ["unlearning\n", "  uni_paper ", "gradient\n", "  input_x_gradient "]),
        ("baselines", ["  gaussian_noise "]),
        ("models", ["efficientnet_lite2", "timm:NAME", "hf:REPO"]),
        ("samples", ["grace_hopper", "chelsea"]),
    ],
)
def test_lists(run, kind, expected):
    code, out, _ = run("list", kind)
    assert code == 0
    for text in expected:
        assert text in out


def test_doctor(run):
    code, out, _ = run("doctor")
    assert code == 0
    assert "sees a tiger cat in chelsea" in out
    assert "cuda" in out
    assert "extra zoo" in out


def test_doctor_says_how_a_model_is_run(run, tmp_path):
    Path("mine.py").write_text(
        "from torch import nn\n"
        "class Flat(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv, self.head = nn.Conv2d(3, 2, 9, 9), nn.Linear(1152, 2)\n"
        "    def forward(self, x):\n"
        "        x = self.conv(x)\n"
        "        return self.head(x.view(len(x), -1))\n",
        encoding="utf-8",
    )
    code, out, _ = run("doctor", "--model", "py:mine:Flat")
    assert code == 0
    said = {line.split("  ")[0]: line.rstrip() for line in out.splitlines()}
    assert said["run on a copy"].endswith("yes")
    assert "view size is not compatible" in " ".join(out.split())
    assert said["several points per pass"].endswith("yes")
    assert said["batch norms folded"].endswith("nothing to do")


@pytest.mark.slow
def test_the_installed_command_in_a_process_of_its_own(tmp_path):
    command = [sys.executable, "-c", "from unilens.cli import main; main()"]
    done = subprocess.run([*command, "explain"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "error: expected an image or --sample NAME; try: unilens list samples\n"
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0
    assert "explain" in done.stdout


SMALL_COSTS = (
    ("--set", "n_masks=9"),
    ("--set", "designs=2"),
    ("--set", "cells=2"),
    ("--set", "classes=1"),
    ("--set", "n_samples=2"),
)


@pytest.mark.slow
def test_all_methods_that_fit_and_why_the_others_do_not(run, photograph, tmp_path):
    small = [word for pair in SMALL_COSTS for word in pair]
    code, out, err = explain_small(run, photograph, "--method", "all", *FAST, *small)
    assert (code, err) == (0, "")
    record = json.loads((tmp_path / "unilens-out" / "photo.json").read_text())
    assert set(record["methods"]) | set(record["left_out"]) == set(methods)
    with_references = {"expected_gradients", "deeplift_shap", "ig2"}
    assert set(record["left_out"]) == with_references | OF_OTHER_MODELS
    assert "left out: expected_gradients: expected_gradients needs references=(R, 3" in out
    assert "stability" not in record["methods"]["uni"]["diagnostics"]
    assert record["methods"]["agi"]["settings"]["baseline"]["classes"] == 1
    maps = load_file(tmp_path / "unilens-out" / "photo.safetensors")
    assert {f"{name}/values" for name in record["methods"]} <= set(maps)


def test_a_method_that_does_not_fit_is_refused_by_name_before_anything_runs(
    run, photograph, tmp_path
):
    code, out, err = explain_small(
        run, photograph, *FAST, "--method", "uni", "--method", "expected_gradients"
    )
    assert (code, out) == (2, "")
    assert err.startswith("error: expected_gradients needs references=")
    assert written(tmp_path / "unilens-out") == []


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("ig:path=blur,baseline=black", "expected no baseline with BlurPath"),
        ("ig:path=trajectory", "expected a baseline that keeps its trajectory"),
        ("ig:path=curly", "unknown path 'curly'. Valid: blur, guided"),
        ("ig:weighting=heavy", "unknown weighting 'heavy'"),
        ("blur_ig:sigma=3", "unknown setting of blur_ig 'sigma'; did you mean max_sigma"),
        (
            "guided_ig:fraction=2",
            "fraction to be a finite number above 0 and at most 1, got 2",
        ),
        ("agi:classes=[1,1]", "expected classes to be a number or different class indices"),
        ("ig:baseline=weighted,baselines=black", "expected baselines to be a list of names"),
    ],
)
def test_combinations_that_make_no_sense(method, message, run, photograph):
    code, out, err = explain_small(run, photograph, *FAST, "--method", method)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("methods", "guided_ig", ("float64 advised", "52 + 50", "fraction = 0.25")),
        ("methods", "blur-ig", ("with path=blur", "max_sigma = 50.0", "number above 0")),
        ("methods", "smoothgrad", ("inner = gradient", "n_samples = 50", "random")),
        ("methods", "uni", ("n_steps = 15", "whole number from 1", "matching_step_size = 0.12")),
        ("baselines", "black", ("no settings",)),
        ("metrics", "deletion_auc", ("lower is better", "step = 0.1", "reduction = sum")),
        ("metrics", "pointing_game", ("needs a mask", "higher is better")),
        ("baselines", "adversarial", ("401 + 400", "random")),
        ("baselines", "dataset_sample", ("references (required)", "depend on its settings")),
        ("paths", "spectral", ("overlap = 0.4",)),
        ("weightings", "idg", ("adaptive = true",)),
    ],
)
def test_one_component_is_listed_with_cost_and_settings(kind, name, words, run):
    code, out, _ = run("list", kind, name)
    assert code == 0
    flat = " ".join(out.split())
    for word in words:
        assert word in flat, word


@pytest.mark.parametrize("kind", KINDS)
def test_lists_keep_names_whole_at_80_columns(kind, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run("list", kind)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    words = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
    assert set(listing(kind)) <= set(words)


@pytest.mark.slow
def test_settings_of_every_method_and_metric_hold_no_internals_of_python(run):
    for kind in ("methods", "metrics", "baselines"):
        for name, entry in listing(kind).items():
            code, out, _ = run("list", kind, name)
            assert code == 0
            assert not re.search(r"<\w+|\bNone\b|object at|\bTrue\b", out), name
            for setting in entry.settings:
                assert re.search(rf"^  {setting}( =| \(required)", out, re.MULTILINE), setting


def evaluate_small(run, *arguments):
    return run("evaluate", "--model", f"py:{HERE}:small_model", *arguments)


QUICK_METRICS = ("--metric", "mu_fidelity:subsets=8,cells=4", "--metric", "deletion_auc:step=0.5")


def test_evaluate_writes_a_table_and_every_value(run, photograph, tmp_path):
    other = tmp_path / "other.png"
    Image.new("RGB", (240, 240), (200, 30, 90)).save(other)
    code, out, err = evaluate_small(
        run, photograph, other, "--method", "gradient", "--method", "ig:n_steps=3", *QUICK_METRICS
    )
    assert (code, err) == (0, "")
    head, first, second, written_to, shown = out.splitlines()
    assert shown.startswith(f"py:{HERE}:small_model is shown 3 channels in [0, 1]; shorter side")
    assert head.split() == [
        "method", "mu_fidelity:subsets=8,cells=4", "↑", "deletion_auc:step=0.5", "↓"
    ]  # fmt: skip
    assert first.startswith("gradient ")
    assert second.startswith("ig:n_steps=3 ")
    assert written_to.strip() == "written: unilens-out/evaluation.json"
    recorded = json.loads((tmp_path / "unilens-out/evaluation.json").read_text())
    assert len(recorded["rows"]) == 2 * 2 * 2
    assert recorded["methods"]["ig:n_steps=3"] == {"method": "ig", "given": {"n_steps": 3}}
    assert recorded["metrics"]["deletion_auc:step=0.5"]["higher_is_better"] is False
    assert recorded["metrics"]["mu_fidelity:subsets=8,cells=4"]["settings"]["subsets"] == 8
    model = small_model().eval()
    pixels = torch.stack([load_model_pixels(path) for path in (photograph, other)])
    attribution = explain(model, pixels, "gradient")
    expected = evaluate(model, pixels, attribution, "deletion_auc", step=0.5)
    rows = [
        row
        for row in recorded["rows"]
        if (row["method"], row["metric"]) == ("gradient", "deletion_auc:step=0.5")
    ]
    assert [row["source"] for row in rows] == [str(photograph), str(other)]
    assert [row["value"] for row in rows] == pytest.approx(expected.tolist(), rel=1e-5)
    assert len(rows[0]["details"]["curve"]) == 3
    summary = recorded["summary"]["gradient"]["deletion_auc:step=0.5"]
    assert summary["mean"] == pytest.approx(float(expected.mean()), rel=1e-5)
    assert summary["sd"] == pytest.approx(float(expected.std()), rel=1e-4)
    assert (summary["defined"], summary["undefined"], summary["failed"]) == (2, 0, 0)
    assert f"{summary['mean']:.3f} ± {summary['sd']:.3f}" in first


def load_model_pixels(path):
    return load_model(f"py:{HERE}:small_model").preprocess(read_image(path))


def test_evaluate_as_json(run, photograph):
    code, out, _ = evaluate_small(run, photograph, "--method", "gradient", *QUICK_METRICS, "--json")
    assert code == 0
    recorded = json.loads(out)
    assert {row["method"] for row in recorded["rows"]} == {"gradient"}


def test_evaluate_counts_what_is_undefined_and_says_why(run, photograph, tmp_path):
    code, out, _ = evaluate_small(
        run, photograph, "--method", "gradient", *QUICK_METRICS[2:], "--target", "0", "--model",
        f"py:{HERE}:constant_model",
    )  # fmt: skip
    assert code == 0
    assert "undefined" in out.splitlines()[1]
    reason = "the map is the same everywhere"
    assert f"gradient, deletion_auc:step=0.5 undefined: {reason}" in out
    (row,) = json.loads((tmp_path / "unilens-out/evaluation.json").read_text())["rows"]
    assert (row["value"], row["status"], row["reason"]) == (None, "undefined", reason)


def test_small_numbers_do_not_vanish(run, photograph):
    code, out, _ = evaluate_small(
        run, photograph, "--method", "ig", "--metric", "completeness_gap", "--set", "n_steps=40"
    )
    assert code == 0
    value = out.splitlines()[1].split()[-1]
    assert 0 < float(value) < 0.0005
    assert "e-" in value


def test_many_metrics_of_few_methods_are_rows(run, photograph):
    code, out, _ = evaluate_small(run, photograph, "--method", "gradient", *QUICK_METRICS)
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["metric", "gradient"]
    assert lines[1][:2] == ["mu_fidelity:subsets=8,cells=4", "↑"]
    assert lines[2][:2] == ["deletion_auc:step=0.5", "↓"]


def constant_model():
    model = small_model()
    nn.init.zeros_(model[-1].weight)
    return model


def test_evaluate_says_why_there_is_no_value(run, photograph, tmp_path):
    code, out, _ = evaluate_small(
        run,
        photograph,
        "--method",
        "gradient",
        "--method",
        "gradcam:layer=network.2",
        *QUICK_METRICS[2:],
    )
    assert code == 1
    assert "gradcam:layer=network.2, deletion_auc:step=0.5 failed: Grad-CAM needs a layer" in out
    recorded = json.loads((tmp_path / "unilens-out/evaluation.json").read_text())
    assert [row["value"] is None for row in recorded["rows"]] == [False, True]
    assert recorded["summary"]["gradcam:layer=network.2"]["deletion_auc:step=0.5"]["failed"] == 1


def test_evaluate_does_not_overwrite(run, photograph, tmp_path):
    arguments = (photograph, "--method", "gradient", *QUICK_METRICS[2:], "--out", "maps")
    assert evaluate_small(run, *arguments)[0] == 0
    path = tmp_path / "maps/evaluation.json"
    before = path.read_bytes()
    code, _, err = evaluate_small(run, *arguments)
    assert code == 2
    assert "evaluation.json exists already" in err
    assert path.read_bytes() == before
    assert evaluate_small(run, *arguments, "--overwrite")[0] == 0
    for name in ("evaluation.json", "evaluation-2.json"):
        assert evaluate_small(run, *arguments[:-2])[0] == 0
        assert (tmp_path / "unilens-out" / name).exists()


def test_evaluate_goes_on_after_a_broken_photograph(run, photograph, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    code, out, err = evaluate_small(
        run, broken, photograph, "--method", "gradient", *QUICK_METRICS[2:]
    )
    assert code == 1
    assert "broken.png" in err
    assert len(err.splitlines()) == 1
    assert "gradient" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--metric", "pointing_game"),
            "pointing_game needs to know where the object is; pass --mask",
        ),
        (("--metric", "mufidelity"), "unknown metric 'mufidelity'; did you mean mu_fidelity"),
        (("--metric", "mu_fidelity:cell=3"), "unknown setting of mu_fidelity 'cell'"),
        (("--metric", "mu_fidelity:imputer=[black,blu]"), "unknown imputer 'blu'; did you mean"),
        (("--metric", "deletion_auc:step=2"), "expected step below 1, got 2"),
        (("--mask", "a.png", "--mask", "b.png"), "no such image: a.png"),
        (("--method", "uno"), "unknown method 'uno'; did you mean uni"),
        (("--seed", "-1"), "expected seed"),
    ],
)
def test_evaluate_refuses_in_one_line(run, photograph, tmp_path, arguments, message):
    code, out, err = evaluate_small(run, photograph, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "unilens-out").exists()


def test_lists_of_metrics_imputers_and_similarities(run):
    for kind, registry in (
        ("metrics", metrics),
        ("imputers", imputers),
        ("similarities", similarities),
    ):
        code, out, _ = run("list", kind)
        assert code == 0
        names = re.findall(r"^  (\S+)", out, re.MULTILINE)
        assert sorted(names) == sorted(registry)
    assert "higher is better" in run("list", "metrics")[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [("list", "methods"), ("list", "nothing"), ("explain", "--sample", "chelsae")]
)
def test_printed_text_loads_no_plotting_library(arguments):
    code = (
        "import sys\n"
        f"sys.argv = ['unilens', *{arguments!r}]\n"
        "from unilens.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    sys.exit('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout or done.stderr.startswith("error: unknown")


def test_each_map_has_its_verdict_and_its_warnings(run, photograph, tmp_path):
    chosen = ("--method", "ig:baseline=white", "--method", "gradient")
    code, out, err = explain_small(run, photograph, *chosen, *FAST)
    assert (code, err) == (0, "")
    record = json.loads((tmp_path / "unilens-out" / "photo.json").read_text())
    printed = out.splitlines()
    assert any(result["warnings"] for result in record["methods"].values())
    for name, result in record["methods"].items():
        warnings = result["warnings"]
        assert result["levels"] == {name: WARNINGS[name].level for name in warnings}
        expected = [verdict_line(result["verdict"], warnings), *warning_lines(warnings)]
        words = [name, *str(expected[0]).split()]
        verdict = [line.split() for line in printed].index(words)
        start = next(i for i, line in enumerate(printed) if line.startswith(f"  {name}: ")) + 2
        assert printed[start : start + len(warnings)] == [f"    {line}" for line in expected[1:]]
        assert (
            verdict < printed.index("  written: unilens-out/photo.png, .safetensors, .json") < start
        )


def test_a_terminal_without_the_symbols_shows_the_words(monkeypatch, photograph, tmp_path):
    monkeypatch.chdir(tmp_path)
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    arguments = ["--method", "ig:baseline=white", *FAST, "--model", f"py:{HERE}:small_model"]
    monkeypatch.setattr(sys, "argv", ["unilens", "explain", str(photograph), *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    stdout.flush()
    out = stdout.buffer.getvalue().decode("ascii")
    record = json.loads((tmp_path / "unilens-out" / "photo.json").read_text())
    levels = record["methods"]["ig:baseline=white"]["levels"]
    assert levels
    for level in levels.values():
        assert f"    ? {level}: " in out
