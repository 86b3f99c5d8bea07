"""The paper's tables as plans, what they need, and their figures beside those of a run."""

import csv
import statistics

import numpy
import pytest
import torch
from PIL import Image

from unilens.benchmark import reproduction
from unilens.benchmark.data import open_source
from unilens.benchmark.report.reproduction import write_comparisons
from unilens.benchmark.reproduction import needs_of, plan_of_table
from unilens.benchmark.rows import OK
from unilens.benchmark.store import Store
from unilens.errors import UnilensError
from unilens.methods import methods

NETWORKS = ["resnet18", "efficientnet_v2_s", "convnext_tiny", "vgg16_bn", "vit_b_16", "swin_t"]


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        values = numpy.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=numpy.uint8)
        Image.fromarray(values).save(folder / f"{number}.png")
    (folder / "labels.csv").write_text("file,label\n0.png,3\n1.png,4\n")
    return str(folder)


@pytest.mark.parametrize(
    ("table", "metrics", "named"),
    [
        (1, ["monotonicity"], "uni_paper ig blur_ig guided_ig"),
        (2, ["mu_fidelity_abs"], "uni_paper ig blur_ig guided_ig agi guided_backprop deeplift"),
        (3, ["deletion_auc"], "uni_paper ig blur_ig guided_ig agi guided_backprop deeplift"),
        (4, ["insertion_auc"], "uni_paper ig blur_ig guided_ig agi guided_backprop deeplift"),
        (5, ["fgsm_spearman"], "uni_paper ig blur_ig gradient deeplift"),
        (6, ["fgsm_top_k"], "uni_paper ig blur_ig gradient deeplift"),
        (7, ["confidence_change"], "uni_paper"),
    ],
)
def test_plan_of_a_table(photos, table, metrics, named):
    plan = plan_of_table(table, data={"source": photos})
    assert list(plan.metrics) == metrics
    assert sorted(plan.methods) == sorted(named.split())
    assert list(plan.models) == [f"torchvision:{name}" for name in NETWORKS]


def test_plan_of_a_table_takes_some_networks(photos):
    plan = plan_of_table(2, models=["swin_t", "torchvision:resnet18"], data={"source": photos})
    assert list(plan.models) == ["torchvision:swin_t", "torchvision:resnet18"]
    with pytest.raises(UnilensError, match=r"one of the paper's networks, .*, got 'resnet50'"):
        plan_of_table(2, models=["resnet50"], data={"source": photos})
    with pytest.raises(UnilensError, match="expected --table 1 to 7, got 8"):
        plan_of_table(8, data={"source": photos})


def test_needs_follow_the_declared_passes(photos, monkeypatch, tmp_path):
    monkeypatch.setattr(reproduction, "seconds_per_pass", lambda *_: (1.0, 3.0))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    data = {"source": photos, "limit": 2}
    plan = plan_of_table(3, models=["resnet18"], data=data)
    needs = needs_of(plan)
    passes = [methods[name]().passes for name in plan.methods]
    maps = sum(own.forward + 2 * own.backward for own in passes)
    deletion = 7 * (1 + 10)  # of each map: the photograph, and ten tenths of its pixels removed
    assert needs.seconds["torchvision:resnet18"] == pytest.approx(2 * (maps + deletion))
    labelled = sum(item.label is not None for item in open_source(photos, limit=2))
    assert (needs.photographs, needs.labelled, needs.rows) == (2, labelled, 14)
    assert needs.downloads == {"torchvision:resnet18": pytest.approx(44.66 * 2**20, rel=1e-3)}
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet18-f37072fd.pth").touch()
    assert needs_of(plan).downloads == {}


def test_timed_passes_are_positive(photos):
    classifier = reproduction.load_model("torchvision:resnet18", pretrained=False)
    inputs = torch.zeros(1, 3, 32, 32)
    forward, both = reproduction.seconds_per_pass(reproduction.Evaluator(classifier), inputs)
    assert 0 < forward < 60
    assert 0 < both < 60


@pytest.fixture
def filled(photos, tmp_path):
    """Return a function that fills the folder of a run with made-up values, and its plan."""

    def filled(random_weights=False):
        plan = plan_of_table(
            2,
            models=["resnet18", "swin_t"],
            data={"source": photos, "limit": 10_000},
            random_weights=random_weights,
        )
        store = Store.create(tmp_path / "run", plan, 3)
        shared = {"corruption": "", "severity": 0, "metric": "mu_fidelity_abs", "status": OK}
        shared |= {"metric_settings": "{}", "method_settings": "{}", "seed": 0}
        rows = [
            shared
            | {"image": f"{n}.png", "model": model, "method": method, "value": value(n, method)}
            for model in plan.models
            for method in plan.methods
            for n in range(3)
        ]
        store.append(rows)
        return store

    def value(number, method):
        return 0.1 * number + 0.01 * len(method)

    filled.value = value
    return filled


def test_comparison_has_the_papers_figures_beside_the_runs(filled, tmp_path):
    store = filled()
    compared, path = write_comparisons(store, tmp_path / "compared", 2, "1.2")
    assert len(compared) == 2 * 7
    with path.with_suffix(".csv").open() as file:
        rows = {(row["model"], row["method"]): row for row in csv.DictReader(file)}
    row = rows["torchvision:resnet18", "uni_paper"]
    values = [filled.value(number, "uni_paper") for number in range(3)]
    assert (row["paper_mean"], row["paper_sd"], row["n"]) == ("0.12", "0.124", "3")
    assert float(row["mean"]) == pytest.approx(statistics.fmean(values))
    assert float(row["sd"]) == pytest.approx(statistics.stdev(values))
    assert rows["torchvision:swin_t", "agi"]["paper_mean"] == "0.13"
    latex = path.with_suffix(".tex").read_text()
    assert r"uni\_paper & $0.120$ / $0.190$ & $0.130$ / $0.190$ \\" in latex
    assert "3 photographs)" in latex
    assert "version = {1.2}" in path.with_suffix(".bib").read_text()
    assert "2410.08069" in path.with_suffix(".bib").read_text()
    _, second = write_comparisons(store, tmp_path / "compared", 2, "1.2")
    assert (path.name, second.name) == ("table-2", "table-2-2")


def test_comparison_of_random_weights_says_so_everywhere(filled, tmp_path):
    _, path = write_comparisons(filled(random_weights=True), tmp_path / "compared", 2, "1.2")
    assert "random weights: a trial, not a result" in path.with_suffix(".tex").read_text()
    with path.with_suffix(".csv").open() as file:
        assert {row["random_weights"] for row in csv.DictReader(file)} == {"true"}


def test_reproduce_prints_needs_then_both_figures(filled, photos, run, monkeypatch, tmp_path):
    filled(random_weights=True)
    monkeypatch.setattr(reproduction, "seconds_per_pass", lambda *_: (0.01, 0.03))
    options = ("--table", 2, "--data", photos, "--model", "resnet18,swin_t", "--random-weights")
    code, printed, complained = run("reproduce", *options, "--out", tmp_path / "run", "--latex")
    assert (code, complained) == (0, "")
    needs, figures = printed.split("mu_fidelity_abs, torchvision:resnet18")
    for line in ("none needed", "random, nothing to download", "3 (the paper: 10000", "cores)"):
        assert line in needs
    assert "torchvision:resnet18, random weights" in printed
    assert "0.120 ± 0.124" in figures
    assert "0.190 ± 0.100" in figures
    assert "a trial of the command, not a result" in figures
    assert r"\begin{tabular}" in figures
    assert "@inproceedings" in figures


def test_reproduce_dry_run_computes_and_writes_nothing(photos, run, monkeypatch, tmp_path):
    monkeypatch.setattr(reproduction, "seconds_per_pass", lambda *_: (1.0, 3.0))
    options = ("--table", 7, "--data", photos, "--model", "resnet18", "--dry-run")
    code, printed, _ = run("reproduce", *options, "--out", tmp_path / "none")
    assert code == 0
    assert "Table 7 of Choi et al. 2025" in printed
    assert "resnet18" in printed
    assert not (tmp_path / "none").exists()
