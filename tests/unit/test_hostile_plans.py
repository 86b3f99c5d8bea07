"""Plans and records are data: what they name is imported by a run that was allowed to, only."""

import functools
import json
import os
import sys

import pytest

from unilens._validation.imports import check_place
from unilens.benchmark import runner
from unilens.benchmark.plan import make_plan, read_plan, read_plan_file
from unilens.benchmark.recommend.measured import EarlierRun
from unilens.benchmark.report.page import write_report
from unilens.benchmark.store import MANIFEST, Store
from unilens.errors import UnilensError
from unilens.manifold import as_manifold, check_manifold_name
from unilens.methods import methods
from unilens.metrics import metrics
from unilens.models import load_model

EVIL = "unilens_evil"
NAME = f"py:{EVIL}:make"
CODE = (
    "import pathlib\npathlib.Path('ran').touch()\ndef make():\n    pathlib.Path('called').touch()\n"
)
TANGENT = f"baseline=tangent_aligned,manifold={NAME}"
PLANS = {
    "model": f'models = ["{NAME}"]',
    "second model": f'models = ["efficientnet_lite0", "{NAME}"]',
    "metric": f'metrics = ["tangent_alignment:manifold={NAME}"]',
    "metric with more settings": f'metrics = ["deletion_auc", "tangent_alignment:manifold={NAME}"]',
    "baseline of a method": f'methods = ["ig:{TANGENT}"]',
    "baseline of uni": f'methods = ["expected_gradients", "ig:n_steps=2,{TANGENT}"]',
    "shared setting": 'methods = ["ig:baseline=tangent_aligned"]\n'
    f'settings = {{ manifold = "{NAME}" }}',
    "JSON in a setting": f"methods = ['ig:baseline=tangent_aligned,manifold=\"{NAME}\"']",
}
whole = pytest.mark.parametrize("text", PLANS.values(), ids=PLANS)
METRICS = ["tangent_alignment", "deletion_auc"]


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A folder with a module that leaves a file where it is imported, on the search path."""
    (tmp_path / f"{EVIL}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, EVIL, raising=False)
    return tmp_path


def ran(folder):
    return (folder / "ran").exists() or EVIL in sys.modules


@whole
def test_reading_a_plan_imports_nothing_and_says_what_running_it_would(evil, text):
    plan = read_plan(text)
    assert plan.code == (NAME,)
    assert plan.built_metrics
    assert make_plan(plan.model_dump(mode="json")).code == (NAME,)
    assert not ran(evil)


@whole
def test_running_a_plan_with_code_is_refused_in_one_line(evil, text):
    with pytest.raises(UnilensError, match=rf"runs {NAME}; allow it only if") as error:
        runner.run(read_plan(text), evil / "run")
    assert "\n" not in str(error.value)
    assert "--allow-code" in str(error.value)
    assert not ran(evil)
    assert not (evil / "run").exists()


@whole
def test_command_refuses_the_code_of_a_plan_and_a_dry_run_imports_none(evil, command, text):
    (evil / "plan.toml").write_text(text)
    code, out, err = command("benchmark", "plan.toml", "--out", "run")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert NAME in err
    code, out, err = command("benchmark", "plan.toml", "--dry-run")
    assert (code, err) == (0, "")
    assert f"running it imports {NAME}: needs --allow-code" in out
    assert not ran(evil)
    assert not (evil / "run").exists()


@pytest.mark.parametrize("allowed", ["--allow-code", f"--model={NAME}"])
def test_command_imports_what_was_allowed_or_typed(evil, command, allowed):
    (evil / "plan.toml").write_text(f'models = ["{NAME}"]')
    code, out, err = command("benchmark", "plan.toml", allowed, "--out", "run")
    assert (evil / "called").exists()
    assert (f"imports {NAME}" in out) == (allowed == "--allow-code")
    assert (code, err.count("\n")) == (2, 1)
    assert "to return a torch.nn.Module, got NoneType" in err


@pytest.mark.parametrize(
    "typed",
    [
        f"--model={NAME}x",
        f"--model={NAME[:-1]}",
        f"--model=x{NAME}",
        f"--set=layer={NAME} ",
        "--model=efficientnet_lite0",
    ],
)
def test_another_name_that_was_typed_does_not_allow_that_of_the_plan(evil, command, typed):
    (evil / "plan.toml").write_text(PLANS["metric"] + '\nmethods = ["gradcam"]')
    code, _, err = command("benchmark", "plan.toml", typed, "--out", "run")
    assert code == 2
    assert f"runs {NAME}" in err or "layer" in err or "unknown kind of model" in err
    assert not ran(evil)


def test_a_manifold_of_a_plan_is_made_before_any_image(evil):
    plan = read_plan(PLANS["metric"])
    with pytest.raises(UnilensError, match="to return a manifold, got NoneType"):
        runner.run(plan, evil / "run", allow_code=True)
    assert not (evil / "run").exists()


def test_report_imports_nothing_that_a_record_names(evil, make_run):
    plan = {"models": [NAME], "methods": ["uni", f"ig:{TANGENT}"]}
    store = make_run(images=2, pictures=0, metrics=METRICS, **plan)
    manifest = json.loads((store.folder / MANIFEST).read_text())
    manifest["plan"]["metrics"][0] = f"tangent_alignment:manifold={NAME}"
    (store.folder / MANIFEST).write_text(json.dumps(manifest))
    store = Store(store.folder)
    assert store.plan.code == (NAME,)
    write_report(store, evil / "report")
    assert NAME in (evil / "report" / "report.html").read_text()
    assert not ran(evil)


def test_rows_of_an_earlier_run_are_taken_without_its_code(evil, make_run):
    folder = make_run(images=1, models=[NAME], metrics=METRICS, methods=[f"ig:{TANGENT}"]).folder
    same = {"seed": 0, "dtype": "float32", "random_weights": False, "methods": {}, "metrics": {}}
    assert EarlierRun(folder, model=NAME, **same).rows("photo000.png") == []
    assert not ran(evil)


BUILDERS = {
    "metric": functools.partial(metrics["tangent_alignment"], manifold=NAME),
    "method": functools.partial(methods["ig"], baseline="tangent_aligned", manifold=NAME),
    "name": functools.partial(check_manifold_name, NAME),
}


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_building_a_component_imports_nothing(evil, build):
    build()
    assert not ran(evil)


PLACES = [
    *("", ":", "os", "os:", ":system", "os.system", "os:system:x", "os:system()", "os:system;x"),
    *("os :system", " os:system", "os:system ", "os:sys tem", "os:system\n", "os\n:system"),
    *("../evil:make", "/tmp/evil:make", ".evil:make", "evil.:make", "evil..x:make", "evil:.make"),
    *("1evil:make", "evil:1make", "evil:make.", "evil-x:make", "os:sys\0tem", "os:__import__('x')"),
    *("http://x:make", "py:os:system", "os:system[0]", "evil:make=1", "evil:lambda: 1"),
]


@pytest.mark.parametrize("place", PLACES)
def test_places_that_no_import_has_are_refused_before_one(place):
    for check in (check_place, lambda given: load_model(f"py:{given}")):
        with pytest.raises(UnilensError, match=r"expected py:package\.module:function, got py:"):
            check(place)
    with pytest.raises(UnilensError, match=r"expected py:package\.module:function, got py:"):
        as_manifold(f"py:{place}")


@pytest.mark.parametrize(
    "name",
    [
        *("hub:a/b", "torch.hub:a", "PY:os:system", " py:os:system", "exec:os", "file:weights.pt"),
        *("pickle:x", "timm:hf-hub:a/b", "timm:local-dir:x", "timm:../x", "torchvision:../x"),
        *(
            "torchvision:get_model",
            "torchvision:os",
            "truth:../x",
            "timm:",
            "torchvision:",
            "truth:",
        ),
    ],
)
def test_no_other_name_of_a_model_reaches_code(name):
    with pytest.raises(UnilensError, match="unknown") as error:
        load_model(name)
    assert "\n" not in str(error.value)


DEEP = "[" * 20_000 + "]" * 20_000
TEXTS = {
    "deep list": f"seed = {DEEP}",
    "deep list in settings": f"settings = {{ n_steps = {DEEP} }}",
    "deep table": "[" + ".".join(["a"] * 5_000) + "]",
    "deep inline table": "seed = " + "{a = " * 5_000 + "1" + "}" * 5_000,
    "huge number": "seed = " + "9" * 10_000,
    "huge number in settings": "settings = { n_steps = " + "9" * 4_000 + " }",
    "number beyond 64 bits": "seed = 18446744073709551616",
    "limit beyond 64 bits": "[data]\nlimit = -18446744073709551616",
    "infinity": "seed = inf",
    "NaN": "seed = nan",
    "NaN in a method": 'methods = ["ig:n_steps=NaN"]',
    "infinity in a method": 'methods = ["ig:n_steps=Infinity"]',
    "huge number in a method": f'methods = ["ig:n_steps={"9" * 5_000}"]',
    "deep list in a method": f'methods = ["ig:n_steps={DEEP}"]',
    "date": "seed = 2026-01-01",
    "key twice": "seed = 1\nseed = 2",
    "table twice": "[data]\n[data]",
    "NUL": "models = ['a\0b']",
    "NUL in a folder": '[data]\nsource = "a\\u0000b"',
    "wrong types": "models = { a = 1 }",
    "a list of lists": "models = [[]]",
    "a list as data": "data = [1]",
    "a text as engine": 'engine = "ray"',
    "true as a number": "seed = 'true'",
    "a long name": f'models = ["{"m" * 100_000}"]',
    "a long key": f"{'k' * 100_000} = 1",
    "terminal escapes": 'models = ["\\u001b[31mred"]',
    "line breaks in a name": 'models = ["a\\nb"]',
    "line breaks in a key": '"a\\nb" = 1',
    "line breaks in a method": 'methods = ["ig:a\\nb=1"]',
    "bidirectional marks": 'methods = ["ig\\u202e"]',
    "upwards": 'models = ["../../etc/passwd"]',
    "a half character": 'models = ["\\ud800"]',
    "other brackets": "models = [",
    "HTML": 'methods = ["<script>alert(1)</script>"]',
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_odd_plans_are_refused_in_one_short_line(text):
    with pytest.raises(UnilensError) as error:
        read_plan(text)
    assert len(str(error.value).splitlines()) == 1
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1500


@pytest.mark.parametrize("kind", ["fifo", "folder", "loop", "device", "large", "binary"])
def test_other_things_than_plans_are_refused_and_do_not_hang(tmp_path, kind):
    path = tmp_path / "plan.toml"
    make = {
        "fifo": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "loop": lambda: path.symlink_to(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "large": lambda: (path.touch(), os.truncate(path, 100 * 2**20)),
        "binary": lambda: path.write_bytes(bytes(range(256))),
    }
    make[kind]()
    with pytest.raises(UnilensError, match="could not read the plan") as error:
        read_plan_file(path)
    assert "\n" not in str(error.value)
