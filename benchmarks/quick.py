"""Measure how long the command line takes to answer what needs no model, against `import torch`.

Run `python benchmarks/quick.py`: every command in a new process, several times in turn, so that all
of them meet the same load; the table has the fastest of each and its share of the import.
"""

from __future__ import annotations

import subprocess
import sys
import time

RUNS = 5
MAIN = "from unilens.cli import main; main()"
COMMANDS = {
    "import torch": ("import torch",),
    "python alone": ("pass",),
    "unilens --help": (MAIN, "--help"),
    "unilens explain --help": (MAIN, "explain", "--help"),
    "unilens --version": (MAIN, "--version"),
    "unilens list methods": (MAIN, "list", "methods"),
    "unilens list methods uni": (MAIN, "list", "methods", "uni"),
    "unilens explain --colour": (MAIN, "explain", "--colour"),
    "unilens explain --sample chelsae": (MAIN, "explain", "--sample", "chelsae"),
    "unilens explain nowhere.png": (MAIN, "explain", "nowhere.png"),
    "unilens explain --method uno": (MAIN, "explain", "--sample", "chelsea", "--method", "uno"),
    "unilens explain --model resnet50": (
        *(MAIN, "explain", "--sample", "chelsea", "--model", "resnet50"),
    ),
    "import unilens": ("import unilens",),
}


def seconds(code: str, *arguments: str) -> float:
    """Return how long a new process takes."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=False)
    return time.perf_counter() - began


def main() -> None:
    """Print seconds and shares as a table in Markdown."""
    rounds = [{name: seconds(*call) for name, call in COMMANDS.items()} for _ in range(RUNS)]
    fastest = {name: min(times[name] for times in rounds) for name in COMMANDS}
    print("| command | seconds | share of `import torch` |\n|---|---|---|")
    for name, value in fastest.items():
        print(f"| `{name}` | {value:.2f} | {value / fastest['import torch']:.2f} |")


if __name__ == "__main__":
    main()
