"""The tables of the pages, from the rows that lie beside the benchmarks."""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

from pyarrow.parquet import read_table

from unilens.benchmark.data.items import hash_order
from unilens.benchmark.plan import make_plan, read_plan_file
from unilens.benchmark.store import Store

ROOT = Path(__file__).parents[2]
OURS = "uni_blur:gradient=normalised,line_search=false,projection=sphere"
"""The method of which the kept rows are: its search takes one full step."""
SHORT = {OURS: "uni_blur` (full step)", f"{OURS},n_steps=8": "uni_blur:n_steps=8` (full step)"}
PAGE = (ROOT / "docs" / "beyond.md").read_text(encoding="utf-8").replace("−", "-")


def printed(*arguments):
    command = [sys.executable, "benchmarks/beyond.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def cells_of(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def table_of(text, columns):
    """Return the cells of all rows of tables of so many columns, without headings."""
    rows = [cells_of(line) for line in text.splitlines() if line.startswith("| ")]
    headings = ("model", "setting", "map")
    return [row for row in rows if len(row) == columns and row[0] not in headings]


def test_where_uni_stands():
    runs = (f"benchmarks/results/{name}" for name in ("comparison:31", "digits"))
    said = printed("standing", *runs)
    ours, shown = table_of(said, 8), table_of(PAGE, 8)
    assert len(ours) == 45
    assert [row[2:4] + row[5:] for row in ours] == [row[2:4] + row[5:] for row in shown]
    good = sum(row[6] in ("best", "level") for row in ours)
    assert f"Best or level in {good} of 45 cells, {100 * good / 45:.0f} %" in PAGE
    assert f"best or level in {good / 45:.0%}" in said


def test_what_matters():
    ours = table_of(printed("settings", "benchmarks/results/settings"), 10)
    shown = table_of(PAGE, 10)
    assert len(ours) == 36
    assert [row[1:] for row in ours] == [row[1:] for row in shown]


def test_maps_under_attack():
    ours = table_of(printed("settings", "benchmarks/results/trust"), 9)
    shown = table_of(PAGE, 9)
    assert len(ours) == 8
    assert [row[1:] for row in ours] == [row[1:] for row in shown]


def test_the_means_of_the_comparison():
    rows = read_table(ROOT / "benchmarks/results/comparison/rows/rows.parquet")
    means = {
        (row["model"], SHORT.get(row["method"], row["method"]), row["metric"]): row["value_mean"]
        for row in rows.group_by(["model", "method", "metric"])
        .aggregate([("value", "mean")])
        .to_pylist()
    }
    metrics = list(dict.fromkeys(rows["metric"].to_pylist()))
    page = (ROOT / "docs" / "benchmark.md").read_text(encoding="utf-8")
    parts = page.split("**EfficientNet-Lite")[1:]
    assert len(parts) == 3
    for part in parts:
        lines = [line for line in part.partition("\nWhat it says")[0].splitlines() if "| `" in line]
        assert len(lines) == 30
        for line in lines:
            method, _, *cells = cells_of(line)
            for metric, cell in zip(metrics, cells, strict=True):
                mean = means[f"efficientnet_lite{part[0]}", method.strip("`"), metric]
                shown = cell.strip("*")
                assert (mean is None) == (shown == "–")
                assert mean is None or abs(float(shown) - mean) < 5.1e-4


def test_what_choosing_on_half_of_them_brings():
    rows = read_table(ROOT / "benchmarks/results/comparison/rows/rows.parquet").to_pylist()
    first = set(hash_order({row["image"] for row in rows})[:31])
    page = " ".join((ROOT / "docs" / "benchmark.md").read_text(encoding="utf-8").split())

    def better(lite, metric):
        """How much better the first half is: `uni_blur`, and the mean of all that is not UNI."""
        halves = defaultdict(lambda: ([], []))
        for row in rows:
            here = row["model"] == f"efficientnet_lite{lite}" and row["metric"] == metric
            if here and row["value"] is not None:
                halves[row["method"]][row["image"] not in first].append(row["value"])
        found = {name: mean(one) - mean(two) for name, (one, two) in halves.items()}
        others = mean(value for name, value in found.items() if not name.startswith("uni"))
        return f"{abs(found[OURS]):.2f}", f"{others:.2f}"

    metrics = ("mu_fidelity:subsets=100", "insertion_auc")
    (mu, mu_others), (inserted, inserted_others) = (better(0, metric) for metric in metrics)
    assert mu_others == inserted_others
    assert f"by {mu} in μ-fidelity and {inserted} in insertion; the other methods are by " in page
    assert f"the other methods are by {mu_others} in both" in page
    for lite in (2, 1):
        (mu, mu_others), (inserted, inserted_others) = (better(lite, one) for one in metrics)
        assert f"{mu} and {inserted} against {mu_others} and {inserted_others}" in page


def test_what_is_kept_is_gone_on_with(tmp_path):
    folder = tmp_path / "run"
    kept, into = "benchmarks/results/comparison", [str(folder), "--data", str(tmp_path)]
    command = [sys.executable, "benchmarks/keep.py", kept, *into]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.startswith("56700 rows of 63 images")
    plan = read_plan_file(ROOT / "benchmarks" / "comparison.toml").model_dump()
    plan["data"] |= {"source": str(tmp_path), "limit": 63}
    store = Store.create(folder, make_plan(plan), 63)
    assert len(store.index()) == 56700
    assert store.table() == Store(ROOT / kept).table()
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode
    assert "expected a folder that is yet to be made" in again.stderr


def test_known_truth():
    """The tables of the page are what the script prints of the kept rows."""
    command = [sys.executable, "benchmarks/truth.py", "tables", "benchmarks/results/truth"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    page = (ROOT / "docs" / "truth.md").read_text(encoding="utf-8")
    lines = [line for line in said.splitlines() if line.startswith("| ")]
    assert len(lines) == 27 + 28 + 28 + 7  # VarGrad has no value on texture
    assert [line for line in lines if line not in page] == []


def test_agreement_with_the_truth():
    """A cell of the agreement, by pandas."""
    metrics = ("relevance_rank:reduction=abs", "insertion_auc")
    frame = read_table(ROOT / "benchmarks/results/truth/shortcut/rows/rows.parquet").to_pandas()
    frame = frame[~frame["method"].isin(["random", "edges"])]
    means = frame.pivot_table(index="method", columns="metric", values="value")
    expected = means.round(9).corr(method="spearman").loc[metrics]
    line = next(
        line
        for line in (ROOT / "docs" / "truth.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `insertion_auc` |")
    )
    assert float(cells_of(line)[2].partition(" ")[0].replace("−", "-")) == round(expected, 2)
