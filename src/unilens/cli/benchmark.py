"""`unilens benchmark`: models, methods and metrics over a data set."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._catalogue import check_model, listing
from ..errors import UnilensError, UnknownNameError, require
from ..specs import read_settings, read_specs, split_specs
from . import options
from .app import app, needs_extra
from .explain import ALL
from .leaders import show_leaders, write
from .output import progress, show

if TYPE_CHECKING:
    from ..benchmark.plan import Plan
    from ..benchmark.runner import Outcome


@app.command()
def benchmark(
    plan: Annotated[Path | None, typer.Argument(metavar="PLAN", hidden=True)] = None,
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A plan of the package: smoke, paper, robustness."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "--models", metavar="NAME", help="As for explain; several as for methods."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="A folder, a URL (s3://, gs://), torchvision:NAME, hf:REPO, truth:NAME, samples.",
        ),
    ] = None,
    labels: options.Labels = None,
    split: options.Split = None,
    corruption: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:SEVERITY", help="Adds a corrupted copy of each image; severity 1 to 5."
        ),
    ] = None,
    method: options.Methods = None,
    metric: options.Metrics = None,
    set_: options.Settings = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "--targets",
            metavar="CLASS",
            help="The class that is explained: predicted; label, that of each image; or one for "
            "all, as for explain.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="Most images; all by default.")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Random seed.")] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="cpu, cuda, mps, ...")] = None,
    dtype: Annotated[str | None, typer.Option(metavar="NAME", help="float32 or float64.")] = None,
    engine: Annotated[
        str | None, typer.Option(metavar="NAME", help="local, or ray (extra ray).")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="A Ray cluster; without it, one is started on this machine."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Images at once, a process each.")
    ] = None,
    cpus: Annotated[int | None, typer.Option(metavar="N", help="Cores per worker.")] = None,
    gpus: Annotated[
        float | None, typer.Option(metavar="N", help="With Ray: GPUs per worker.")
    ] = None,
    random_weights: options.RandomWeights = False,
    out: options.RunFolder = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Compute failed rows again.")
    ] = False,
    allow_code: Annotated[
        bool,
        typer.Option(
            "--allow-code", help="Import and run functions (py:) that PLAN names, not only options."
        ),
    ] = False,
    report: Annotated[bool, typer.Option(help="Write the report at the end.")] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the plan and the data, and print the plan.")
    ] = False,
) -> None:
    """Compare methods by metrics on many images, and report.

    Runs every method on every image and evaluates every map by every metric.
    PLAN is a TOML file; options replace what it says.

    The same command, run again, continues an interrupted run.
    """
    models = [name.strip() for text in model or [] for name in text.split(",")]
    _check_names(models, method, metric)
    overrides = _without_none(
        {
            "models": models or None,
            "methods": split_specs(method or []) or None,
            "metrics": split_specs(metric or []) or None,
            "settings": read_settings(set_ or []) or None,
            "target": target,
            "seed": seed,
            "device": device,
            "dtype": dtype,
            "random_weights": random_weights or None,
            "data": {
                "source": data,
                "labels": labels,
                "split": split,
                "limit": limit,
                "corruptions": corruption and [_read_corruption(text) for text in corruption],
            },
            "engine": {
                "name": engine,
                "address": address,
                "workers": workers,
                "cpus": cpus,
                "gpus": gpus,
            },
        }
    )
    with needs_extra("benchmark", "benchmark"):
        from ..benchmark.code import check_code
        from ..benchmark.runner import run

    chosen, name = _choose(plan, preset, overrides)
    folder = out or free_folder(chosen, name)
    foreign = [name for name in chosen.code if name not in _typed(overrides)]
    if dry_run:
        _describe(chosen, folder, foreign)
        return
    check_code(() if allow_code else foreign)
    if foreign:
        show(f"imports {', '.join(foreign)}", highlight=False)
    with progress(None) as bar:

        def on_progress(done: int, planned: int, failed: int, image: str) -> None:
            bar.set(done, planned, image + (f" {failed} failed" if failed else ""))

        outcome = run(
            chosen, folder, retry_failed=retry_failed, allow_code=True, on_progress=on_progress
        )
    _conclude(outcome, folder)
    if report:
        write(folder)
        show_leaders(folder)
    if outcome.failed:
        raise typer.Exit(1)


def _check_names(models: list[str], methods: list[str] | None, metrics: list[str] | None) -> None:
    """Raise where a name or setting is unknown, before anything is loaded."""
    for name in models:
        check_model(name)
    for kind, given in (("methods", methods), ("metrics", metrics)):
        names = [name for name in split_specs(given or []) if name != ALL]
        read_specs(listing(kind), names)


def free_folder(plan: Plan, name: str) -> Path:
    """Return the first folder of this name and a number that is free, or has a run of the plan."""
    from ..benchmark.plan import check_resumable
    from ..benchmark.store import Store

    folder, number = options.FOLDER / name, 2
    while folder.exists():
        try:
            check_resumable(Store(folder).plan, plan)
            return folder
        except UnilensError:
            folder, number = options.FOLDER / f"{name}-{number}", number + 1
    return folder


def _choose(path: Path | None, preset: str | None, overrides: dict[str, Any]) -> tuple[Plan, str]:
    """Return the plan and the name of its run."""
    from ..benchmark.plan import presets, read_plan, read_plan_file

    require(path is None or preset is None, "expected a plan or --preset, got both; leave one out")
    if path is not None:
        return read_plan_file(path, overrides), path.stem
    known = presets()
    if preset is not None and preset not in known:
        raise UnknownNameError("preset", preset, known)
    if preset is not None:
        return read_plan(known[preset], overrides, f"preset {preset}"), preset
    require(
        bool(overrides),
        "expected a plan, --preset or flags; try: unilens benchmark --preset smoke",
    )
    return read_plan("", overrides, "the flags"), "benchmark"


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    kept = {
        key: _without_none(value) if isinstance(value, dict) and key != "settings" else value
        for key, value in values.items()
    }
    return {key: value for key, value in kept.items() if value is not None and value != {}}


def _read_corruption(text: str) -> dict[str, Any]:
    name, _, severity = text.partition(":")
    require(
        bool(re.fullmatch(r"\d+", severity)),
        f"expected --corruption NAME:SEVERITY, such as gaussian_noise:3, got {text!r}",
    )
    return {"name": name, "severity": int(severity)}


def _typed(overrides: Mapping[str, Any]) -> set[str]:
    """Return the names that options have, each between the marks of `name:setting=[value,...]`."""
    from ..benchmark.code import texts_in

    parts = [re.split(r"[=,\[\]]", text) for text in texts_in(overrides)]
    return {part.strip() for names in parts for part in names}


def _describe(plan: Plan, folder: Path, foreign: Sequence[str]) -> None:
    from ..benchmark.runner import planned_rows

    show(plan.model_dump_json(indent=2))
    images, rows = planned_rows(plan)
    show(f"{images} images, {rows} rows, to {folder}")
    if foreign:
        show(f"running it imports {', '.join(foreign)}: needs --allow-code", highlight=False)


def _conclude(outcome: Outcome, folder: Path) -> None:
    from ..benchmark.store import DIGEST_LIMIT, LOG, Store

    store = Store(folder)
    show(
        f"{outcome.written} rows written in {outcome.seconds:.0f} s, {outcome.before} before"
        + (f"; {outcome.failed} failed: {folder / LOG} says why" if outcome.failed else "")
    )
    if outcome.written + outcome.before <= DIGEST_LIMIT:
        show(f"digest {store.digest()}")
