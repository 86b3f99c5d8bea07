"""Measure what maps cost, and print the tables of docs/cost.md.

Run:    python benchmarks/cost.py RUN [--config FILE] [--benchmark RUN]
        python benchmarks/cost.py RUN --only-tables

RUN/costs.jsonl has one line per measurement; the same command continues an interrupted study.
`--benchmark` names a run of `unilens benchmark`, whose rows give the bytes of one row on disk.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cost_study.config import UnitKey, read_config
from cost_study.measure import measure
from cost_study.store import CostStore
from cost_study.tables import print_tables
from unilens.benchmark.store import Store

DEFAULT = Path(__file__).parent / "cost_study" / "cost.toml"


def main() -> None:
    """Measure what is missing, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--config", type=Path, default=DEFAULT)
    parser.add_argument("--benchmark", type=Path)
    parser.add_argument("--retry-failed", action="store_true")
    parser.add_argument("--only-tables", action="store_true")
    options = parser.parse_args()
    if not options.only_tables:
        config = read_config(options.config)
        measure(config, options.run, retry_failed=options.retry_failed, on_row=_show)
    benchmark = Store(options.benchmark) if options.benchmark else None
    print_tables(CostStore(options.run), benchmark)


def _show(done: int, planned: int, key: UnitKey) -> None:
    print(f"{done} of {planned}: {key}", file=sys.stderr)


if __name__ == "__main__":
    main()
