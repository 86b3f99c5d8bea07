"""SQL of strangers over the rows of a run: it reads, writes and changes nothing else, and ends."""

import os
import threading
import warnings

import pytest

from unilens import UnilensError
from unilens.benchmark.plan import make_plan
from unilens.benchmark.report import queries
from unilens.benchmark.report.queries import query
from unilens.benchmark.store import Store
from unilens.cli import report as command_module

PLAN = make_plan({"methods": ["ig"], "metrics": ["road"]})
PLACES = ("secret.csv", ".tmp/secret.csv", ".tmp/../secret.csv", "{here}/secret.csv")
READERS = (
    "SELECT * FROM read_csv('{place}')",
    "SELECT * FROM read_text('{place}')",
    "SELECT * FROM read_blob('{place}')",
    "SELECT * FROM read_json('{place}')",
    "SELECT * FROM read_ndjson_objects('{place}')",
    "SELECT * FROM read_parquet('{place}')",
    "SELECT * FROM parquet_scan(['{place}'])",
    "SELECT * FROM parquet_metadata('{place}')",
    "SELECT * FROM parquet_schema('{place}')",
    "SELECT * FROM sniff_csv('{place}')",
    "SELECT * FROM glob('{place}*')",
    "FROM '{place}'",
    "SUMMARIZE '{place}'",
    "DESCRIBE SELECT * FROM '{place}'",
    "CREATE TABLE t (a VARCHAR); COPY t FROM '{place}'",
    "CREATE TABLE t AS FROM '{place}'",
    "CREATE VIEW v AS FROM '{place}'; FROM v",
    "CREATE MACRO m(f) AS TABLE SELECT * FROM read_csv(f); SELECT * FROM m('{place}')",
    "PREPARE p AS SELECT * FROM read_csv('{place}'); EXECUTE p",
    "SELECT * FROM query('FROM ''{place}''')",
    "SELECT * FROM query_table('{place}')",
    "SELECT 1; SELECT * FROM read_csv('{place}')",
    "SELECT (SELECT word FROM read_csv('{place}'))",
    "ATTACH '{place}' AS a (READ_ONLY)",
)
WRITERS = (
    "COPY (SELECT 1) TO '{place}'",
    "COPY rows TO '{place}' (FORMAT parquet)",
    "COPY rows TO '{place}' (FORMAT json)",
    "COPY rows TO '{place}' (FORMAT csv, PARTITION_BY (method))",
    "COPY (SELECT 1) TO '{place}' (PER_THREAD_OUTPUT)",
    "EXPORT DATABASE '{place}'",
    "ATTACH '{place}'",
    "ATTACH '{place}' AS d; CREATE TABLE d.t AS SELECT 1",
)
OUTSIDE = (
    "INSTALL httpfs",
    "FORCE INSTALL httpfs",
    "INSTALL json FROM 'https://example.com'",
    "LOAD httpfs",
    "LOAD 'secret.csv'",
    "UPDATE EXTENSIONS",
    "ATTACH 'https://example.com/x.db'",
    "ATTACH 's3://bucket/x.db'",
    "SELECT * FROM read_csv('https://example.com/x.csv')",
    "FROM 's3://bucket/x.parquet'",
    "FROM 'file:///etc/passwd'",
    "SELECT * FROM sqlite_scan('secret.csv', 't')",
    "SELECT * FROM postgres_scan('host=example.com', 'a', 'b')",
    "CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "CREATE PERSISTENT SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "SELECT * FROM duckdb_secrets()",
    "IMPORT DATABASE '.'",
    "SELECT getenv('HOME')",
    "COPY rows TO '/dev/stdout'",
    "COPY rows TO '/dev/stderr' (FORMAT csv)",
    "SELECT * FROM PLAN",
    "SELECT * FROM store",
    "SELECT * FROM arrow_scan(1, 2, 3)",
    "SELECT * FROM pandas_scan(1)",
)
SETTINGS = {
    "enable_external_access": "true",
    "lock_configuration": "false",
    "allowed_paths": "['secret.csv']",
    "allowed_directories": "['.']",
    "temp_directory": "'.'",
    "memory_limit": "'900GB'",
    "threads": "99",
    "home_directory": "'.'",
    "secret_directory": "'.'",
    "extension_directory": "'.'",
    "custom_extension_repository": "'http://example.com'",
    "allow_unsigned_extensions": "true",
    "allow_community_extensions": "true",
    "autoinstall_known_extensions": "true",
    "autoload_known_extensions": "true",
    "python_enable_replacements": "true",
    "python_scan_all_frames": "true",
    "enable_logging": "true",
    "log_query_path": "'q.log'",
    "profiling_output": "'p.json'",
    "enable_profiling": "'json'",
    "http_proxy": "'http://example.com'",
    "max_expression_depth": "1000000000",
}
CHANGES = (
    "INSERT INTO rows SELECT * FROM rows",
    "DELETE FROM rows",
    "UPDATE rows SET value = 1",
    "DROP TABLE rows",
    "DROP VIEW nothing",
    "ALTER TABLE rows DROP COLUMN value",
    "CALL enable_logging(storage = 'file', storage_path = 'logs')",
    "CALL enable_logging(storage = 'stdout')",
    "PRAGMA enable_profiling = 'json'; PRAGMA profiling_output = 'p.json'; SELECT 1",
    "PRAGMA enable_external_access",
    "PRAGMA database_list; PRAGMA enable_profiling; SELECT 1",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("query")
    (folder / ".tmp").mkdir()
    for name in ("secret.csv", ".tmp/secret.csv"):
        (folder / name).write_text("word\nhush\n")
    made = Store.create(folder / "run", PLAN)
    key = {"image": "a", "corruption": "", "severity": 0, "model": "m", "method": "ig"}
    made.append([{**key, "metric": "road", "status": "ok", "value": 0.5}])
    return made


@pytest.fixture
def here(store, monkeypatch):
    """The folder of secrets, the current one; nothing in it may have changed afterwards."""
    folder = store.folder.parent
    monkeypatch.chdir(folder)

    def content():
        return {file: file.stat().st_mtime_ns for file in folder.rglob("*")}

    before = content()
    yield folder
    assert content() == before


def refused(store, sql):
    """Ask, and return the message, which is one line without the secret."""
    with pytest.raises(UnilensError) as raised:
        query(store, sql)
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    assert "hush" not in message
    return message


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("sql", READERS)
def test_query_reads_no_file(store, here, sql, place):
    refused(store, sql.format(place=place.format(here=here)))


@pytest.mark.parametrize("place", ["out", ".tmp/out", ".tmp/../out", "{here}/out"])
@pytest.mark.parametrize("sql", WRITERS)
def test_query_writes_no_file(store, here, sql, place):
    refused(store, sql.format(place=place.format(here=here)))


@pytest.mark.parametrize("sql", OUTSIDE)
def test_query_reaches_nothing_outside(store, here, sql):
    refused(store, sql)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(
    "form", ["SET {} = {}", "SET GLOBAL {} = {}", "PRAGMA {} = {}", "RESET {}", "RESET GLOBAL {}"]
)
def test_query_changes_no_setting(store, here, form, name):
    refused(store, form.format(name, SETTINGS[name]))


@pytest.mark.parametrize("sql", CHANGES)
def test_query_changes_nothing(store, here, sql):
    before = store.digest()
    refused(store, sql)
    assert Store(store.folder).digest() == before


@pytest.mark.parametrize(
    "sql",
    [
        "WITH RECURSIVE r AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM r) SELECT max(a) FROM r",
        "SELECT count(*) FROM range(9999999) a, range(9999999) b WHERE hash(a.range, b.range) = 1",
        "SELECT levenshtein(repeat('a', 300000), repeat('b', 300000))",
        "SELECT sum(hash(range)) FROM range(1000000000000)",
    ],
)
def test_query_that_runs_away_is_stopped(store, monkeypatch, sql):
    monkeypatch.setattr(queries, "SECONDS", 0.05)
    assert refused(store, sql).startswith("expected a query of at most 0.05 s")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT list(range) FROM range(1000000000)",
        "SELECT repeat('x', 1000000000)",
        "SELECT repeat('x', 1000000) FROM range(100000)",
        "SELECT range(3000000000)",
        "SELECT range FROM range(1000000000) ORDER BY hash(range)",
    ],
)
def test_query_takes_a_bounded_memory(store, monkeypatch, sql):
    monkeypatch.setattr(queries, "_MEMORY_BYTES", 2**26)
    assert refused(store, sql).startswith("expected a query of at most 0.1 GB of memory")


def test_query_returns_a_bounded_number_of_cells(store, monkeypatch):
    monkeypatch.setattr(queries, "_MAX_CELLS", 30_000)
    assert "add LIMIT" in refused(store, "SELECT range, range + 1 FROM range(1000000000)")
    assert len(query(store, "SELECT range, range + 1 FROM range(15000)")[1]) == 15_000


@pytest.mark.parametrize(
    "sql",
    [
        f"SELECT {'(' * 5000}1{')' * 5000}",
        f"SELECT {'+'.join(['1'] * 20_000)}",
        f"SELECT {'[' * 5000}{']' * 5000}",
        "SELECT \x00",
        "SELECT '\ud800'",
        "SELECT 1 AS \x1b[31m",
        "/*",
        "'",
        "",
        ";",
        "--",
        "SELECT $1",
        "SELECT error('a\nb')",
        "SELECT 1/0::DECIMAL(1,1) FROM nothing\n\nWHERE",
    ],
)
def test_query_that_is_none_is_one_line(store, sql):
    refused(store, sql)


def test_process_ends_where_a_query_cannot_be_interrupted(monkeypatch, capsys):
    ended = threading.Event()
    monkeypatch.setattr(os, "_exit", lambda code: ended.set())
    with command_module._ended_after(0.01):
        assert ended.wait(5)
    assert "that can be interrupted" in capsys.readouterr().err
    ended.clear()
    with command_module._ended_after(60):
        pass
    timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    assert all(timer.finished.is_set() for timer in timers)


def test_query_frees_the_address_space_it_bounds(store):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    with warnings.catch_warnings():
        query(store, "SELECT 1")
    refused(store, "SELEC 1")
    assert resource.getrlimit(resource.RLIMIT_AS) == before
