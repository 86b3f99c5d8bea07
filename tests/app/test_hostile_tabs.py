"""A visitor who means harm, in the tabs of tables and series, over HTTP."""

import contextlib
import json
import types
import uuid

import pytest

from . import tab_models
from .conftest import serving
from .test_hostile import Visitor

HONEST = tab_models.people(12).to_csv(index=False).encode()
SIGNALS = tab_models.signals().to_csv(index=False).encode()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile-tabs")
    options = ["--table-model", "py:tab_models:table", "--series-model", "py:tab_models:series"]
    log = folder / "log.txt"
    with serving(log, *options) as address:
        process = types.SimpleNamespace(poll=lambda: None)
        with contextlib.closing(Visitor(process, address.rstrip("/"), folder)) as visitor:
            yield visitor
        assert "a request has failed" not in log.read_text()


def refused(message):
    assert not message["success"], message
    said = message["output"]["error"] or ""
    assert len(said.splitlines()) <= 1
    for bad in ("Traceback", "unexpected error", " object at 0x", "/tmp/", "root:"):
        assert bad not in said
    return said


def table_form(file, rows="0", target=-1, method="occlusion", seed=0):
    return [file, rows, target, method, seed]


def series_form(file, times="time", target=-1, step=0, output=0, method="ig", seed=0):
    return [file, times, target, step, output, method, seed]


def test_honest_files_are_explained(hostile):
    for key, form in (
        ("table", table_form(hostile.upload(HONEST, "a.csv"))),
        ("series", series_form(hostile.upload(SIGNALS, "a.csv"))),
    ):
        message = hostile.join((f"ul-{key}-explain", "click"), form)
        assert message["success"], message


@pytest.mark.parametrize("key", ["table", "series"])
@pytest.mark.parametrize(
    "path",
    [
        *("/etc/passwd", "../../etc/passwd", "a.csv", "", "a\0b.csv", "/etc", "x" * 9000 + ".csv"),
        *("http://127.0.0.1:1/x.csv", "file:///etc/passwd", "/dev/zero", "/proc/self/environ"),
    ],
)
def test_no_other_file_is_read(hostile, key, path):
    file = {"path": path, "orig_name": "a.csv", "meta": {"_type": "gradio.FileData"}}
    make = {"table": table_form, "series": series_form}[key]
    refused(hostile.join((f"ul-{key}-explain", "click"), make(file)))
    refused(hostile.join((f"ul-{key}-file", "change"), [file]))


@pytest.mark.parametrize("file", [3, "x", [], {}, {"url": "http://127.0.0.1:1/x"}, [[1]], True])
def test_files_that_are_none(hostile, file):
    refused(hostile.join(("ul-table-explain", "click"), table_form(file)))
    refused(hostile.join(("ul-series-explain", "click"), series_form(file)))


@pytest.mark.parametrize(
    "change",
    [
        *({"rows": "0-999999999"}, {"rows": "3-2"}, {"rows": {}}, {"rows": "0," * 200}),
        *({"target": 99}, {"target": "x"}, {"target": [1]}, {"target": 1e300}, {"target": -2}),
        *({"method": "ig"}, {"method": "x" * 10_000}, {"method": {"a": 1}}, {"method": 3}),
        *({"seed": -1}, {"seed": 1.5}, {"seed": "a"}, {"seed": 2**80}),
    ],
)
def test_forms_of_tables_that_are_none(hostile, change):
    file = hostile.upload(HONEST, "a.csv")
    assert refused(hostile.join(("ul-table-explain", "click"), table_form(file, **change)))


@pytest.mark.parametrize(
    "change",
    [
        *({"times": "nobody"}, {"times": 3}, {"times": ["time"]}, {"times": "x" * 2000}),
        *({"step": 4}, {"step": -1}, {"step": "a"}, {"step": [0]}, {"output": 2}, {"output": 1e9}),
        *({"method": "edges"}, {"method": "/etc/passwd"}, {"seed": -1}),
    ],
)
def test_forms_of_series_that_are_none(hostile, change):
    file = hostile.upload(SIGNALS, "a.csv")
    assert refused(hostile.join(("ul-series-explain", "click"), series_form(file, **change)))


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (("ul-table-prepare", "click"), [["/etc/passwd", {}]]),
        (("ul-series-prepare", "click"), [["/etc/passwd", {}]]),
        (("ul-table-shown", "input"), [["/etc/passwd", {}], 0]),
    ],
)
def test_what_is_in_a_tab_cannot_be_forged(hostile, event, data):
    assert "press Explain first" in refused(hostile.join(event, data, uuid.uuid4().hex))


@pytest.mark.parametrize("row", [-1, 1, 10**9, "a", None, [0], 0.5])
def test_rows_that_are_not_shown(hostile, row):
    file = hostile.upload(HONEST, "a.csv")
    assert hostile.join(("ul-table-explain", "click"), table_form(file))["success"]
    refused(hostile.join(("ul-table-shown", "input"), [None, row]))


@pytest.mark.parametrize(
    "name", ["../../x.csv", "/etc/passwd.csv", "<script>alert(1)</script>.csv", "x" * 250 + ".csv"]
)
def test_names_of_files(hostile, name):
    file = hostile.upload(HONEST, name)
    message = hostile.join(("ul-table-explain", "click"), table_form(file))
    assert "<script" not in json.dumps(message)
    if message["success"]:
        written = hostile.join(("ul-table-prepare", "click"), [None])
        assert written["success"]
        assert "<script" not in json.dumps(written)
