"""Edited manifests and plans, replaced photographs, full disks: one line, and no row is lost."""

import contextlib
import errno
import functools
import json
import os
import time

import pytest
from PIL import Image
from pyarrow import parquet

from unilens import UnilensError
from unilens._ops import files
from unilens.benchmark import runner
from unilens.benchmark import store as store_module
from unilens.benchmark.plan import make_plan, read_plan, read_plan_file
from unilens.benchmark.report.comparison import write_comparison
from unilens.benchmark.report.page import write_report
from unilens.benchmark.row_index import RowIndex
from unilens.benchmark.store import LOCK, LOG, MANIFEST, Store, folder_lock

from .watched_runs import plan_of, write_model

run = functools.partial(runner.run, allow_code=True)
DEEP = json.loads("[" * 200 + "]" * 200)


def one_line(error):
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 2000
    return message


def key(*path, value):
    """Return an edit that sets an entry of the manifest."""

    def edit(manifest):
        place = manifest
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value

    return edit


EDITS = {
    **{
        f"{name}: {value!r:.30}": key(name, value=value)
        for name in ("schema", "images", "plan", "sessions")
        for value in (None, "x", -1, 1.5, 10**400, [1], [[]], {"a": 1}, True, DEEP, {"..": DEEP})
    },
    **{
        f"plan.{name}: {value!r:.30}": key("plan", name, value=value)
        for name, values in {
            "models": ("x", [], [1], ["../../x"], ["a\0b"], [None], ["x" * 100_000], [["a"]]),
            "methods": ("ig", [], ["../ig"], ["ig:n_steps=" + "9" * 5000], ["ig\n"], [{}]),
            "metrics": ("x", [], ["road\0"], [["road"]], [1e308]),
            "seed": (-1, 2**63, 10**400, 1.5, "x", None, [], float("nan"), float("inf")),
            "device": (1, None, [], {}),
            "dtype": ("float16", 1, None, "../"),
            "target": ("", 1, None, []),
            "pictures": (-1, "x", 1.5, float("inf")),
            "settings": ("x", [1], {"a": DEEP}, {"n_steps": {"a": 1}}, {"n_steps": None}),
            "data": ("x", [], {"source": ""}, {"source": 1}, {"limit": 0}, {"clean": False}),
            "engine": ("x", {"name": "../"}, {"workers": 0}, {"workers": 10**9}, {"gpus": -1}),
            "more": (1, "../", DEEP),
            "../../etc": (1,),
        }.items()
        for value in values
    },
}
EDITS.pop("images: True", None)


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_edited_manifest_is_one_line(make_run, edit):
    store = make_run(rows=[])
    path = store.folder / MANIFEST
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(UnilensError) as raised:
        Store(store.folder).plan  # noqa: B018 - read
    one_line(raised)


TEXTS = {
    "empty": b"",
    "no JSON": b"{",
    "list": b"[]",
    "text": b'"manifest"',
    "number": b"1",
    "huge number": b'{"schema": 1' + b"0" * 5000 + b"}",
    "deep list": b"[" * 100_000 + b"]" * 100_000,
    "deep mapping": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "no text": b"\xff\xfe\x00",
    "zeros": bytes(5000),
    "escapes": b'{"schema": "\x1b[31m"}',
    "two": b"{} {}",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_manifest_that_is_none_is_one_line(tmp_path, text):
    (tmp_path / MANIFEST).write_bytes(text)
    with pytest.raises(UnilensError, match=r"manifest\.json") as raised:
        Store(tmp_path)
    one_line(raised)


PLACES = {
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to a folder": lambda path: path.symlink_to("/"),
}


@pytest.mark.parametrize("make", PLACES.values(), ids=PLACES)
def test_something_else_in_place_of_the_manifest_is_one_line(tmp_path, make):
    make(tmp_path / MANIFEST)
    with pytest.raises(UnilensError, match="expected the folder of a run") as raised:
        Store(tmp_path)
    one_line(raised)


@pytest.mark.parametrize("name", [LOCK, LOG, "rows"])
@pytest.mark.parametrize("kind", ["link", "folder", "file"])
def test_run_writes_through_no_link(place, tmp_path, name, kind):
    plan = plan_of(write_model(place))
    Store.create(place / "run", plan, 6)
    outside, inside = tmp_path / "outside", place / "run" / name
    outside.write_text("mine")
    if inside.is_dir():
        inside.rmdir()
    {"link": lambda: inside.symlink_to(outside), "folder": inside.mkdir, "file": inside.touch}[
        kind
    ]()
    with contextlib.suppress(UnilensError):
        run(plan, place / "run")
    assert outside.read_text() == "mine"


PLANS = {
    "huge number": "seed = 1" + "0" * 400,
    "number of 5000 digits": "seed = " + "9" * 5000,
    "not a number": "seed = nan",
    "no end": "seed = inf",
    "deep list": "methods = " + "[" * 5000 + "]" * 5000,
    "deep setting": "[settings]\na = " + "[" * 90 + "]" * 90,
    "deep table": "[" + ".".join("a" * 3000) + "]\nb = 1",
    "another type": 'methods = "ig"',
    "table in place of a list": "[methods]\na = 1",
    "path": 'models = ["../../etc/passwd"]',
    "path as a preset": 'methods = ["../ig"]',
    "null": 'models = ["a\\u0000b"]',
    "long": f'models = ["{"x" * 100_000}"]',
    "line break": 'methods = ["ig\\nerror: x"]',
    "escape": 'metrics = ["\\u001b[31m"]',
    "direction": 'metrics = ["\\u202e"]',
    "workers": "[engine]\nworkers = 1000000000",
    "cores": "[engine]\nworkers = 1\ncpus = 1000000000000",
    "share": '[engine]\nname = "ray"\ngpus = nan',
    "limit": "[data]\nlimit = -1",
    "severity": '[[data.corruptions]]\nname = "contrast"\nseverity = 99999999999999999999',
    "corruption": '[[data.corruptions]]\nname = "../contrast"\nseverity = 1',
    "date": "seed = 2026-01-01",
    "key twice": "seed = 1\nseed = 2",
    "dotted": "seed.a = 1",
    "key": '"../../x" = 1',
    "key with an escape": '"\\u001b[31m" = 1',
    "no TOML": "<html>",
    "many": "metrics = [" + '"road",' * 50_000 + "]",
}


@pytest.mark.parametrize("text", PLANS.values(), ids=PLANS)
def test_hostile_plan_is_one_line(text):
    with pytest.raises(UnilensError) as raised:
        read_plan(text)
    one_line(raised)


@pytest.mark.parametrize("name", ["../missing.toml", "a\0b", "x" * 5000, ".", "/"])
def test_plan_file_that_is_none_is_one_line(name, tmp_path):
    with pytest.raises(UnilensError) as raised:
        read_plan_file(tmp_path / name)
    assert len(str(raised.value).splitlines()) == 1


def test_rows_of_another_plan_are_no_rows_of_the_report(make_run, tmp_path):
    def foreign(rows):
        for number, row in enumerate(rows[::4]):
            row["method"], row["metric"], row["model"] = f"else {number}", "other", "m"

    store = make_run(change=foreign)
    write_report(store, tmp_path / "report")
    assert "else 1" not in (tmp_path / "report" / "report.html").read_text()
    write_comparison(store, make_run(name="b"), tmp_path / "both")


def test_replaced_photograph_is_noticed_and_not_mixed(place):
    module = write_model(place)
    some = plan_of(module).model_copy(update={"methods": ("ig",)})
    run(some, place / "run")
    before = Store(place / "run").table().to_pylist()
    names = sorted((place / "photos").iterdir())
    kept = names[0].read_bytes()
    Image.new("RGB", (50, 40), (200, 30, 30)).save(names[0])
    outcome = run(plan_of(module), place / "run")
    assert outcome.failed == 2 * 2
    rows = Store(place / "run").table().to_pylist()
    assert [row for row in rows if row["method"] == "ig"] == before
    failed = [row for row in rows if row["status"] == "failed"]
    assert {row["image"] for row in failed} == {names[0].name}
    assert "as it was when the run began" in failed[0]["reason"]
    names[0].write_bytes(kept)
    assert run(plan_of(module), place / "run", retry_failed=True).failed == 0


def test_index_knows_the_contents_of_units():
    index = RowIndex()
    assert index.add(("a", "", 0, "m"), "ig", "road")
    assert not index.add(("a", "", 0, "m"), "ig", "road")
    assert index.add(("a", "", 0, "m"), "ig", "other")


def test_clock_that_jumps_back_loses_no_row(place, monkeypatch):
    clock = iter(range(2_000_000_000, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: next(clock))
    plan = plan_of(write_model(place))
    assert run(plan, place / "run").written == 36
    assert run(plan, place / "run").written == 0


def full(*arguments, **settings):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


STEPS = {
    "folder": ("pathlib.Path.mkdir", full),
    "rows": ("pyarrow.parquet.write_table", full),
    "to the disk": ("os.fsync", full),
    "rename": ("pathlib.Path.replace", full),
    "lock": ("filelock.FileLock.acquire", full),
}


@pytest.mark.parametrize(("target", "fails"), STEPS.values(), ids=STEPS)
def test_full_disk_in_any_step_is_one_line_and_keeps_rows(place, monkeypatch, target, fails):
    module = write_model(place)
    some = plan_of(module).model_copy(update={"methods": ("ig",)})
    run(some, place / "run")
    digest = Store(place / "run").digest()
    with monkeypatch.context() as patched:
        patched.setattr(target, fails)
        with pytest.raises(UnilensError, match="No space left") as raised:
            run(plan_of(module), place / "run")
        one_line(raised)
    assert Store(place / "run").digest() == digest
    assert run(plan_of(module), place / "run").failed == 0
    assert len(Store(place / "run").table()) == 36


def test_log_that_cannot_be_written_stops_no_run(place, monkeypatch, capsys):
    monkeypatch.setattr("unilens.benchmark.runner._LogFile.flush", full, raising=False)
    assert run(plan_of(write_model(place)), place / "run").written == 36
    assert "Logging error" not in capsys.readouterr().err


def test_report_on_a_full_disk_is_one_line_and_keeps_the_old_one(make_run, monkeypatch):
    store = make_run()
    write_report(store, store.folder / "report")
    old = (store.folder / "report" / "summary.csv").read_bytes()
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UnilensError, match="No space left") as raised:
        write_report(store, store.folder / "report")
    one_line(raised)
    assert (store.folder / "report" / "summary.csv").read_bytes() == old
    assert not [path for path in (store.folder / "report").iterdir() if path.name[0] == "."]


def test_second_run_in_a_folder_is_refused_and_harms_nothing(place):
    plan = plan_of(write_model(place))
    with folder_lock(place / "run"), pytest.raises(UnilensError, match="another process") as raised:
        run(plan, place / "run")
    one_line(raised)
    assert run(plan, place / "run").written == 36


def test_failed_rows_are_forgotten_whole_or_not_at_all(tmp_path, monkeypatch):
    plan = make_plan({"methods": ["ig"], "metrics": ["road"]})
    made = Store.create(tmp_path, plan)
    row = {"image": "a", "corruption": "", "severity": 0, "model": "m", "method": "ig"}
    rest = {**row, "metric": "x", "status": "ok"}
    made.append([{**row, "metric": "road", "status": "failed"}, rest])
    monkeypatch.setattr(store_module.parquet, "write_table", full)
    with pytest.raises(UnilensError, match="No space left"):
        made.forget_failed()
    (shard,) = made.shards
    assert parquet.read_metadata(shard).num_rows == 2
