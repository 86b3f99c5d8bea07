"""The race of methods on a model: what it names, what it refuses, its time and its rows."""

import json
import math
import shlex
import subprocess
import sys
from dataclasses import replace

import numpy
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import nn

import unilens
from unilens._engine.evaluator import PassCount
from unilens.benchmark.plan import make_plan
from unilens.benchmark.recommend import entry, recommend
from unilens.benchmark.recommend import measured as measured_rows
from unilens.benchmark.recommend import race as racing
from unilens.benchmark.recommend import run as calls
from unilens.benchmark.recommend.purposes import CONTROLS, RACED, STABILITY, candidates
from unilens.benchmark.recommend.verdicts import fewest
from unilens.benchmark.recommend.words import sentence, title
from unilens.benchmark.runner import run
from unilens.benchmark.store import Store
from unilens.benchmark.work import Workbench
from unilens.errors import UnilensError, UnknownNameError
from unilens.explainer import Method
from unilens.methods import methods
from unilens.registry import Card

SIDE, SQUARE, COUNT = 28, 6, 8
PLACES = ((2, 2), (2, 18), (18, 2), (18, 18))
READ = (18, 2)
RAISING = "raises"


class Saturated(nn.Module):
    """Two classes: whether the square at one place is bright; above 0.83, brighter is no more.

    Its gradient at a bright square is that of weights without any influence, everywhere else.
    """

    def __init__(self):
        super().__init__()
        mask = torch.zeros(3, SIDE, SIDE)
        top, left = READ
        mask[:, top : top + SQUARE, left : left + SQUARE] = 1
        drawn = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
        self.read = nn.Parameter(mask / mask.sum())
        self.ignored = nn.Parameter(1e-6 * drawn * (1 - mask))

    def forward(self, images):
        bright = (images * self.read).sum((1, 2, 3))
        logit = 12 * (1 - torch.relu(1 - 1.2 * bright)) + (images * self.ignored).sum((1, 2, 3))
        return torch.stack([torch.full_like(logit, 6), logit], dim=1)


def squares(count, seed=0):
    """Return dark images, each with four bright squares."""
    drawn = torch.Generator().manual_seed(seed)
    images = 0.1 * torch.rand(count, 3, SIDE, SIDE, generator=drawn)
    for top, left in PLACES:
        bright = 0.8 + 0.2 * torch.rand(count, 3, SQUARE, SQUARE, generator=drawn)
        images[:, :, top : top + SQUARE, left : left + SQUARE] = bright
    return images


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Return a folder of photographs; `py:squares_model:model` reads one square of each."""
    code = (
        "from tests.unit.test_recommend import SIDE, Saturated\n"
        "from unilens.models import PixelClassifier, Preprocessing\n"
        "def model():\n"
        "    size = Preprocessing((SIDE, SIDE), SIDE, (0.0,) * 3, (1.0,) * 3)\n"
        "    return PixelClassifier(Saturated().eval(), size, ('dark', 'bright'))\n"
    )
    (tmp_path / "squares_model.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "squares_model", raising=False)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, image in enumerate(squares(COUNT)):
        pixels = (255 * image.permute(1, 2, 0)).byte().numpy()
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


MODEL = "py:squares_model:model"
FEW = ["ig:n_steps=15", "gradient"]


def values_of(folder):
    rows = Store(folder).table().to_pylist()
    return {(row["image"], row["method"], row["metric"]): row["value"] for row in rows}


def test_names_the_method_that_is_best_by_construction():
    found = unilens.recommend(Saturated().eval(), squares(10), methods=FEW, minutes=60)
    assert found.best("region") == found.best("ranking") == "ig:n_steps=15"
    assert found.verdicts["region"].worse == ("gradient",)
    assert found.verdicts["region"].probability == 1
    assert found.best("cost") == "ig:n_steps=15"  # the gradient is cheaper, and worse
    assert "Significantly worse: gradient." in sentence(found.verdicts["region"], 0)
    table = {row["method"]: row for row in found.table}
    assert table["gradient"]["seconds"] < table["ig:n_steps=15"]["seconds"]
    assert table["ig:n_steps=15"]["region"] > table["edges"]["region"] > 0
    assert list(table)[-2:] == list(CONTROLS)


@pytest.mark.slow
def test_tests_are_those_of_the_rows(photos, tmp_path):
    found = recommend(MODEL, photos, methods=FEW, minutes=60, folder=tmp_path / "run")
    values = values_of(tmp_path / "run")
    images = sorted({image for image, _, _ in values})
    insertion, deletion = RACED[0].metrics

    def region(method):
        return numpy.array(
            [values[i, method, insertion] - values[i, method, deletion] for i in images]
        )

    own, controls = region(FEW[0]), [region(name) for name in CONTROLS]
    best = max(controls, key=lambda control: control.mean())
    verdict = found.verdicts["region"]
    assert verdict.n == COUNT
    assert verdict.gain[0] == pytest.approx((own - best).mean(), abs=1e-12)
    p = max(stats.wilcoxon(own, other, alternative="greater").pvalue for other in controls)
    gradient = max(
        stats.wilcoxon(region("gradient"), other, alternative="greater").pvalue
        for other in controls
    )
    assert gradient > p
    assert verdict.p == pytest.approx(2 * p)  # Holm, of two


@pytest.mark.slow
def test_random_weights_are_not_to_be_trusted():
    torch.manual_seed(0)  # of the weights
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    found = recommend(
        "efficientnet_lite0",
        images,
        methods=["gradient"],
        random_weights=True,
        minutes=60,
    )
    assert {verdict.status for verdict in found.verdicts.values()} == {"none"}
    assert all(verdict.nothing for verdict in found.verdicts.values())
    assert "nothing to explain" in sentence(found.verdicts["ranking"], 2)
    assert title(found.verdicts["region"]) == "Find the region: no method is to be trusted here"


def test_what_does_not_beat_the_controls_is_not_recommended():
    found = recommend(Saturated().eval(), squares(8), methods=["gradient"], minutes=60)
    assert found.best("region") is None
    verdict = found.verdicts["region"]
    assert (verdict.status, verdict.leading, verdict.nothing) == ("none", "gradient", False)
    assert "gradient, is not significantly better than maps that ignore" in sentence(verdict, 0)
    assert found.verdicts["cost"].status == "none"


def test_two_photographs_are_too_few():
    found = recommend(Saturated().eval(), squares(2), methods=FEW, minutes=60)
    verdict = found.verdicts["region"]
    assert (verdict.status, verdict.n, verdict.needed) == ("undecided", 2, 6)
    assert sentence(verdict, 2).startswith("2 photographs are too few")
    assert verdict.leading == "ig:n_steps=15"
    assert repr(found).count("\n") == 0
    assert "undecided" in repr(found)


@pytest.mark.parametrize(("methods_", "n"), [(1, 5), (2, 6), (28, 10)])
def test_fewest_photographs_is_where_all_wins_are_significant(methods_, n):
    assert methods_ * stats.wilcoxon(range(1, n + 1), alternative="greater").pvalue < 0.05
    assert methods_ * stats.wilcoxon(range(1, n), alternative="greater").pvalue >= 0.05
    assert fewest(methods_) == n


class Raising(Method):
    passes = PassCount(1, 0)

    def _explain(self, context):
        raise RuntimeError("boom")


def test_methods_that_fail_or_do_not_fit_are_left_out(monkeypatch):
    monkeypatch.setattr(methods, "_entries", dict(methods._entries))
    methods.add(Card(RAISING, "test", "raises", "none"), Raising)
    found = recommend(
        Saturated().eval(), squares(6), methods=[RAISING, "rollout", "ig:n_steps=4"], minutes=60
    )
    assert "boom" in found.left_out[RAISING]
    assert "attention" in found.left_out["rollout"]
    assert found.best("region") == "ig:n_steps=4"
    assert found.verdicts["region"].needed == 5  # those left out do not count


def test_photographs_that_cannot_be_read_are_left_out(photos, tmp_path):
    (photos / "bad.png").write_bytes(b"no image")
    found = recommend(MODEL, photos, methods=FEW, minutes=60)
    assert list(found.broken) == ["bad.png"]
    assert found.verdicts["region"].n == COUNT


class Clock:
    """Time that passes by a second per map and its metrics, and nowhere else."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        rows = Workbench.rows

        def slowly(bench, unit):
            for batch in rows(bench, unit):
                self.now += 1.0
                yield batch

        monkeypatch.setattr(Workbench, "rows", slowly)
        monkeypatch.setattr(entry, "seconds_per_pass", lambda *_: (1e-9, 3e-9))
        for module in (racing, calls, measured_rows):
            monkeypatch.setattr(module, "time", self)

    def monotonic(self):
        return self.now


@pytest.mark.slow
def test_budget_is_held_and_used(monkeypatch):
    clock = Clock(monkeypatch)
    found = recommend(Saturated().eval(), squares(60), methods=FEW, minutes=1)
    assert 45 < clock.now <= 60
    assert 8 <= found.verdicts["region"].n < 60
    assert found.verdicts["stability"].n > 0
    assert found.seconds == clock.now


def test_too_small_a_budget_decides_nothing(monkeypatch):
    clock = Clock(monkeypatch)
    found = recommend(Saturated().eval(), squares(20), methods=FEW, minutes=0.05)
    assert clock.now <= 3
    assert {verdict.status for verdict in found.verdicts.values()} == {"undecided"}
    assert "too short" in sentence(found.verdicts["region"], 20)
    assert found.verdicts["region"].command == "unilens.recommend(model, images, minutes=0.1)"


@pytest.mark.slow
def test_methods_too_slow_for_the_budget_are_named(monkeypatch):
    monkeypatch.setattr(entry, "seconds_per_pass", lambda *_: (0.01, 0.03))
    found = recommend(
        Saturated().eval(), squares(12), methods=["gradient", "rise:n_masks=4000"], minutes=1
    )
    assert list(found.slow) == ["rise:n_masks=4000"]
    assert found.slow["rise:n_masks=4000"] == pytest.approx(40, rel=0.01)
    assert "rise:n_masks=4000" not in [row["method"] for row in found.table]


@pytest.mark.slow
def test_worse_half_leaves_the_race_early():
    names = ["ig:n_steps=15", "gradient", "gradient:score=logit", "smoothgrad:n_samples=2"]
    names += ["guided_backprop", "deconvolution"]
    found = recommend(Saturated().eval(), squares(16), methods=names, minutes=60)
    region, ranking = found.verdicts["region"], found.verdicts["ranking"]
    assert region.method == ranking.method == "ig:n_steps=15"
    assert len(region.behind) == len(ranking.behind) == 2  # six race, four are left
    assert (region.n, region.needed) == (12, 7)  # a quarter of the photographs chose the finalists
    assert not set(region.behind) & {region.method, *region.level, *region.worse}
    rows = {row["method"]: row["photographs"] for row in found.table}
    assert rows["ig:n_steps=15"] == rows["edges"] == 12
    assert {rows[name] for name in {*region.behind} & {*ranking.behind}} <= {4}
    assert "2 others left the race early" in sentence(region, 16)


@pytest.mark.slow
def test_interrupted_race_continues(photos, tmp_path):
    count = 0

    def interrupt(share, current):
        nonlocal count
        count += 1
        if count == 10:
            raise KeyboardInterrupt

    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        recommend(MODEL, photos, methods=FEW, minutes=60, folder=folder, on_progress=interrupt)
    kept = values_of(folder)
    assert len(kept) == 30  # ten maps by three metrics
    found = recommend(MODEL, photos, methods=FEW, minutes=60, folder=folder)
    assert found.known == 30
    assert kept.items() <= values_of(folder).items()
    whole = recommend(MODEL, photos, methods=FEW, minutes=60)
    assert replace(found.verdicts["ranking"], seconds=None, command="") == replace(
        whole.verdicts["ranking"], seconds=None, command=""
    )
    with pytest.raises(UnilensError, match="made by another plan"):
        recommend(MODEL, photos, methods=["ig:n_steps=4"], minutes=60, folder=folder)


def test_rows_of_a_benchmark_are_taken_by_their_settings(photos, tmp_path, monkeypatch):
    metrics = [*RACED[0].metrics, *RACED[1].metrics]
    settings = {"models": [MODEL], "methods": ["gradient:score=probability", *CONTROLS]}
    run(
        make_plan({**settings, "metrics": metrics, "data": {"source": str(photos)}}),
        tmp_path / "run",
        allow_code=True,
    )
    made = []
    rows = Workbench.rows

    def counted(bench, unit):
        made.extend((unit.item.key, name, metrics) for name, metrics in unit.missing.items())
        yield from rows(bench, unit)

    monkeypatch.setattr(Workbench, "rows", counted)
    found = recommend(
        MODEL,
        photos,
        methods=["gradient"],
        minutes=60,
        folder=tmp_path / "own",
        earlier=[tmp_path / "run"],
    )
    assert found.known == 3 * 3 * COUNT
    assert all(list(names) == list(STABILITY.metrics) for _, _, names in made)
    expected = {
        (image, method.partition(":")[0], metric): value
        for (image, method, metric), value in values_of(tmp_path / "run").items()
    }
    assert expected.items() <= values_of(tmp_path / "own").items()
    with pytest.raises(UnilensError, match="expected --from a run of"):
        recommend(MODEL, photos, methods=FEW, seed=1, minutes=60, earlier=[tmp_path / "run"])


def test_a_photograph_that_was_replaced_is_noticed(photos, tmp_path):
    folder = tmp_path / "run"
    recommend(MODEL, photos, methods=["gradient"], minutes=60, folder=folder)
    Image.new("RGB", (SIDE, SIDE), "red").save(photos / "3.png")
    with pytest.raises(UnilensError, match=r"3\.png as it was"):
        recommend(MODEL, photos, methods=["gradient"], minutes=60, folder=folder)


def test_the_model_is_not_changed():
    model = Saturated().double().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = recommend(model, squares(2).double(), methods=["ig:n_steps=4"], minutes=60)
    assert found.table[0]["region"] is not None
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with pytest.raises(UnilensError, match="eval mode"):
        recommend(model.train(), squares(2).double(), minutes=60)
    assert model.training


def test_every_method_races_but_the_controls():
    texts = candidates(224)
    assert {text.partition(":")[0] for text in texts} == set(methods) - set(CONTROLS)
    assert "occlusion:window=32,stride=32" in texts
    for text in texts:
        make_plan({"methods": [text]})  # the settings exist


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"minutes": 0}, "minutes above 0"),
        ({"minutes": math.nan}, "minutes above 0"),
        ({"methods": ["random"]}, "no controls"),
        ({"methods": ["uno"]}, "unknown method"),
        ({"folder": "run"}, "by name"),
        ({"methods": ["rollout"]}, "methods that fit the model, got none"),
        ({"images": torch.rand(3, 8)}, "shape"),
        ({"images": "samples"}, "PixelClassifier"),
    ],
)
def test_bad_arguments(arguments, message):
    call = {"model": Saturated().eval(), "images": squares(2), "minutes": 60} | arguments
    with pytest.raises(UnilensError, match=message):
        recommend(**call)


def test_best_of_an_unknown_purpose():
    found = recommend(Saturated().eval(), squares(2), methods=["gradient"], minutes=60)
    with pytest.raises(UnknownNameError, match="unknown purpose 'rank'"):
        found.best("rank")


@pytest.mark.slow
def test_what_is_missing_is_named_with_its_extra():
    code = (
        "import sys, unilens; sys.modules['pyarrow'] = None\n"
        "try:\n    unilens.recommend\n"
        "except ModuleNotFoundError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "unilens.benchmark needs pyarrow; run: pip install 'unilens[benchmark]'\n"


@pytest.mark.slow
def test_command_prints_verdicts_and_keeps_every_record(photos, tmp_path, monkeypatch, capsys):
    from unilens.cli.app import app

    monkeypatch.chdir(tmp_path)
    arguments = ["recommend", "--model", MODEL, "--data", str(photos), "--minutes", "60"]
    arguments += ["--methods", ",".join(FEW)]
    app(arguments, standalone_mode=False)
    printed = capsys.readouterr().out
    assert printed.startswith("Find the region: ig:n_steps=15. It beats the controls")
    command = next(line for line in printed.splitlines() if line.startswith("  unilens explain"))
    app(shlex.split(command)[1:], standalone_mode=False)  # the command to run next runs
    capsys.readouterr()
    app([*arguments, "--json"], standalone_mode=False)
    record = json.loads(capsys.readouterr().out)
    assert record["rows_known"] == len(values_of(tmp_path / "unilens-out" / "recommend-photos"))
    files = sorted(file.name for file in (tmp_path / "unilens-out").glob("recommend*/*.json"))
    assert files == ["manifest.json", "recommendation-2.json", "recommendation.json"]
    assert record["verdicts"]["region"]["method"] == "ig:n_steps=15"
