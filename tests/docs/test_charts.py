"""The charts and the five rows that open the pages of evidence."""

import importlib
import re
from collections import Counter
from pathlib import Path
from statistics import mean

import pytest
from pyarrow.parquet import read_table

from unilens.benchmark.data.items import hash_order

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
WITH_ROWS = (
    "benchmark",
    "beyond",
    "experiments",
    "domains",
    "transformers",
    "truth",
    "performance",
    "cost",
)


@pytest.fixture(scope="module")
def charts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        yield importlib.import_module("charts")


def text_of(page):
    return (DOCS / f"{page}.md").read_text(encoding="utf-8")


def shown_rows(page):
    """Return the cells of the rows between the marks of a page, by their first cell."""
    (part,) = re.findall(
        r"<!-- Written by docs/charts.py -->(.*?)<!-- End -->", text_of(page), re.DOTALL
    )
    lines = part.strip().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {first: rest for first, *rest in cells}


def number(cell):
    return float(cell.replace("−", "-").replace(",", ""))


def kept_means(run, left_out=0):
    """Return the mean of each model, method and metric, by pyarrow."""
    rows = read_table(ROOT / "benchmarks/results" / run / "rows")
    images = hash_order(set(rows["image"].to_pylist()))[left_out:]
    rows = rows.filter([image in images for image in rows["image"].to_pylist()])
    means = rows.group_by(["model", "method", "metric"]).aggregate([("value", "mean")])
    return {
        (row["model"], row["method"], row["metric"]): row["value_mean"] for row in means.to_pylist()
    }


@pytest.mark.parametrize("page", [*WITH_ROWS, "models"])
def test_page_of_evidence_opens_with_a_chart_and_five_rows(page, charts):
    assert page in charts.CHARTS
    opening = text_of(page).partition("\n## ")[0]
    (words,) = re.findall(rf"^# .*\n\n!\[([^\]]+)\]\(images/chart-{page}\.png\)", opening)
    assert len(words) > 40
    assert (DOCS / "images" / f"chart-{page}.png").exists()
    first_table = re.search(r"(?:^\|.*\n)+", opening, re.MULTILINE)[0]
    assert len(first_table.splitlines()) == 2 + 5


@pytest.mark.parametrize("page", WITH_ROWS)
def test_rows_on_the_page_are_those_of_the_chart(page, charts):
    assert "\n".join(charts.CHARTS[page]().rows) in text_of(page)


def test_tables_of_evidence_of_more_than_twenty_rows_are_folded(charts):
    for page in charts.CHARTS:
        unfolded = re.sub(r"<details.*?</details>", "", text_of(page), flags=re.DOTALL)
        tables = re.findall(r"(?:^\|.*\n)+", unfolded, re.MULTILINE)
        assert max(len(table.splitlines()) for table in tables) <= 22, page


def test_benchmark_rows_are_means_over_networks(charts):
    means = kept_means("comparison", left_out=31)
    metrics = ("mu_fidelity:subsets=100", "insertion_auc", "deletion_auc")
    full_step = "uni_blur:gradient=normalised,line_search=false,projection=sphere"
    kept_as = {
        "uni_blur (full step)": full_step,
        "ig, black": "ig:n_steps=15",
        "random (control)": "random",
    }
    rows = shown_rows("benchmark")
    for name, cells in rows.items():
        method = kept_as.get(name.strip("`"), name.strip("`"))
        for metric, cell in zip(metrics, cells, strict=True):
            over_networks = [means[f"efficientnet_lite{lite}", method, metric] for lite in range(3)]
            assert number(cell) == pytest.approx(mean(over_networks), abs=5.1e-4)
    panel = charts.benchmark().figure.axes[0]
    assert [round(bar.get_width(), 3) for bar in panel.patches][:2] == [
        number(rows[name][0]) for name in ("`uni_blur (full step)`", "`gradcam`")
    ]


def test_beyond_rows_count_the_verdicts_of_the_page(charts):
    rows = shown_rows("beyond")
    verdicts = re.findall(r"^\| (.+?) \|.*\| (best|level|below) \| [−+]", text_of("beyond"), re.M)
    counted = Counter(verdicts)
    assert sum(counted.values()) == 45
    for model, cells in rows.items():
        expected = [counted[model, verdict] for verdict in ("best", "level", "below")]
        assert [int(cell) for cell in cells] == expected
    good = sum(int(cells[0]) + int(cells[1]) for cells in rows.values())
    assert f"**Best or level in {good} of 45 cells" in text_of("beyond")


def test_experiments_rows_are_the_papers_figures_and_ours():
    rows = shown_rows("experiments")
    uni, ours, ig, our_ig = map(number, rows["1, monotonicity ↑"])  # table 1 of the paper
    assert uni == pytest.approx(mean((0.97, 0.95, 0.99, 0.94, 0.89, 0.97)), abs=5.1e-3)
    assert ig == pytest.approx(mean((0.69, 0.28, 0.76, 0.69, 0.71, 0.88)), abs=5.1e-3)
    means = kept_means("comparison")
    for method, shown in (("uni_paper", ours), ("ig:n_steps=15", our_ig)):
        values = [means[f"efficientnet_lite{lite}", method, "monotonicity"] for lite in range(3)]
        assert shown == pytest.approx(mean(values), abs=5.1e-3)
    confidence, _, no_ig, _ = rows["7, confidence ↓"]  # table 7, in percent
    expected = mean((-82.3, -76.9, -95.1, -71.6, -69.7, -84.6)) / 100
    assert number(confidence) == pytest.approx(expected, abs=5.1e-3)
    assert no_ig == "–"


def test_rows_of_a_page_stand_in_its_own_tables():
    for page, columns in (("transformers", 3), ("performance", 1), ("cost", 2)):
        below = text_of(page).partition("<!-- End -->")[2]
        for first, cells in shown_rows(page).items():
            (line,) = re.findall(
                rf"^\| {re.escape(first)} \|.*{re.escape(cells[0])}.*$", below, re.M
            )
            assert len(cells) == columns
            assert all(cell in line for cell in cells), (page, first)


def test_domains_rows_are_the_last_metric_of_each_section():
    sections = text_of("domains").split("\n## ")[1:]
    rows = shown_rows("domains")
    assert list(rows) == [section.partition("\n")[0] for section in sections]
    for section, cells in zip(sections, rows.values(), strict=True):
        for method, cell in zip(("uni_blur", "ig", "gradient", "random"), cells, strict=True):
            (line,) = re.findall(rf"^\| `{method}` \| (.*) \|$", section, re.MULTILINE)
            assert number(line.split("|")[4]) == number(cell)


def test_truth_rows_are_means_of_the_kept_rows():
    metrics = {
        "texture": "relevance_rank:reduction=abs",
        "shortcut": "relevance_rank:reduction=abs",
        "birds": "single_deletion",
    }
    kept_as = {"ig, black": "ig:n_steps=30", "random (control)": "random"}
    for name, cells in shown_rows("truth").items():
        method = kept_as.get(name.strip("`"), name.strip("`"))
        for (network, metric), cell in zip(metrics.items(), cells, strict=True):
            means = kept_means(f"truth/{network}")
            assert number(cell) == pytest.approx(
                means[f"truth:{network}", method, metric], abs=5.1e-3
            )


def test_write_rows_replaces_what_stands_between_the_marks(charts, tmp_path, monkeypatch):
    evidence = importlib.import_module("evidence")
    monkeypatch.setattr(evidence, "HERE", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(f"# A\n\n{evidence.BEGIN}\n\nold\n\n{evidence.END}\n\nB\n", encoding="utf-8")
    evidence.write_rows("page", ["| a |", "| 1 |"])
    expected = f"# A\n\n{evidence.BEGIN}\n\n| a |\n| 1 |\n\n{evidence.END}\n\nB\n"
    assert page.read_text(encoding="utf-8") == expected
    page.write_text("# A\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="expected the marks"):
        evidence.write_rows("page", ["| a |"])
