"""What is written stays, what is half written does not, and nobody writes beside another."""

import json
import os
import signal
import subprocess
import sys

import pyarrow
import pytest
from pyarrow import parquet

from unilens.benchmark.plan import make_plan
from unilens.benchmark.row_index import RowIndex
from unilens.benchmark.rows import KEY, SCHEMA
from unilens.benchmark.store import LOCK, MANIFEST, Store, folder_lock
from unilens.errors import UnilensError

PLAN = make_plan({"methods": ["ig", "gradient"], "metrics": ["mu_fidelity", "road"]})


def row(image="a.png", method="ig", metric="road", **more):
    key = {"image": image, "corruption": "", "severity": 0, "model": "m"}
    return {**key, "method": method, "metric": metric, "status": "ok", "value": 0.5, **more}


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "run", PLAN)


def test_rows_come_back_as_they_were_sorted_and_typed(store):
    said = {
        "warnings": ["saturation"],
        "parts": [("black", 0.25), ("blur", None)],
        "curves": [("curve", [1.0, 0.5])],
        "picture": b"\x00\xff",
        "reason": "a\nb",
        "seed": 2**62,
    }
    store.append([row("b.png"), row("a.png", **said)])
    store.append([row("a.png", "gradient")])
    table = store.table(SCHEMA.names)
    assert table.schema == SCHEMA
    rows = table.to_pylist()
    assert [(one["image"], one["method"]) for one in rows] == [
        ("a.png", "gradient"),
        ("a.png", "ig"),
        ("b.png", "ig"),
    ]
    assert {name: rows[1][name] for name in said} == said


def test_only_what_is_asked_for_is_read(store):
    store.append([row("b.png", picture=b"x"), row("a.png")])
    assert "picture" not in store.table().column_names
    assert store.table(["value"]).column_names == ["value"]
    some = store.table(["image"], pyarrow.dataset.field("image") == "b.png")
    assert some.to_pylist() == [{"image": "b.png"}]


def test_the_digest_is_of_the_rows_not_of_files_order_or_time(tmp_path):
    first, second, third = (Store.create(tmp_path / name, PLAN) for name in "abc")
    first.append([row("a.png", seconds=1.0, map_seconds=2.0), row("b.png")])
    second.append([row("b.png", seconds=9.0)])
    second.append([row("a.png", map_seconds=3.0)])
    third.append([row("a.png"), row("b.png", value=0.5 + 2**-53)])
    assert first.digest() == second.digest() != third.digest()


def test_what_is_done_is_known_when_the_run_is_opened_again(store):
    store.append([row("a.png"), row("a.png", metric="mu_fidelity")])
    store.append([row("b.png", "gradient")])
    done = Store(store.folder).index()
    assert len(done) == 3
    assert done.has(("a.png", "", 0, "m"), "ig", "road")
    assert not done.has(("b.png", "", 0, "m"), "ig", "road")
    assert not done.has(("a.png", "contrast", 1, "m"), "ig", "road")
    assert not done.has(("a.png", "", 0, "m"), "uni", "road")


def test_done_of_many_pairs():
    done = RowIndex()
    for number in range(100):
        done.add(("x", "", 0, "m"), f"method {number % 10}", f"metric {number // 10}")
    assert len(done) == 100
    assert all(
        done.has(("x", "", 0, "m"), f"method {n % 10}", f"metric {n // 10}") for n in range(100)
    )
    done.add(("x", "", 0, "m"), "method 0", "metric 0")
    assert len(done) == 100


def test_an_interrupted_write_leaves_nothing(store):
    (store.folder / "rows" / "x.partial").write_bytes(b"half")
    store.append([row()])
    assert len(store.table()) == 1
    store.clean()
    assert [path.suffix for path in (store.folder / "rows").iterdir()] == [".parquet"]


@pytest.mark.parametrize("damage", ["truncated", "other bytes", "empty", "other columns"])
def test_a_broken_shard_is_set_aside_and_its_rows_are_to_do(store, damage, caplog):
    store.append([row("a.png")])
    (broken,) = store.shards
    store.append([row("b.png")])
    if damage == "other columns":
        parquet.write_table(pyarrow.table({"image": ["a.png"]}), broken)
    else:
        content = broken.read_bytes()
        kept = {"truncated": content[:-40], "other bytes": b"x" * 500, "empty": b""}[damage]
        broken.write_bytes(kept)
    done = store.index()
    assert len(done) == 1
    assert done.has(("b.png", "", 0, "m"), "ig", "road")
    (aside,) = (store.folder / "rows" / "broken").iterdir()
    assert aside.name.startswith(broken.stem)
    assert f"moved to {aside}" in caplog.text
    assert len(store.table()) == 1


@pytest.mark.parametrize("column", ["value", "picture"])
def test_a_page_that_was_changed_is_found(store, column):
    store.append(
        [row(f"{number}.png", value=number / 7, picture=bytes([number])) for number in range(9)]
    )
    (path,) = store.shards
    group = parquet.read_metadata(path).row_group(0)
    columns = {one.path_in_schema: one for one in map(group.column, range(group.num_columns))}
    content = bytearray(path.read_bytes())
    content[columns[column].data_page_offset - 3] ^= 0xFF  # the end of the page of its values
    path.write_bytes(content)
    assert len(store.index()) == 0
    assert [aside.suffix for aside in (path.parent / "broken").iterdir()] == [".parquet"]


def test_a_broken_shard_does_not_keep_failed_rows_from_being_done_again(store):
    store.append([row("a.png", status="failed", value=None)])
    store.append([row("b.png")])
    store.shards[0].write_bytes(b"x")
    assert len(store.index()) <= 1
    store.forget_failed()


def test_a_manifest_half_written_is_no_obstacle_and_goes(tmp_path):
    (tmp_path / ".manifest-abc.json").write_text("{")
    with folder_lock(tmp_path):
        Store.create(tmp_path, PLAN).clean()
    assert not (tmp_path / ".manifest-abc.json").exists()


def test_a_refused_folder_has_nothing_new(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UnilensError, match="empty folder"), folder_lock(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_failed_rows_can_be_forgotten_and_nothing_else(store):
    store.append([row("a.png", status="failed", value=None), row("b.png")])
    store.append([row("c.png", status="failed", value=None)])
    store.append([row("d.png", status="inapplicable", value=None)])
    assert store.forget_failed() == 2
    assert store.table(["image"]).to_pylist() == [{"image": "b.png"}, {"image": "d.png"}]
    assert store.forget_failed() == 0


@pytest.mark.slow
def test_a_second_process_is_refused_until_the_first_has_ended(tmp_path):
    code = (
        "import sys; from pathlib import Path; from unilens.benchmark.store import folder_lock\n"
        "with folder_lock(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(UnilensError, match="another process is writing"), folder_lock(tmp_path):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
    with folder_lock(tmp_path):
        pass


def test_the_same_process_is_refused_as_well(tmp_path):
    with (
        folder_lock(tmp_path),
        pytest.raises(UnilensError, match="another process is writing"),
        folder_lock(tmp_path),
    ):
        pass


FULL = """
import os, resource, signal, sys
from pathlib import Path
from unilens.benchmark.store import Store
from unilens.errors import UnilensError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    Store(Path(sys.argv[1])).append([{"image": "b.png", "picture": os.urandom(9999)}] * 9)
except UnilensError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_full_disk_ends_in_one_line_and_keeps_what_was_written(store):
    """A limit on the size of files stands in for the disk."""
    store.append([row()])
    command = [sys.executable, "-c", FULL, str(store.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    assert line.startswith("could not write 9 rows")
    assert "run the same command again" in line
    assert len(Store(store.folder).index()) == 1
    assert not [path for path in (store.folder / "rows").iterdir() if path.suffix != ".parquet"]


def test_the_manifest_says_what_was_planned_and_where(store):
    said = json.loads((store.folder / MANIFEST).read_text())
    assert store.plan == PLAN
    (session,) = said["sessions"]
    assert session["versions"]["torch"]
    assert session["hardware"]["cores"] == os.cpu_count()
    Store.create(store.folder, PLAN)
    assert len(Store(store.folder).manifest["sessions"]) == 2


def test_a_plan_may_change_as_long_as_there_is_no_row(store):
    other = PLAN.model_copy(update={"seed": 5})
    assert Store.create(store.folder, other).plan == other
    store.append([row()])
    with pytest.raises(UnilensError, match="seed: was 5, now 0"):
        Store.create(store.folder, PLAN)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UnilensError, match=r"empty folder.*thesis\.tex"):
        Store.create(tmp_path, PLAN)
    assert not (tmp_path / MANIFEST).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 99}', '{"schema": 1}'])
def test_a_manifest_that_is_none(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(UnilensError, match=r"manifest\.json"):
        Store(tmp_path)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(UnilensError, match="expected the folder of a run"):
        Store(tmp_path)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UnilensError, match="expected a folder for the run"),
        folder_lock(tmp_path / "file" / "run"),
    ):
        pass


def test_the_lock_is_no_obstacle_to_a_new_run(tmp_path):
    with folder_lock(tmp_path):
        Store.create(tmp_path, PLAN)
    assert {path.name for path in tmp_path.iterdir()} >= {LOCK, MANIFEST, "rows"}


def test_an_empty_run_reads_as_no_rows(store):
    assert len(store.table()) == 0
    assert store.table(list(KEY)).schema.names == list(KEY)
    assert len(store.index()) == 0
    assert len(store.digest()) == 64
