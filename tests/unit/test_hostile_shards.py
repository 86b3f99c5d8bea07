"""Damaged files among a run's rows: read without them, said, set aside, and made again."""

import os
import shutil
import socket

import pyarrow
import pytest
from pyarrow import parquet

from unilens import UnilensError
from unilens.benchmark import store as store_module
from unilens.benchmark.plan import make_plan
from unilens.benchmark.report.comparison import write_comparison
from unilens.benchmark.report.page import write_report
from unilens.benchmark.report.queries import query
from unilens.benchmark.rows import SCHEMA
from unilens.benchmark.shards import UNREADABLE, read_shard
from unilens.benchmark.store import Store
from unilens.errors import UnilensWarning

PLAN = make_plan({"methods": ["ig", "gradient"], "metrics": ["mu_fidelity"]})
MODEL = PLAN.models[0]


def row(image, method="ig", **more):
    key = {"image": image, "corruption": "", "severity": 0, "model": MODEL, "method": method}
    value = {"metric": "mu_fidelity", "status": "ok", "value": 0.5, "seed": 0}
    return {**key, **value, "picture": os.urandom(200), "reason": "x" * 300, **more}


def rows(*images):
    return [row(image, method) for image in images for method in PLAN.methods]


@pytest.fixture
def store(tmp_path):
    """A run with two files: the one of `a` and `b` is to be damaged, that of `c` stays."""
    made = Store.create(tmp_path / "run", PLAN, 3)
    made.append(rows("a", "b"))
    (victim,) = made.shards
    made.append(rows("c"))
    victim.rename(victim.parent / "victim.parquet")
    return Store(made.folder)


def _write(path, table, **more):
    parquet.write_table(table, path, write_page_checksum=True, **more)


def flip(path, where):
    content = bytearray(path.read_bytes())
    content[int(where * (len(content) - 1))] ^= 0x10
    path.write_bytes(content)


def flip_value(path):
    """Flip a bit of the values, which move and stay numbers."""
    group = parquet.read_metadata(path).row_group(0)
    columns = {one.path_in_schema: one for one in map(group.column, range(group.num_columns))}
    content = bytearray(path.read_bytes())
    content[columns["value"].data_page_offset - 3] ^= 0x01
    path.write_bytes(content)


def in_place(make):
    def damage(path):
        path.unlink()
        make(path)

    return damage


def pipe(path):
    os.mkfifo(path)


def listen(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


def link_to_a_copy(path):
    shutil.move(path, path.parent.parent / "elsewhere.parquet")
    path.symlink_to(path.parent.parent / "elsewhere.parquet")


def with_column(path, name, values):
    table = parquet.read_table(path)
    _write(path, table.set_column(table.column_names.index(name), name, values(table)))


def no_text(path):
    """Bytes that are no UTF-8 where a text is expected."""
    table = parquet.read_table(path)
    bad = pyarrow.array([b"\xff\xfe"] * len(table)).view(pyarrow.string())
    _write(path, table.set_column(table.column_names.index("image"), SCHEMA.field("image"), bad))


DAMAGE = {
    **{f"bit at {where:.2f}": lambda path, w=where: flip(path, w) for where in (0.1, 0.97, 1)},
    "bit of a value": flip_value,
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "magic alone": lambda path: path.write_bytes(b"PAR1"),
    "magic twice": lambda path: path.write_bytes(b"PAR1PAR1"),
    "huge footer": lambda path: path.write_bytes(b"PAR1" + b"\xff\xff\xff\x7f" + b"PAR1"),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "cut to half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "first byte gone": lambda path: path.write_bytes(path.read_bytes()[1:]),
    "junk tail": lambda path: path.write_bytes(path.read_bytes() + b"junk" * 30),
    "text": lambda path: path.write_text("image,value\na,1\n"),
    "another kind": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00" + bytes(500)),
    "other columns": lambda path: _write(path, pyarrow.table({"image": ["a"]})),
    "one column more": lambda path: _write(
        path, parquet.read_table(path).append_column("more", pyarrow.array([1] * 4))
    ),
    "one column less": lambda path: _write(path, parquet.read_table(path).drop_columns("seed")),
    "columns in another order": lambda path: _write(
        path, parquet.read_table(path).select(SCHEMA.names[::-1])
    ),
    "another type": lambda path: with_column(
        path, "seed", lambda table: table["seed"].cast(pyarrow.string())
    ),
    "no key": lambda path: with_column(
        path, "image", lambda table: pyarrow.array([None] * len(table), pyarrow.string())
    ),
    "no text": no_text,
    "a folder": in_place(lambda path: path.mkdir()),
    "a folder with files": in_place(lambda path: (path / "x.parquet").mkdir(parents=True)),
    "a pipe": in_place(pipe),
    "a socket": in_place(listen),
    "a link to nothing": in_place(lambda path: path.symlink_to("nothing")),
    "a link to itself": in_place(lambda path: path.symlink_to(path)),
    "a link to a device": in_place(lambda path: path.symlink_to("/dev/zero")),
    "a link to a folder": in_place(lambda path: path.symlink_to("/")),
    "a link to rows": link_to_a_copy,
}
damaged = pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)


@pytest.fixture
def broken(store, damage, monkeypatch):
    monkeypatch.chdir(store.folder / "rows")
    damage(store.folder / "rows" / "victim.parquet")
    return store


MISSING = r"left out: 1, the first victim\.parquet \(.*; 4 of 6 rows are missing"


@damaged
def test_query_reads_the_rest_of_a_damaged_run(broken):
    with pytest.warns(UnilensWarning, match=MISSING) as said:
        _, found = query(broken, "SELECT image, count(*), avg(value) FROM rows GROUP BY 1")
    assert found == [("c", 2, 0.5)]
    assert len(str(said[0].message).splitlines()) == 1


@damaged
def test_resumed_run_sets_a_damaged_file_aside(broken, caplog):
    index = broken.index()
    assert len(index) == 2
    assert index.images == {"c"}
    (aside,) = (broken.folder / "rows" / "broken").iterdir()
    assert aside.name.startswith("victim-")
    assert f"moved to {aside}" in caplog.text
    broken.append(rows("a", "b"))
    again = Store(broken.folder)
    assert (len(again.table()), again.remark) == (6, "")


def test_report_and_comparison_say_what_is_missing(store, tmp_path):
    shutil.copytree(store.folder, tmp_path / "other")
    flip_value(store.folder / "rows" / "victim.parquet")
    with pytest.warns(UnilensWarning, match=MISSING):
        write_report(store, tmp_path / "report")
    assert "4 of 6 rows are missing" in (tmp_path / "report" / "report.html").read_text()
    with pytest.warns(UnilensWarning, match=MISSING):
        write_comparison(Store(store.folder), Store(tmp_path / "other"), tmp_path / "both")
    assert "4 of 6 rows are missing" in (tmp_path / "both" / "comparison.html").read_text()


def test_run_whose_files_are_all_broken_is_one_line(store):
    for path in store.shards:
        path.write_bytes(b"x")
    with pytest.warns(UnilensWarning, match="left out: 2, .*6 of 6"):
        assert query(store, "SELECT count(*) FROM rows")[1] == [(0,)]
    with pytest.raises(UnilensError, match="got none yet"):
        write_report(store, store.folder / "report")


@pytest.mark.parametrize("name", ["copy.parquet", "aaa.parquet", "a b.parquet", "é.parquet"])
def test_copy_of_a_file_counts_once(store, name, caplog):
    digest = store.digest()
    shutil.copy(store.folder / "rows" / "victim.parquet", store.folder / "rows" / name)
    copied = Store(store.folder)
    with pytest.warns(UnilensWarning, match="4 rows are there more than once and count once"):
        assert query(copied, "SELECT count(*) FROM rows")[1] == [(6,)]
    assert copied.digest() == digest
    assert len(copied.table()) == 6
    assert len(copied.index()) == 6
    assert "has rows that are in other files" in caplog.text
    assert (len(copied.shards), Store(store.folder).remark) == (2, "")


def test_rows_of_a_file_that_has_some_of_them_twice_count_once(store):
    twice = [row("a", value=9.0), row("d"), row("d", value=8.0)]
    store.append(twice)
    with pytest.warns(UnilensWarning, match="2 rows are there more than once"):
        assert len(Store(store.folder).table()) == 7
    assert len(store.index()) == 7
    again = Store(store.folder)
    assert (len(again.table()), again.remark, len(again.shards)) == (7, "", 3)


def test_repeated_failed_row_is_one_failure(store):
    store.append([row("d", status="failed", value=None)])
    store.append([row("d", status="failed", value=None)])
    assert store.index().failed == 1


def test_flipped_bit_anywhere_is_found_or_changes_no_row(store):
    path = store.folder / "rows" / "victim.parquet"
    _write(path, read_shard(path).slice(0, 1), compression="zstd")
    whole, content = read_shard(path), path.read_bytes()
    found = 0
    for place in range(3, len(content), 23):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            assert read_shard(path).equals(whole), place
        except UNREADABLE:
            found += 1
    assert found > len(content) / 23 / 2


def test_file_with_fewer_rows_than_it_says_is_broken(store, monkeypatch):
    read = parquet.ParquetFile.read
    monkeypatch.setattr(parquet.ParquetFile, "read", lambda file: read(file).slice(1))
    with pytest.raises(UNREADABLE, match="3 rows of 4"):
        read_shard(store.folder / "rows" / "victim.parquet")


def test_far_more_rows_than_a_run_writes_are_refused(store, monkeypatch):
    monkeypatch.setattr("unilens.benchmark.shards._MAX_ROWS", 3)
    with pytest.warns(UnilensWarning, match=r"victim\.parquet \(4 rows of"):
        assert len(store.table()) == 2


@pytest.mark.parametrize("place", ["link", "file"])
def test_broken_files_are_not_moved_out_of_the_run(store, tmp_path, place):
    aside = store.folder / "rows" / store_module.BROKEN
    if place == "link":
        (tmp_path / "outside").mkdir()
        aside.symlink_to(tmp_path / "outside")
    else:
        aside.write_text("mine")
    flip_value(store.folder / "rows" / "victim.parquet")
    with pytest.raises(UnilensError, match=r"could not set .* aside"):
        store.index()
    assert (store.folder / "rows" / "victim.parquet").exists()
    assert not list((tmp_path / "outside").iterdir()) if place == "link" else aside.read_text()


def test_file_that_goes_while_it_is_read_is_one_line(store, monkeypatch):
    store.readable()
    for path in store.shards:
        path.unlink()
    with pytest.raises(UnilensError, match="could not read the rows in"):
        query(store, "SELECT avg(value) FROM rows")
