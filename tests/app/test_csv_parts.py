"""The tabs of tables and series without a browser."""

import csv
import io
import threading
import types
from pathlib import Path

import numpy
import pandas
import pytest
import torch

pytest.importorskip("gradio")

from unilens import explain, tables
from unilens.app import csv_files, csv_render, csv_tab, table_service
from unilens.app.csv_files import csv_bytes, read_csv_file
from unilens.app.csv_request import read_series_form, read_table_form
from unilens.app.files import VisitorFiles
from unilens.app.jobs import Cancelled, Job, Jobs
from unilens.app.model_sources import SeriesModel, TableModel
from unilens.app.runner import JobRunner
from unilens.app.series_service import SeriesService, time_column_of
from unilens.app.series_tab import SeriesTab
from unilens.app.table_service import TableService
from unilens.app.table_tab import TableTab
from unilens.cli import main
from unilens.errors import UnilensError
from unilens.scores import forecast

from . import tab_models

EVIL = '<script>alert("a&b")</script>'


@pytest.fixture(scope="module")
def estimator():
    return tab_models.table()


@pytest.fixture
def load(monkeypatch, estimator):
    """Return what makes services of models that are there already."""
    models = {"table": estimator, "series": tab_models.series()}
    for name in ("table_service", "series_service"):
        monkeypatch.setattr(f"unilens.app.{name}.load_model", lambda name, *_, **__: models[name])
    return models


@pytest.fixture
def service(load, tmp_path):
    tab_models.people(40, 5).to_csv(tmp_path / "typical.csv", index=False)
    return TableService(TableModel("table", tmp_path / "typical.csv"), JobRunner())


@pytest.fixture
def series_service(load):
    return SeriesService(SeriesModel("series"), JobRunner())


def file_of(folder, frame, name="data.csv"):
    path = folder / name
    if isinstance(frame, pandas.DataFrame):
        frame.to_csv(path, index=False)
    else:
        path.write_bytes(frame if isinstance(frame, bytes) else frame.encode())
    return path


def read(folder, frame):
    return read_csv_file(file_of(folder, frame))


REQUEST = types.SimpleNamespace(session_hash="visitor")


def no_progress(*_, **__):
    pass


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv_file_is_read_with_any_separator(tmp_path, separator, mark):
    text = mark + separator.join(["a", "b c"]) + "\n" + separator.join(["1.5", "x"]) + "\n"
    frame = read(tmp_path, text).frame
    assert list(frame.columns) == ["a", "b c"]
    assert frame.iloc[0].tolist() == [1.5, "x"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"a,b\n", "has none"),
        (b"a,a\n1,2\n", "'a' more than once"),
        (b"1,2\n3,4\n", "got numbers"),
        (b"a,b\n1\n", "expected 2 cells in line 2"),
        (b"a\xff\n1\n", "another encoding at byte"),
        (b"PK\x03\x04\x00\x00\xff\xfe", "another encoding|expected"),
        (b"\x00\x01\x02", "expected|could not"),
        (b'"' + b"x" * 200_000, "a line that is none|could not read"),
    ],
)
def test_csv_file_that_is_none_is_refused(tmp_path, data, message):
    with pytest.raises(UnilensError, match=message) as caught:
        read(tmp_path, data)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_csv_file_has_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_files, "MAX_BYTES", 2**20)
    with pytest.raises(UnilensError, match="at most 1 MB, got 2 MB"):
        read(tmp_path, "a\n" + "1\n" * 2**20)
    with pytest.raises(UnilensError, match="at most 10000 rows, got 10001"):
        read(tmp_path, "a\n" + "1\n" * 10_001)
    assert len(read(tmp_path, "a\n" + "1\n" * 10_000).frame) == 10_000
    names = [f"c{number}" for number in range(100_000)]
    for start in ("", '"\n",'):  # names over several lines count as well
        with pytest.raises(UnilensError, match=r"at most 500 columns, got 10000[01]"):
            read(tmp_path, start + ",".join(names) + "\n")


@pytest.mark.parametrize("cell", ["=1+1", "+cmd", "-cmd", "@SUM(A1)", "\t=1", "\r=1", "|x", "%x"])
def test_downloads_hold_no_formula(cell):
    lines = list(csv.reader(io.StringIO(csv_bytes([cell], [[cell], ["a"]]).decode(), newline="")))
    shown = "'" + cell.replace("\r", "\n")
    assert lines == [[shown], [shown], ["a"]]


@pytest.mark.parametrize("cell", ["-1.5", "+2", "-1e-05", -0.25, "a-b", ""])
def test_downloads_keep_numbers_and_words(cell):
    (_, line) = csv.reader(io.StringIO(csv_bytes(["a"], [[cell]]).decode(), newline=""))
    assert line in ([str(cell)], [])


def test_requests_are_checked():
    assert read_table_form("0", -1, "", 3.0).model_dump() == {
        "method": None,
        "target": None,
        "seed": 3,
        "rows": "0",
    }
    assert read_series_form("", 2, 1.0, None, "ig", None).step == 1
    for values in (
        ("0" * 300, -1, "", 0),
        ([1], -1, "", 0),
        ("0", "x", "", 0),
        ("0", 1.5, "", 0),
        ("0", -1, {}, -1),
        ("0", -1, ["ig"], 0),
        ("0", -1, "", 2**70),
    ):
        with pytest.raises(UnilensError, match="expected another value of"):
            read_table_form(*values)


@pytest.mark.parametrize("rows", ["30", "0-30", "x", "0,,1", "-1", "3-1", "0-9999999999"])
def test_rows_that_are_not_there_are_refused(service, tmp_path, rows):
    file = read(tmp_path, tab_models.people(30))
    with pytest.raises(UnilensError, match="expected rows"):
        service.explain(file, read_table_form(rows, -1, "occlusion", 0), Job())


def test_rows_at_once_have_a_limit(service, tmp_path, monkeypatch):
    file = read(tmp_path, tab_models.people(120))
    with pytest.raises(UnilensError, match="at most 100 rows at once, got 120"):
        service.explain(file, read_table_form("all", -1, "occlusion", 0), Job())
    monkeypatch.setattr(table_service, "MAX_CALLED", 1_000_000)
    with pytest.raises(UnilensError, match=r"at most 6 rows at once .* by shapley, got 90"):
        service.explain(file, read_table_form("0-89", -1, "", 0), Job())


def test_table_is_explained_as_by_the_library(service, estimator, tmp_path):
    frame = tab_models.people(30)
    shuffled = frame[frame.columns[::-1]]
    file = read(tmp_path, shuffled)
    result = service.explain(file, read_table_form("4,7", 1, "", 0), Job())
    same = read(tmp_path, frame).frame.iloc[[4, 7]]
    expected = tables.explain(estimator, same, "leaves", references=service.references)
    numpy.testing.assert_allclose(
        result.values[list(expected.names)].to_numpy(), expected.values.to_numpy(), atol=1e-12
    )
    assert set(result.target) == {"leaves"}
    assert service.explain(file, read_table_form("4,7", 1, "", 0), Job()) is result


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns=["age", "noise 3"]), "missing 'age', 'noise 3'"),
        (lambda frame: frame.assign(id=1), "others as well: 'id'; leave them out"),
    ],
)
def test_columns_that_do_not_fit_are_named(service, tmp_path, change, message):
    with pytest.raises(UnilensError, match=message):
        service.preview(read(tmp_path, change(tab_models.people(30))))


def test_label_column_is_left_out(load, tmp_path):
    typical = file_of(tmp_path, tab_models.people(40, 5).assign(bought=1), "typical.csv")
    service = TableService(TableModel("table", typical, "bought"), JobRunner())
    for frame in (tab_models.people(12).assign(bought=0), tab_models.people(12)):
        assert "bought" not in service.preview(read(tmp_path, frame)).names


def test_module_of_tables_has_methods_by_gradients(load, tmp_path):
    load["table"] = torch.nn.Sequential(torch.nn.Linear(3, 2)).eval()
    service = TableService(TableModel("table"), JobRunner())
    frame = pandas.DataFrame(numpy.random.default_rng(0).normal(size=(20, 3)), columns=list("abc"))
    file = read(tmp_path, frame)
    assert {"shapley", "ig", "expected_gradients", "gradient"} <= set(service.methods(file))
    assert "gradcam" not in service.methods(file)
    result = service.explain(file, read_table_form("0", 1, "gradient", 0), Job())
    weights = load["table"][0].weight[1] - load["table"][0].weight[0]
    signs = torch.tensor(result.values.to_numpy()[0]).sign()
    assert signs.tolist() == weights.sign().tolist()
    html = csv_render.row_html(result, 0, 0)
    assert "at the base" not in html
    assert service.explain(file, read_table_form("0,3", -1, "", 0), Job()).attribution.complete


def test_module_gets_the_columns_in_the_order_of_the_references(load, tmp_path):
    load["table"] = torch.nn.Sequential(torch.nn.Linear(3, 1)).eval()
    with torch.no_grad():
        load["table"][0].weight.copy_(torch.tensor([[1.0, 0.0, 0.0]]))
    frame = pandas.DataFrame(numpy.random.default_rng(0).normal(size=(20, 3)), columns=list("abc"))
    typical = file_of(tmp_path, frame, "typical.csv")
    service = TableService(TableModel("table", typical), JobRunner())
    result = service.preview(read(tmp_path, frame[["c", "b", "a"]]))
    assert result.names == ("a", "b", "c")
    result = service.explain(
        read(tmp_path, frame[["c", "b", "a"]]), read_table_form("2", -1, "shapley", 0), Job()
    )
    assert result.strongest(0, 1)[0].name == "a"


def test_cancelled_table_ends_at_its_next_pass(service, tmp_path):
    file = read(tmp_path, tab_models.people(30))
    service.methods(file)
    job = Job()
    job.cancel()
    with pytest.raises(Cancelled):
        service.explain(file, read_table_form("1", -1, "", 0), job)
    seen = []

    class Cancelling(Job):
        def on_pass(self, points):
            seen.append(points)
            if len(seen) == 3:
                self.cancel()
            super().on_pass(points)

    with pytest.raises(Cancelled):
        service.explain(file, read_table_form("1", -1, "", 0), Cancelling())
    assert len(service.explain(file, read_table_form("1", -1, "", 0), Job())) == 1


def test_closed_runner_ends_all_work(service, series_service, tmp_path):
    file, series = read(tmp_path, tab_models.people(30)), read(tmp_path, tab_models.signals())
    series_service.read(series, "time")
    for one in (service, series_service):
        closing = threading.Thread(target=one._runner.close)
        closing.start()
        closing.join()
    with pytest.raises(Cancelled):
        service.explain(file, read_table_form("1", -1, "", 0), Job())
    with pytest.raises(Cancelled):
        series_service.explain(series, read_series_form("time", -1, 0, 0, "", 0), Job())


def test_pages_of_tables_escape_names_and_cells(load, tmp_path):
    load["table"] = lambda frame: (frame.iloc[:, 0] == EVIL).astype(float)
    service = TableService(TableModel("table"), JobRunner())
    frame = pandas.DataFrame({EVIL: [EVIL, "b"] * 6, "=1+1": ["=2", "c"] * 6})
    tab = TableTab(service, VisitorFiles(tmp_path), Jobs())
    path = str(file_of(tmp_path, frame))
    preview = tab._read(path)[0]
    shown, _, _, _, row, summary = tab._explain(path, "0,1", -1, "", 0, REQUEST, no_progress)
    for html in (preview, row, summary):
        assert "<script" not in html
        assert "&lt;script&gt;" in html
    written = next(name for name in tab._write_files(shown, REQUEST) if name.endswith(".csv"))
    lines = list(csv.DictReader(Path(written).read_text().splitlines()))
    assert {line["column"] for line in lines} == {EVIL, "'=1+1"}
    assert "'=2" in {line["cell"] for line in lines}


def test_code_of_tables_computes_the_same_values(service, load, tmp_path, monkeypatch):
    file = file_of(tmp_path, tab_models.people(30), "people.csv")
    tab = TableTab(service, VisitorFiles(tmp_path), Jobs())
    shown, *_ = tab._explain(str(file), "2,9", 1, "occlusion", 0, REQUEST, no_progress)
    table, _, code = tab._write_files(shown, REQUEST)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unilens.tables.files.load_model", lambda *_, **__: load["table"])
    exec(compile(Path(code).read_text(), "code", "exec"), {})
    ours, theirs = pandas.read_csv(table), pandas.read_csv(tmp_path / "people-values.csv")
    pandas.testing.assert_frame_equal(ours, theirs)
    assert str(tmp_path) not in Path(code).read_text()


def test_no_path_of_the_server_is_read(service, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    outside = file_of(tmp_path, tab_models.people(12), "outside.csv")
    tab = TableTab(service, VisitorFiles(own), Jobs())
    with pytest.raises(Exception, match="the file is no longer here"):
        tab._read(str(outside))
    (own / "link.csv").symlink_to(outside)
    with pytest.raises(Exception, match="the file is no longer here"):
        tab._read(str(own / "link.csv"))


def test_forecast_is_explained_as_by_the_library(series_service, load, tmp_path):
    file = read(tmp_path, tab_models.signals())
    request = read_series_form("time", -1, 3, 1, "ig", 0)
    series, attribution = series_service.explain(file, request, Job())
    inputs = torch.tensor(tab_models.signals()[["load", "wind"]].to_numpy("float32"))[None]
    expected = explain(load["series"], inputs, "ig", score=forecast(3, 1), channels="last").values
    torch.testing.assert_close(attribution.values, expected)
    assert series.names == ["load", "wind"]
    assert attribution.values[0].abs().argmax() == 21 * 2 + 1


def test_series_of_classes_with_channels_first(load, tmp_path):
    class Sum(torch.nn.Module):
        def forward(self, series):
            assert series.shape[1:] == (2, 24)
            total = series[:, 1, 5]
            return torch.stack([total, -total], 1)

    load["series"] = Sum().eval()
    service = SeriesService(SeriesModel("series", "first"), JobRunner())
    tab = SeriesTab(service, VisitorFiles(tmp_path), Jobs())
    path = str(file_of(tmp_path, tab_models.signals()))
    _, _, _, target, step, output = tab._read(path)
    assert target["visible"]
    assert not step["visible"]
    assert not output["visible"]
    shown, _, _, html = tab._explain(path, "time", 1, 0, 0, "ig", 0, REQUEST, no_progress)
    assert "Why class 1?" in html
    assert "probability" in html
    table, _, code = tab._write_files(shown, REQUEST)
    lines = pandas.read_csv(table)
    strongest = lines.loc[lines.attribution.abs().idxmax()]
    assert (strongest.step, strongest.channel) == (5, "wind")
    compile(Path(code).read_text(), "code", "exec")


def test_outputs_of_two_dimensions_are_a_forecast_where_it_is_said(load, tmp_path):
    load["series"] = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 5)).eval()
    file = read(tmp_path, tab_models.signals())
    for said in (False, True):
        service = SeriesService(SeriesModel("series", forecast=said), JobRunner())
        assert service.is_forecast(service.read(file, "time")) == said


def test_column_of_times_is_found_by_its_name_or_its_words():
    frame = pandas.DataFrame({"a": [1.0], "Date": [2.0]})
    assert time_column_of(frame) == "Date"
    assert time_column_of(frame[["a"]]) is None
    assert time_column_of(pandas.DataFrame({"when": ["now"], "b": [1]})) == "when"


@pytest.mark.parametrize("step", [4, 2**31 - 1])
def test_step_that_the_forecast_lacks_is_refused(series_service, tmp_path, step):
    file = read(tmp_path, tab_models.signals())
    with pytest.raises(UnilensError, match="expected step below 4"):
        series_service.explain(file, read_series_form("time", -1, step, 0, "", 0), Job())


def test_methods_that_do_not_fit_are_refused(service, series_service, tmp_path):
    table, series = read(tmp_path, tab_models.people(30)), read(tmp_path, tab_models.signals())
    with pytest.raises(UnilensError, match="unknown method for this model 'ig'"):
        service.explain(table, read_table_form("0", -1, "ig", 0), Job())
    with pytest.raises(UnilensError, match="unknown method for this model 'edges'"):
        series_service.explain(series, read_series_form("time", -1, 0, 0, "edges", 0), Job())


def test_models_that_do_not_fit_are_refused_at_the_start(load, tmp_path):
    typical = file_of(tmp_path, tab_models.people(20).drop(columns="age"), "typical.csv")
    with pytest.raises(UnilensError, match="missing 'age'"):
        TableService(TableModel("table", typical), JobRunner())
    load["series"] = load["table"]
    with pytest.raises(UnilensError, match=r"expected a torch\.nn\.Module"):
        SeriesService(SeriesModel("series"), JobRunner())
    with pytest.raises(UnilensError, match="--channels"):
        SeriesService(SeriesModel("series", "middle"), JobRunner())


def test_classes_are_not_offered_where_there_is_one_value():
    assert not csv_tab.class_choices([])["visible"]
    assert csv_tab.class_choices(["a", "b"])["choices"][1:] == [("a", 0), ("b", 1)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--references", "a.csv"], "expected --table-model with --references"),
        (["--label-column", "y"], "expected --table-model with --references"),
        (["--trust-pickle"], "expected --table-model with --references"),
        (["--channels", "first"], "expected --series-model with --channels"),
        (["--forecast"], "expected --series-model with --channels"),
        (["--table-model", "py:nowhere:model"], "cannot be imported"),
        (["--table-model", "model.joblib"], "there is no such file"),
        (
            ["--table-model", "py:tab_models:Forecast", "--references", "no.csv"],
            "could not read no.csv",
        ),
        (["--table-model", "py:math:pi"], "a function in py:math:pi, got float"),
        (["--series-model", "py:math:pi"], "expected a torch.nn.Module in py:math:pi, got float"),
    ],
)
def test_command_line_refuses_flags_in_one_line(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setattr("sys.argv", ["unilens", "app", "--port", "0", "--random-weights", *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        *((0.6231, "probability", "0.623"), (0.99971, "probability", "0.9997")),
        *((0.999999, "probability", "over 0.9999"), (1e-9, "probability", "1e-09")),
        *((1.0, "probability", "1"), (0.99999, "logit", "1"), (1.4, "forecast", "1.4")),
    ],
)
def test_probability_is_not_rounded_to_certainty(value, unit, said):
    assert csv_render.score_text(value, unit) == said
