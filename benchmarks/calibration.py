"""How often each warning fires, and how well each diagnostic predicts what it warns of.

    python benchmarks/calibration.py photos ROWS --network NAME --data FOLDER [--limit N] [--deep N]
    python benchmarks/calibration.py texts ROWS
    python benchmarks/calibration.py tables ROWS
    python benchmarks/calibration.py report ROWS

The first three write rows, one per map, and go on where they were stopped. `report` prints the
tables of docs/warnings.md from all rows of the folder.

Truths, per map. Photographs: the l2 distance from the map of 300 steps, as a share of its norm
(the first `--deep` photographs); how far the map moves under noise of a millionth, likewise; how
far MuFidelity and insertion lie below the best method's on the same photograph. Texts: 50 sentences
with one positive and one negative word, of which the strongest word should be one, with its sign.
Tables: 12 columns of which 3 count, in three models; the strongest column should be one of the
three, with its sign. Measured on a CPU.
"""

from __future__ import annotations

import argparse
import csv
import functools
import itertools
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet
import torch
from torch import Tensor, nn

import unilens
from unilens._engine.evaluator import Evaluator
from unilens._ops.precision import l2_norm
from unilens.attribution import Attribution
from unilens.baselines.blur import Blur, blurred
from unilens.diagnostics import WARNINGS, warn
from unilens.explainer import Method
from unilens.methods import methods
from unilens.methods.contradiction import sign_agreement
from unilens.models import load_model
from unilens.specs import read_specs

PHOTO_METHODS = [
    "uni_blur",
    "uni_blur:gradient=normalised,line_search=false,projection=sphere",
    "uni",
    "uni_paper",
    "ig:n_steps=15",
    "ig:n_steps=15,baseline=blur",
    "blur_ig:n_steps=15",
]
NETWORKS = {
    "lite0": "efficientnet_lite0",
    "lite2": "efficientnet_lite2",
    "squeezenet": "py:networks:squeezenet",
    "dinov2": "py:networks:dinov2",
}
TEXT_METHODS = {
    "uni, one step (the default before)": ("uni", {"matching_steps": 1, "rule": "midpoint"}),
    "uni": ("uni", {}),
    "ig:baseline=image_mean": ("ig", {"baseline": "image_mean"}),
    "ig:baseline=zero": ("ig", {"baseline": "zero"}),
    "ig:baseline=mask": ("ig", {"baseline": "mask"}),
    "occlusion:baseline=mask,window=1": ("occlusion", {"baseline": "mask", "window": 1}),
}
TABLE_METHODS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "uni, one step (the default before)": ("uni", {"matching_steps": 1, "rule": "midpoint"}),
    "uni": ("uni", {}),
    "ig": ("ig", {}),
    "idgi": ("idgi", {}),
    "input_x_gradient": ("input_x_gradient", {}),
    "expected_gradients (the default)": (None, {}),
}
STEPS = 300
NOISE = 1e-6
CELLS = 9
PREDICTS = {
    "few_steps": ("sum_error", 1, "true_error"),
    "completeness_gap": ("relative_gap", 1, "true_error"),
    "non_monotonic_path": ("confidence_fallback", 1, "drop"),
    "saturation": ("flat_fraction", 1, "drop"),
    "informative_baseline": ("confidence_change", 1, "drop"),
    "matching_loss_did_not_fall": ("matching_loss_fall", -1, "drop"),
    "sign_contradicted": ("sign_agreement", -1, "sign_wrong"),
}
"""By warning: its diagnostic, whether high (1) or low (-1) values are bad, and the truth."""
Row = dict[str, Any]
Known = Mapping[tuple[str, str], bool]
"""By item and method: whether the row that is held has the true error."""


def main() -> None:
    """Write rows, or print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["photos", "texts", "tables", "report"])
    parser.add_argument("rows", type=Path)
    parser.add_argument("--network", choices=NETWORKS)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--deep", type=int, default=0)
    given = parser.parse_args()
    if given.what == "report":
        print("\n".join(report(read(given.rows))))
        return
    if given.what == "photos":
        if given.network is None or given.data is None:
            sys.exit("expected --network and --data with photos")
        made = functools.partial(photo_rows, given.network, given.data, given.limit, given.deep)
        write(given.rows / f"{given.network}.parquet", made)
        return
    made = {"texts": text_rows, "tables": table_rows}[given.what]
    write(given.rows / f"{given.what}.parquet", made)


def photo_rows(
    network: str, folder: Path, limit: int | None, deep: int, known: Known
) -> Iterator[Row]:
    """Yield the rows of photographs: every other one of the folder first, then the others."""
    model = load_model(NETWORKS[network])
    evaluator = Evaluator(model)
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        names = sorted(row["file"] for row in csv.DictReader(file))
    chosen = [*names[::4], *names[2::4], *names[1::4], *names[3::4]][:limit]
    specs = read_specs(methods, PHOTO_METHODS)
    for number, name in enumerate(chosen):
        pixels = model.preprocess(folder / name).unsqueeze(0)
        for text, spec in specs.items():
            if known.get((name, text)) or ((name, text) in known and number >= deep):
                continue
            method = methods[spec.name](**spec.settings)
            row = {"domain": "photos", "network": network, "item": name, "method": text}
            yield row | photo_row(evaluator, pixels, method, number, number < deep)


def photo_row(evaluator: Evaluator, pixels: Tensor, method: Method, number: int, deep: bool) -> Row:
    """Return what is measured of one map of a photograph."""
    began = time.perf_counter()
    attribution = method(evaluator, pixels)
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(number))
    noisy = method(evaluator, pixels + NOISE * noise, attribution.target)
    cells = (torch.arange(pixels.shape[-2]) * CELLS // pixels.shape[-2]).unsqueeze(1) * CELLS
    cells = cells + torch.arange(pixels.shape[-1]) * CELLS // pixels.shape[-1]
    out_of_focus = blurred(pixels, Blur().sigma)
    row = {
        "moves": float(l2_norm(noisy.values - attribution.values) / l2_norm(attribution.values)),
        "mu_fidelity": value(evaluator, pixels, attribution, "mu_fidelity", subsets=100),
        "insertion": value(evaluator, pixels, attribution, "insertion_auc"),
        "cell_agreement": float(
            sign_agreement(evaluator, pixels, attribution, "probability", cells, out_of_focus)
        ),
        **measured(attribution),
    }
    if deep:
        settings = {name: getattr(method, name) for name in method.__dataclass_fields__}
        again = type(method)(**{**settings, "n_steps": STEPS})
        reference = again(evaluator, pixels, attribution.target).values
        row["true_error"] = float(l2_norm(attribution.values - reference) / l2_norm(reference))
    return row | {"seconds": time.perf_counter() - began}


def value(
    evaluator: Evaluator, pixels: Tensor, attribution: Attribution, metric: str, **settings: Any
) -> float:
    """Return a metric's value of one map."""
    found = unilens.evaluate(evaluator, pixels, attribution, metric=metric, **settings)
    return float(found)


def measured(attribution: Attribution, index: int = 0) -> Row:
    """Return the diagnostics of one map."""
    known = {name: float(values[index]) for name, values in attribution.diagnostics.items()}
    change = abs(known.get("score_change", 0.0))
    if change:
        known["relative_gap"] = abs(known.get("completeness_gap", float("nan"))) / change
    return known


GOOD = ("wonderful", "excellent", "superb", "charming", "brilliant", "delightful", "great")
BAD = ("terrible", "awful", "dreadful", "boring", "horrible", "poor", "disappointing")
THINGS = ("garden", "lecture", "soup", "room", "play")
SENTENCES = (
    "The {a} was {v}, but the {b} was {w}.",
    "We found the {b} {w} although the {a} seemed {v}.",
    "A {v} {a} and a {w} {b}, as the papers said.",
    "On Monday the {a} turned out {v}; the {b} was {w}.",
    "He called the {a} {v} and the {b} {w}.",
)
"""Templates and things that the head was not fitted to; its words are those it was fitted to."""


def sentences() -> Iterator[tuple[str, str, str]]:
    """Yield 50 sentences with their positive and their negative word."""
    for k in range(50):
        good, bad = GOOD[k % 7], BAD[(k * 3 + k // 7) % 7]
        first, last = (good, bad) if (k // 5) % 2 else (bad, good)
        a, b = THINGS[k % 5], THINGS[(k + 2) % 5]
        yield SENTENCES[k % 5].format(a=a, b=b, v=first, w=last), good, bad


def text_rows(known: Known) -> Iterator[Row]:
    """Yield the rows of sentences."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests.text_models import sentiment

    from unilens.text import TextClassifier, explain_text

    classifier = TextClassifier(*sentiment())
    for name, (method, settings) in TEXT_METHODS.items():
        for text, good, bad in sentences():
            if (text, name) in known:
                continue
            found = explain_text(classifier, text, method, **settings)
            values, words = found.word_values, found.tokens.words
            favoured = good if int(found.attribution.target) == 1 else bad
            strongest = int(values.abs().argmax())
            right = words[strongest] in (good, bad) and (
                (values[strongest] > 0) == (words[strongest] == favoured)
            )
            yield {
                "domain": "texts",
                "network": "MiniLM",
                "item": text,
                "method": name,
                "sign_wrong": float(not right),
                **measured(found.attribution),
            }


COLUMNS = 12
COUNT = (0, 3, 7)


def contributions(kind: str, rows: Tensor) -> Tensor:
    """Return what each column adds to the log odds of class 1, `(n, 12)`."""
    found = torch.zeros_like(rows)
    found[:, 3] = (-1.5 if kind == "curved" else -2.0) * rows[:, 3]
    found[:, 0] = 2 * torch.tanh(2 * rows[:, 0]) if kind == "curved" else 1.5 * rows[:, 0]
    found[:, 7] = rows[:, 7] ** 3 / 3 if kind == "curved" else rows[:, 7]
    return found


class Standardised(nn.Module):
    """A network behind the standardisation of its columns."""

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network, self.mean, self.std = network, mean, std

    def forward(self, rows: Tensor) -> Tensor:
        """Return logits `(n, 2)`."""
        result: Tensor = self.network((rows - self.mean) / self.std)
        return result


def table_model(kind: str) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a trained model, 100 held-out rows in its units, and the truth `(100, 12)`."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(2000, COLUMNS, generator=generator)
    odds = 2 * contributions(kind, rows).sum(1)
    labels = (torch.rand(2000, generator=generator) < odds.sigmoid()).long()
    mean, std = torch.zeros(COLUMNS), torch.ones(COLUMNS)
    if kind == "raw units":
        mean, std = torch.linspace(-3, 40, COLUMNS), torch.logspace(-1, 2, COLUMNS)
    torch.manual_seed(0)
    sizes = (COLUMNS, 32, 32, 2)
    layers = [nn.Linear(*pair) for pair in itertools.pairwise(sizes)]
    network = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    optimiser = torch.optim.Adam(network.parameters(), 1e-2, weight_decay=1e-4)
    for _ in range(200):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(rows[:1500]), labels[:1500]).backward()
        optimiser.step()
    held_out = rows[1500:1600]
    model = Standardised(network, mean, std).eval()
    return model, held_out * std + mean, contributions(kind, held_out)


def table_rows(known: Known) -> Iterator[Row]:
    """Yield the rows of tables, which take seconds: all of them, or none."""
    if known:
        return
    for kind in ("linear", "curved", "raw units"):
        model, rows, truth = table_model(kind)
        evaluator = Evaluator(model, independent=False)
        for name, (method, settings) in TABLE_METHODS.items():
            attribution = unilens.explain(evaluator, rows, method, **settings)
            expected = torch.where(attribution.target == 1, 1.0, -1.0).unsqueeze(1) * truth
            strongest = attribution.values.abs().argmax(1, keepdim=True)
            signs = (
                values.gather(1, strongest).sign() for values in (attribution.values, expected)
            )
            wrong = torch.ne(*signs).squeeze(1)
            for index in range(len(rows)):
                yield {
                    "domain": "tables",
                    "network": kind,
                    "item": f"{kind}, row {index}",
                    "method": name,
                    "sign_wrong": float(wrong[index]),
                    **measured(attribution, index),
                }


def write(path: Path, made: Callable[[Known], Iterator[Row]]) -> None:
    """Add the rows that a file does not hold yet, and write it after each minute."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held = pyarrow.parquet.read_table(path).to_pylist() if path.exists() else []
    rows = {(row["item"], row["method"]): row for row in held}
    written = time.perf_counter()
    for row in made({key: row.get("true_error") is not None for key, row in rows.items()}):
        rows[row["item"], row["method"]] = row
        if time.perf_counter() - written > 60:
            save(path, list(rows.values()))
            print(f"{path.stem}: {len(rows)} rows", file=sys.stderr)
            written = time.perf_counter()
    save(path, list(rows.values()))


def save(path: Path, rows: Sequence[Row]) -> None:
    """Write rows whose columns may differ."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def read(folder: Path) -> list[Row]:
    """Return all rows of a folder."""
    files = sorted(folder.glob("*.parquet"))
    if not files:
        sys.exit(f"expected a folder with rows, got none in {folder}; make some first")
    rows = [row for file in files for row in pyarrow.parquet.read_table(file).to_pylist()]
    return [row | {"warnings": warn(numbers(row))} for row in rows]


def numbers(row: Row) -> dict[str, float]:
    """Return the diagnostics of a row; warnings are those of the rules as they are now."""
    return {name: value for name, value in row.items() if isinstance(value, float)}


def report(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of all tables."""
    for domain in dict.fromkeys(row["domain"] for row in rows):
        of_domain = [row for row in rows if row["domain"] == domain]
        items = len({(row["network"], row["item"]) for row in of_domain})
        networks = ", ".join(dict.fromkeys(row["network"] for row in of_domain))
        yield f"\n### {domain.capitalize()}: {items} inputs ({networks})\n"
        yield from rates(of_domain)
        if domain == "photos":
            yield from error_ratios(of_domain)
            yield from quality(of_domain)
        else:
            yield from wrong_signs(of_domain)
    yield "\n### What each warning predicts\n"
    yield from predictions(with_drops(rows))


def halves(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Return the rows of every other item, and those of the others."""
    number = {item: k for k, item in enumerate(sorted({row["item"] for row in rows}))}
    first = [row for row in rows if number[row["item"]] % 2 == 0]
    return first, [row for row in rows if number[row["item"]] % 2]


def rates(rows: Sequence[Row]) -> Iterator[str]:
    """Yield how often each warning fires for each method: in one half of the inputs, the other."""
    names = [name for name in WARNINGS if any(name in row["warnings"] for row in rows)]
    yield f"| method | maps | {' | '.join(f'`{name}`' for name in names)} |"
    yield f"|---|---:{'|---:' * len(names)}|"
    for method in dict.fromkeys(row["method"] for row in rows):
        of_method = [row for row in rows if row["method"] == method]
        cells = [
            " / ".join(
                f"{numpy.mean([name in row['warnings'] for row in half]):.0%}"
                for half in halves(of_method)
            )
            for name in names
        ]
        yield f"| {method} | {len(of_method)} | {' | '.join(cells)} |"


def error_ratios(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the true error of each method's sum, and its ratio to the estimate."""
    yield "\n| method | maps | true error, median | true error / `sum_error`, median (quartiles) |"
    yield "|---|---:|---:|---:|"
    for method in dict.fromkeys(row["method"] for row in rows):
        pairs = [
            (row["true_error"], row["sum_error"])
            for row in rows
            if row["method"] == method and row.get("true_error") and row.get("sum_error")
        ]
        if pairs:
            true, estimate = numpy.array(pairs).T
            low, middle, high = numpy.quantile(true / estimate, [0.25, 0.5, 0.75])
            shown = f"{middle:.2f} ({low:.2f} to {high:.2f})"
            yield f"| {method} | {len(pairs)} | {numpy.median(true):.3f} | {shown} |"


def quality(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the means of each method in one half of the photographs / in the other."""
    names = {"mu_fidelity": "MuFidelity", "insertion": "insertion", "moves": "moves under noise"}
    yield f"\n| method | {' | '.join(names.values())} |"
    yield f"|---{'|---:' * len(names)}|"
    for method in dict.fromkeys(row["method"] for row in rows):
        both = halves([row for row in rows if row["method"] == method])
        cells = [
            " / ".join(f"{numpy.mean([row[name] for row in half]):.3f}" for half in both)
            for name in names
        ]
        yield f"| {method} | {' | '.join(cells)} |"


def wrong_signs(rows: Sequence[Row]) -> Iterator[str]:
    """Yield how often each method's strongest sign is wrong, and what `sign_contradicted` finds."""
    yield "\n| method | wrong, one half / the other | warned when wrong | warned when right |"
    yield "|---|---:|---:|---:|"
    for method in dict.fromkeys(row["method"] for row in rows):
        of_method = [row for row in rows if row["method"] == method]
        wrong = " / ".join(
            f"{numpy.mean([row['sign_wrong'] for row in half]):.0%}" for half in halves(of_method)
        )
        warned = [
            share([row for row in of_method if row["sign_wrong"] == truth]) for truth in (1, 0)
        ]
        yield f"| {method} | {wrong} | {' | '.join(warned)} |"


def share(rows: Sequence[Row]) -> str:
    """Return how many of some maps are warned of a contradicted sign."""
    warned = sum("sign_contradicted" in row["warnings"] for row in rows)
    return f"{warned} of {len(rows)}"


def with_drops(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with `drop`: how far MuFidelity and insertion lie below the best, halved."""
    best: dict[tuple[str, str, str], float] = defaultdict(lambda: -numpy.inf)
    names = ("mu_fidelity", "insertion")
    for row in rows:
        for name in names:
            if row.get(name) is not None:
                key = row["network"], row["item"], name
                best[key] = max(best[key], row[name])
    return [
        row
        | {"drop": sum(best[row["network"], row["item"], name] - row[name] for name in names) / 2}
        if row.get("mu_fidelity") is not None
        else row
        for row in rows
    ]


def predictions(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the rank correlation of each diagnostic with what its warning warns of."""
    yield "| warning | diagnostic | truth | maps | rank correlation (95 % interval) |"
    yield "|---|---|---|---:|---:|"
    asked = [(name, *facts) for name, facts in PREDICTS.items()]
    asked += [("few_steps", "sum_error", 1, truth) for truth in ("moves", "drop")] + [
        ("completeness_gap", "relative_gap", 1, truth) for truth in ("moves", "drop")
    ]
    asked += [("none: a candidate", "cell_agreement", -1, "drop")]
    asked += [
        (name, diagnostic, sign, "sign_wrong")
        for name, (diagnostic, sign, truth) in PREDICTS.items()
        if truth != "sign_wrong"
    ]
    for warning, diagnostic, sign, truth in asked:
        known = [row for row in rows if _finite(row.get(diagnostic)) and _finite(row.get(truth))]
        if len({(row["network"], row["item"]) for row in known}) < 3:
            continue
        found, low, high = correlation(known, diagnostic, sign, truth)
        shown = f"{found:.2f} ({low:.2f} to {high:.2f})"
        yield f"| `{warning}` | `{diagnostic}` | {truth} | {len(known)} | {shown} |"


def _finite(value: float | None) -> bool:
    return value is not None and bool(numpy.isfinite(value))


def correlation(
    rows: Sequence[Row], diagnostic: str, sign: int, truth: str, draws: int = 1000
) -> tuple[float, float, float]:
    """Return the rank correlation, and its bootstrap interval by input of a network.

    Ranks are those within network and method; of the true error, whose rows are few, within all
    rows.
    """
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        key = ("", "") if truth == "true_error" else (row["network"], row["method"])
        groups[key].append(row)
    pairs: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for group in groups.values():
        columns = [
            centred([scale * row[key] for row in group])
            for scale, key in ((sign, diagnostic), (1, truth))
        ]
        for row, *pair in zip(group, *columns, strict=True):
            pairs[row["network"], row["item"]].append(tuple(pair))
    items = list(pairs)
    generator = numpy.random.default_rng(0)
    found = [pearson([pair for item in items for pair in pairs[item]])]
    for _ in range(draws):
        drawn = generator.choice(len(items), len(items))
        found.append(pearson([pair for k in drawn for pair in pairs[items[k]]]))
    return found[0], *numpy.nanquantile(found[1:], [0.025, 0.975])


def centred(values: Sequence[float]) -> list[float]:
    """Return the ranks of a group's values, from -1 to 1; all 0 where they are equal."""
    order = numpy.array(values)
    ranks = numpy.array([(order < value).mean() - (order > value).mean() for value in order])
    return list(ranks)


def pearson(pairs: Sequence[tuple[float, float]]) -> float:
    """Return the correlation of pairs of centred ranks; NaN where either is constant."""
    first, second = numpy.array(pairs).T
    scale = numpy.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / scale) if scale else float("nan")


if __name__ == "__main__":
    main()
