"""The tabs of tables and series in a browser, with models of known truth."""

import csv
import re

import pytest

from . import tab_models
from .conftest import serving, windows

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
expect.set_options(timeout=120_000)


@pytest.fixture(scope="module")
def tabs_server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tabs")
    tab_models.people(40, seed=5).to_csv(folder / "typical.csv", index=False)
    options = ["--table-model", "py:tab_models:table", "--references", str(folder / "typical.csv")]
    with serving(folder / "log.txt", *options, "--series-model", "py:tab_models:series") as address:
        yield address


@pytest.fixture
def tab_window(tabs_server, browser):
    with windows(tabs_server, browser) as new:
        yield new


@pytest.fixture
def people(tmp_path):
    path = tmp_path / "people.csv"
    tab_models.people(30).to_csv(path, index=False)
    return path


@pytest.fixture
def signals(tmp_path):
    path = tmp_path / "signals.csv"
    tab_models.signals().to_csv(path, index=False)
    return path


def open_tab(window, name, **settings):
    visit = window(**settings).open()
    visit.page.get_by_role("tab", name=name).click()
    return visit


def upload(visit, key, path):
    visit.find(f"#ul-{key}-file input[type=file]").set_input_files(path)
    return visit


def preview(visit, key):
    visit.find(f"#ul-{key}-preview .ul-preview").wait_for()
    return visit


def choose(visit, selector, option):
    visit.find(f"{selector} input").click()
    visit.page.get_by_role("option", name=re.compile(option)).first.click()


def error(visit):
    lines = visit.find(".toast-body.error [data-testid=toast-text]")
    expect(lines).to_have_count(1)
    return lines.inner_text().strip()


def download(visit, key, folder):
    """Return the downloads by their suffixes."""
    visit.open_part(f"ul-{key}-take").find(f"#ul-{key}-prepare").click()
    links = visit.find(f"#ul-{key}-downloads a[download]")
    expect(links).to_have_count(3)
    saved = {}
    for link in links.all():
        with visit.page.expect_download() as waiting:
            link.click()
        name = waiting.value.suggested_filename
        waiting.value.save_as(folder / f"got-{name}")
        saved[name.rpartition(".")[2]] = folder / f"got-{name}"
    return saved


def read_lines(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_page_without_flags_has_no_tabs(visit):
    assert visit.page.get_by_role("tab").count() == 0


def test_table_tab_shows_the_two_columns_that_decide(tab_window, people, tmp_path):
    visit = preview(upload(open_tab(tab_window, "Table"), "table", people), "table")
    expect(visit.find("#ul-table-preview tbody tr")).to_have_count(8)
    visit.find("#ul-table-explain").click()
    visit.find("#ul-table-row .ul-row").wait_for()
    names = visit.find("#ul-table-row .ul-column b").all_inner_texts()
    assert set(names[:2]) == {"city", "age"}
    assert re.match("Row 0: why “(buys|leaves)”", visit.find("#ul-table-row h3").inner_text())
    expect(visit.find("#ul-table-row .ul-verdict")).to_contain_text("Usable: adds up")
    assert visit.find("#ul-table-summary .ul-rows").count() == 0
    saved = download(visit, "table", tmp_path)
    lines = read_lines(saved["csv"])
    assert [line["column"] for line in lines] == list(tab_models.people(1).columns)
    strongest = sorted(lines, key=lambda line: -abs(float(line["value"])))
    assert {line["column"] for line in strongest[:2]} == {"city", "age"}
    total = sum(float(line["value"]) for line in lines)
    gap = float(lines[0]["score"]) - float(lines[0]["base"])
    assert total == pytest.approx(gap, abs=1e-6)
    compile(saved["py"].read_text(), "code", "exec")
    assert saved["png"].read_bytes().startswith(b"\x89PNG")


def test_table_tab_explains_several_rows_and_shows_each(tab_window, people):
    visit = preview(upload(open_tab(tab_window, "Table"), "table", people), "table")
    visit.find("#ul-table-rows input, #ul-table-rows textarea").fill("3,5-7")
    choose(visit, "#ul-table-method", "^occlusion")
    choose(visit, "#ul-table-target", "^leaves$")
    visit.find("#ul-table-explain").click()
    visit.find("#ul-table-summary .ul-rows").wait_for()
    expect(visit.find("#ul-table-summary h3")).to_have_text("4 rows together")
    first = visit.find("#ul-table-summary .ul-column b").all_inner_texts()[:2]
    assert set(first) == {"city", "age"}
    expect(visit.find("#ul-table-row h3")).to_have_text("Row 3: why “leaves”?")
    expect(visit.find("#ul-table-row .ul-small").last).to_contain_text("By occlusion")
    choose(visit, "#ul-table-shown", "^row 6:")
    expect(visit.find("#ul-table-row h3")).to_have_text("Row 6: why “leaves”?")


def test_table_tab_offers_the_references_as_an_example(tab_window):
    visit = open_tab(tab_window, "Table")
    visit.find("#ul-table-example").click()
    preview(visit, "table")
    expect(visit.find("#ul-table-preview .ul-small")).to_contain_text("20 rows, 12 columns")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("people.csv", b"city,age\nOslo,4\n", r"missing 'noise 0'.*and 2 more"),
        ("people.csv", b"", "is empty"),
        ("people.txt", b"city,age\nOslo,4\n", "expected a CSV file"),
        ("people.csv", "city,Größe\nOslo,4\n".encode("latin-1"), "another encoding"),
        ("people.csv", b"city,age\nOslo,4,5\n", "expected 2 cells in line 2"),
    ],
)
def test_table_tab_refuses_a_bad_upload_in_one_line(tab_window, tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    visit = upload(open_tab(tab_window, "Table"), "table", path)
    line = error(visit)
    assert re.search(message, line)
    assert "\n" not in line
    assert str(tmp_path.parent) not in line


def test_table_tab_needs_a_file(tab_window):
    visit = open_tab(tab_window, "Table")
    visit.find("#ul-table-explain").click()
    assert error(visit) == "expected a CSV file; drop one"


def test_series_tab_shows_the_step_that_the_forecast_reads(tab_window, signals, tmp_path):
    visit = preview(upload(open_tab(tab_window, "Series"), "series", signals), "series")
    expect(visit.find("#ul-series-times input")).to_have_value("time")
    choose(visit, "#ul-series-step", "^step 2$")
    choose(visit, "#ul-series-output", "^wind$")
    visit.find("#ul-series-explain").click()
    visit.find("#ul-series-view .ul-series").wait_for()
    expect(visit.find("#ul-series-view h3")).to_have_text("Why this forecast of step 2 of wind?")
    names = visit.find("#ul-series-view .ul-column b").all_inner_texts()
    assert names == ["wind, step 21 (2024-01-01 21:00:00)"]
    image = visit.find("#ul-series-view .ul-figure img")
    assert image.evaluate("image => image.naturalWidth") > 600
    saved = download(visit, "series", tmp_path)
    lines = read_lines(saved["csv"])
    assert len(lines) == 48
    strongest = max(lines, key=lambda line: abs(float(line["attribution"])))
    assert (strongest["step"], strongest["channel"]) == ("21", "wind")
    assert float(strongest["attribution"]) == pytest.approx(
        0.6 * float(strongest["value"]), rel=1e-4
    )
    compile(saved["py"].read_text(), "code", "exec")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,c\n1,2,3\n1,2,3\n1,2,3\n", "3 steps and 3 channels.*2 channels are expected"),
        ("a,b\n1,2\n1,x\n", "expected numbers in column 'b'"),
        ("a,b\n1,2\n1,\n", "one at time step 1 in column 'b'"),
        ("1,2\n3,4\n", "names of columns in the first line"),
    ],
)
def test_series_tab_refuses_a_bad_upload_in_one_line(tab_window, tmp_path, text, message):
    path = tmp_path / "signals.csv"
    path.write_text(text)
    line = error(upload(open_tab(tab_window, "Series"), "series", path))
    assert re.search(message, line)
    assert "\n" not in line


@pytest.mark.parametrize("key", ["table", "series"])
def test_tab_veils_a_result_of_other_choices_and_scrolls_to_a_new_one(
    tab_window, people, signals, key
):
    visit = open_tab(tab_window, key.title(), width=380, height=800, reduced_motion="reduce")
    upload(visit, key, {"table": people, "series": signals}[key])
    preview(visit, key).find(f"#ul-{key}-explain").click()
    card = visit.find(f"#ul-{key}-results .ul-card").first
    expect(card.locator("h3")).to_be_in_viewport()
    notice = visit.find(f"#ul-{key}-outdated [role=status]")
    veil = visit.find(f"#ul-{key}-results > :has(.ul-card)").first
    expect(notice).to_have_count(0)
    expect(veil).to_have_css("opacity", "1")
    if key == "table":
        visit.find("#ul-table-target input").click()
        visit.page.get_by_role("option", name="buys").click()
    else:
        choose(visit, "#ul-series-step", "step 2")
    expect(notice).to_be_visible()
    expect(veil).to_have_css("opacity", "0.35")
    notice.get_by_role("button").click()
    expect(notice).to_have_count(0)
    said = {"table": "why “buys”?", "series": "forecast of step 2"}[key]
    expect(card.locator("h3")).to_contain_text(said)
    expect(veil).to_have_css("opacity", "1")


def test_tabs_cancel_and_escape_what_files_contain(tab_window, tmp_path):
    frame = tab_models.people(30)
    frame.loc[0, "city"] = "<img src=x onerror=alert(1)>"
    path = tmp_path / "<b>evil.csv"
    frame.to_csv(path, index=False)
    visit = upload(open_tab(tab_window, "Table"), "table", path)
    line = error(visit)
    assert "Found unknown categories" in line  # the encoder's own words
    assert "<img src=x onerror=alert(1)>" in line
    visit.find("#ul-table-cancel").click()
    expect(visit.find("#ul-table-status")).to_contain_text("Nothing was running.")
    assert visit.find("img[src=x]").count() == 0


@pytest.mark.parametrize("width", [1280, 380])
def test_tabs_fit_the_screen(tab_window, people, signals, width):
    visit = open_tab(tab_window, "Table", width=width)
    preview(upload(visit, "table", people), "table").find("#ul-table-explain").click()
    visit.find("#ul-table-row .ul-row").wait_for()
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    visit.page.get_by_role("tab", name="Series").click()
    preview(upload(visit, "series", signals), "series").find("#ul-series-explain").click()
    visit.find("#ul-series-view .ul-series").wait_for()
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
