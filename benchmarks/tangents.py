"""How much of the maps of eighteen methods lies in the tangent space of digits: docs/manifold.md.

Run:    python benchmarks/tangents.py FOLDER --data mnist5000
        python benchmarks/tangents.py FOLDER --data digits --dimension 8

An autoencoder and a classifier are fitted into FOLDER unless they are there; score.json, score.csv
and score.png are written beside them, and the table is printed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tangent_study.fitting import ABOUT, fit, open_fitted
from tangent_study.report import print_table, write_scores
from tangent_study.sets import SETS
from tangent_study.study import METHODS, score
from unilens.manifold.files import KINDS
from unilens.manifold.fitting import FitConfig


def main() -> None:
    """Fit, score, write and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", choices=SETS)
    parser.add_argument("--kind", choices=KINDS, default=FitConfig.kind)
    parser.add_argument("--dimension", type=int, default=FitConfig.dimension)
    parser.add_argument("--epochs", type=int, default=FitConfig.epochs)
    parser.add_argument("--method", action="append", help="several times; all by default")
    parser.add_argument("--limit", type=int, default=100, help="held-out images")
    parser.add_argument("--n-steps", type=int, default=15, help="of all path methods")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.data is not None and not (options.folder / ABOUT).exists():
        config = FitConfig(
            options.kind, options.dimension, epochs=options.epochs, seed=options.seed
        )
        fit(options.folder, options.data, config, on_epoch=_show)
    fitted = open_fitted(options.folder)
    scores = score(
        fitted,
        texts=options.method or METHODS,
        limit=options.limit,
        n_steps=options.n_steps,
        seed=options.seed,
        on_batch=_show,
    )
    settings = {"n_steps": options.n_steps, "limit": options.limit, "seed": options.seed}
    write_scores(scores, fitted, options.folder, settings)
    print_table(scores, fitted.about)


def _show(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    main()
