"""Do the tests notice when the code is broken? Deliberate breaks of the core, by cosmic-ray.

Run:    pip install cosmic-ray; python benchmarks/mutation.py [NAME ...] [--sample N] [--seed N]

NAME is one of `PARTS`; by default all. Each break is made in a copy of the checkout, and the tests
named here run until one fails: a break that none notices has survived. The score is the share of
breaks that are noticed, with the interval of a sample (Wilson, 95 %). Type hints, which nothing
runs, are left unbroken. Survivors are printed, to be read: some change nothing.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from scipy.stats import binomtest

ROOT = Path(__file__).parents[1]
SECONDS = 300
"""Of the tests of one break; one that runs longer is noticed."""
HINTS = "core/ReplaceBinaryOperator_BitOr_"
"""Breaks of `A | B`, in this code hardly anything but a type hint."""


class Part(NamedTuple):
    """What is broken, and the tests that should notice; paths within src/unilens and tests."""

    code: str
    tests: str


PARTS = {
    "path_attribution": Part(
        "path_attribution.py",
        "unit/test_quadrature.py unit/test_combinations.py oracle/test_paths.py"
        " oracle/test_captum.py oracle/test_searched_paths.py oracle/test_sum_error.py"
        " contract/test_methods.py",
    ),
    "unlearned": Part(
        "baselines/unlearned.py",
        "oracle/test_uni.py unit/test_baselines.py unit/test_bad_input.py"
        " kinds/test_unlearning_at_once.py unit/test_combinations.py contract/test_methods.py",
    ),
    "quadrature": Part("quadrature.py", "unit/test_quadrature.py unit/test_combinations.py"),
    "weightings": Part(
        "weightings",
        "unit/test_combinations.py oracle/test_paths.py oracle/test_sum_error.py"
        " contract/test_methods.py",
    ),
    "faithfulness": Part(
        "metrics/faithfulness",
        "oracle/test_metric_axioms.py oracle/test_metric_removal.py oracle/test_metric_road.py"
        " oracle/test_metric_sensitivity.py oracle/test_metric_infidelity.py"
        " oracle/test_metric_inpaint.py oracle/test_metric_magnitude_alignment.py"
        " oracle/test_metric_parts.py unit/test_metrics_input.py unit/test_metrics_undefined.py"
        " contract/test_metrics.py",
    ),
}


def main() -> None:
    """Break, test, and print the scores and what survived."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PARTS))
    parser.add_argument("--sample", type=int, help="breaks of each part; by default all")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    unknown = set(given.names) - set(PARTS)
    if unknown:
        parser.error(f"unknown part: {', '.join(sorted(unknown))}; expected {', '.join(PARTS)}")
    for name in given.names or PARTS:
        score(name, given.sample, given.seed)


def score(name: str, sample: int | None, seed: int) -> None:
    """Break one part, and print its score."""
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for place in ("src", "tests", "docs", "benchmarks"):
            shutil.copytree(ROOT / place, copy / place, ignore=shutil.ignore_patterns("results"))
        for file in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / file, copy)
        (copy / "plan.toml").write_text(plan(PARTS[name]), encoding="utf-8")
        cosmic_ray(copy, "init", "plan.toml", "session.sqlite")
        with sqlite3.connect(copy / "session.sqlite") as session:
            everything, chosen = choose(session, sample, seed)
        cosmic_ray(copy, "baseline", "--session-file", "baseline.sqlite", "plan.toml")
        cosmic_ray(copy, "exec", "plan.toml", "session.sqlite")
        with sqlite3.connect(copy / "session.sqlite") as session:
            survived = survivors(session)
    killed = chosen - len(survived)
    interval = binomtest(killed, chosen).proportion_ci(method="wilson")
    console.print(
        f"{name}: {killed} of {chosen} breaks noticed ({killed / chosen:.0%}, "
        f"{interval.low:.0%} to {interval.high:.0%}); {everything} possible",
        highlight=False,
    )
    for place, diff in survived:
        console.print(f"  survived, {place}:\n{diff}", highlight=False, markup=False)


def plan(part: Part) -> str:
    """Return a configuration of cosmic-ray, in TOML."""
    tests = " ".join(f"tests/{path}" for path in part.tests.split())
    command = f"{sys.executable} -m pytest -x -q -p no:cacheprovider {tests}"
    return (
        f'[cosmic-ray]\nmodule-path = "src/unilens/{part.code}"\ntimeout = {SECONDS}\n'
        f'excluded-modules = []\ntest-command = "{command}"\n'
        '[cosmic-ray.distributor]\nname = "local"\n'
    )


def cosmic_ray(folder: Path, *arguments: str) -> None:
    """Run a command of cosmic-ray in the copy, whose code is the code that is imported."""
    environment = {"PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(
        [sys.executable, "-m", "cosmic_ray.cli", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
    )


def choose(session: sqlite3.Connection, sample: int | None, seed: int) -> tuple[int, int]:
    """Keep a random sample of the breaks; return how many are possible and how many are kept."""
    jobs = [
        job
        for (job,) in session.execute(
            "SELECT job_id FROM mutation_specs WHERE operator_name NOT LIKE ? || '%'"
            " ORDER BY module_path, operator_name, occurrence",
            (HINTS,),
        )
    ]
    kept = random.Random(seed).sample(jobs, min(sample or len(jobs), len(jobs)))
    session.execute("CREATE TEMP TABLE kept (job_id)")
    session.executemany("INSERT INTO kept VALUES (?)", [(job,) for job in kept])
    for table in ("mutation_specs", "work_items"):
        session.execute(f"DELETE FROM {table} WHERE job_id NOT IN (SELECT job_id FROM kept)")
    return len(jobs), len(kept)


def survivors(session: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return the place and the change of each break that no test noticed."""
    return session.execute(
        "SELECT module_path || ':' || start_pos_row, diff FROM work_results"
        " JOIN mutation_specs USING (job_id) WHERE test_outcome = 'SURVIVED'"
    ).fetchall()


if __name__ == "__main__":
    main()
