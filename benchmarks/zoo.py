"""Which models unilens explains: one of each family of timm, torchvision and transformers.

Run:    python benchmarks/zoo.py --out FILE [--library NAME] [--only PATTERN] [--limit N]
        python benchmarks/zoo.py --out FILE --write-docs

Weights are random and inputs small; nothing is downloaded. A result is one line of JSON in FILE; a
model that has one there is left out, so that a sweep goes on where it ended. `--write-docs` makes
docs/models.md from FILE. Every model runs in a process of its own, forked from this one (on Linux),
with limits on its time and memory.

A model is right if, in float64,

- the outputs of `Evaluator(model)` equal the model's, called with one input at a time, to 1e-9 of
  the largest of them (or of 1);
- integrated gradients of the predicted class's logit equal captum's with the same quadrature (one
  point per pass: models whose points are not independent have no other reference) to 1e-6 of the
  largest attribution;
- UNI and Grad-CAM give finite maps, or refuse in one line;
- the model's weights, buffers and modes are as before, to the last bit.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fnmatch
import json
import multiprocessing
import platform
import resource
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import transformers
from captum.attr import IntegratedGradients
from torch import Tensor, nn

from unilens import Evaluator, UnilensError, explain
from unilens.errors import first_line
from zoo_models import LIBRARIES, Built, Family, NotBuiltError, build, families

Record = dict[str, Any]
STEPS = 4
OUTPUT_TOLERANCE = 1e-9
MAP_TOLERANCE = 1e-6
SECONDS = 120
BYTES = 12 * 2**30
RIGHT, REFUSED, WRONG, RAW = "right", "refused in one line", "wrong in silence", "raw exception"
STOPPED, VACUOUS, NOT_BUILT = "out of time or memory", "nothing to compare", "not built"
STATUSES = (RIGHT, REFUSED, WRONG, RAW, STOPPED, VACUOUS)
"""What can become of a model; one that is not built is none."""
PAGE = Path(__file__).parents[1] / "docs" / "models.md"
PACKAGES = ("torch", "torchvision", "timm", "transformers", "captum")


def check(built: Built) -> Record:
    """Return what becomes of a model: its status, and the numbers and lines behind it."""
    found: Record = {"model": built.name, "parameters": built.parameters}
    found["input"] = "x".join(str(side) for side in built.inputs.shape[1:])
    outputs = one_at_a_time(built.model, built.inputs)
    if not torch.equal(outputs, one_at_a_time(built.model, built.inputs)):
        return found | {"status": VACUOUS, "notes": ["the model gives other outputs each time"]}
    target = outputs.argmax(1)
    expected = captum_map(built, target)
    if not expected.isfinite().all() or expected.abs().max() < 1e-12:
        return found | {"status": VACUOUS, "notes": ["captum's map is zero or not finite"]}
    before = state_of(built.model)
    explained = [
        _step(found, name, step, built, target, outputs, expected)
        for name, step in (
            ("outputs", _outputs),
            ("ig", _ig),
            ("uni_blur", _uni),
            ("gradcam", _cam),
        )
    ]
    notes = [f"{name}: {note}" for name, _, note in explained if note]
    statuses = [status for _, status, _ in explained]
    if state_of(built.model) != before:
        statuses.append(WRONG)
        notes.append("the model has changed")
    status = next((one for one in (RAW, WRONG, REFUSED) if one in statuses), RIGHT)
    if explained[1][1] == WRONG and not slope_is_right(built, target):
        status = VACUOUS
        notes.append("the model's own gradient is not its slope, by central differences")
    return found | {"status": status, "notes": notes}


def one_at_a_time(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the model's own outputs `(B, K)`, each input alone."""
    with torch.no_grad():
        return torch.cat([model(one) for one in inputs.split(1)])


def captum_map(built: Built, target: Tensor) -> Tensor:
    """Return captum's integrated gradients of a logit from zero, `(B, *S)`, point by point."""
    method = IntegratedGradients(built.model)
    maps = [
        method.attribute(
            one.clone(),
            target=int(index),
            n_steps=STEPS,
            method="gausslegendre",
            internal_batch_size=1,
        ).detach()
        for one, index in zip(built.inputs.split(1), target, strict=True)
    ]
    return torch.cat(maps)


def slope_is_right(built: Built, target: Tensor) -> bool:
    """Whether the model's gradient agrees with central differences along a random direction.

    It does not where torch itself is wrong (seen in CvT, whose gradient depends on the memory
    layout); captum's maps, which are made of it, are no reference there.
    """
    inputs, index = built.inputs[:1], int(target[0])
    direction = 1e-6 * torch.randn_like(inputs)
    leaf = inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(built.model(leaf)[0, index], leaf)
    ends = one_at_a_time(built.model, torch.cat([inputs + direction, inputs - direction]))
    slope = (ends[0, index] - ends[1, index]) / 2
    return bool((slope - (gradient * direction).sum()).abs() <= 0.01 * 1e-6 * gradient.norm())


def state_of(model: nn.Module) -> list[Any]:
    """Return the bytes of all weights and buffers, the flags and the modes of a model."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    state: list[Any] = [
        (name, value.requires_grad, hash(bytes_of(value))) for name, value in tensors
    ]
    return state + [(name, part.training) for name, part in model.named_modules()]


def bytes_of(value: Tensor) -> bytes:
    """Return what a tensor holds."""
    return value.detach().flatten().view(torch.uint8).numpy().tobytes()


def _step(
    found: Record, name: str, step: Callable[..., object], *given: object
) -> tuple[str, str, str]:
    """Return the name of a step, its status and a note; put what it found into the record."""
    try:
        found[name], right = step(*given)
    except UnilensError as error:
        found[name], one_line = "refused", "\n" not in str(error)
        needed = name in ("outputs", "ig")
        return name, (REFUSED if needed else RIGHT) if one_line else RAW, str(error)
    except Exception as error:
        found[name] = "raised"
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        return name, RAW, f"{type(error).__name__} at {where}: {first_line(error)}"
    return name, RIGHT if right else WRONG, "" if right else f"got {found[name]}"


def _outputs(built: Built, target: Tensor, outputs: Tensor, expected: Tensor) -> tuple[float, bool]:
    got = Evaluator(built.model).outputs(built.inputs.unsqueeze(0))[0]
    difference = float((got - outputs).abs().max() / outputs.abs().max().clamp(min=1))
    return difference, difference <= OUTPUT_TOLERANCE


def _ig(built: Built, target: Tensor, outputs: Tensor, expected: Tensor) -> tuple[float, bool]:
    got = explain(
        built.model,
        built.inputs,
        "ig",
        target,
        n_steps=STEPS,
        rule="gauss_legendre",
        baseline="constant",
        value=0.0,
        score="logit",
    ).values
    difference = float((got - expected).abs().max() / expected.abs().max())
    return difference, difference <= MAP_TOLERANCE


def _uni(built: Built, target: Tensor, outputs: Tensor, expected: Tensor) -> tuple[str, bool]:
    found = explain(built.model, built.inputs[:1], "uni_blur", target[:1], n_steps=2)
    return "runs", bool(found.values.isfinite().all())


def _cam(built: Built, target: Tensor, outputs: Tensor, expected: Tensor) -> tuple[str, bool]:
    found = explain(built.model, built.inputs[:1], "gradcam", target[:1])
    return str(found.provenance["layers"][0]), bool(found.values.isfinite().all())


# --- the sweep ---


def examine(family: Family) -> Record:
    """Return the record of a family's model, made in this process."""
    record: Record = {"library": family.library, "family": family.name}
    begin = time.process_time()
    try:
        record |= check(build(family))
    except NotBuiltError as error:
        record |= {"status": NOT_BUILT, "notes": [str(error)]}
    return record | {"seconds": round(time.process_time() - begin, 1)}


def _in_child(family: Family, end: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    torch.set_num_threads(1)
    try:
        record = examine(family)
    except Exception as error:
        note = f"{type(error).__name__} in the model itself: {first_line(error)}"
        record = {"library": family.library, "family": family.name}
        record |= {"status": NOT_BUILT, "notes": [note]}
    end.send(record)


def examine_apart(family: Family, seconds: float = SECONDS) -> Record:
    """Return the record of a family's model, made in a process that may be stopped."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_in_child, args=(family, theirs))
    child.start()
    theirs.close()
    record: Record = {"library": family.library, "family": family.name, "status": STOPPED}
    record |= {"seconds": seconds}
    record |= {"model": family.members[0], "notes": [f"no result; limit {seconds:g} s"]}
    try:
        with contextlib.suppress(EOFError):  # the process has ended without a word
            if ours.poll(seconds):
                record = ours.recv()
    finally:
        child.kill()
        child.join()
    return record


def environment() -> dict[str, str]:
    """Return the versions that decide what the sweep finds."""
    found = {name: version(name) for name in PACKAGES}
    return {"unilens": version("unilens"), "python": platform.python_version(), **found}


def read(path: Path) -> list[Record]:
    """Return the records of a sweep, in the order of the families."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def sweep(path: Path, chosen: list[Family]) -> None:
    """Examine the families that have no record in the file, and add their records."""
    seen = {(record["library"], record["family"]) for record in read(path)}
    for number, family in enumerate(chosen, 1):
        if (family.library, family.name) in seen:
            continue
        record = examine_apart(family) | {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "versions": environment(),
        }
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        head = f"{number}/{len(chosen)} {family.library} {family.name}"
        said = (head, record["status"], record.get("seconds"), *record["notes"])
        print(*said, sep=" | ", flush=True)


# --- the page ---

COLUMNS = (
    *("family", "model", "parameters", "input", "status"),
    *("outputs", "ig", "uni_blur", "Grad-CAM layer", "notes"),
)
TITLE = """# Models

![Points of the largest difference from captum for each model of timm, torchvision and
transformers; all lie below one
millionth.](images/chart-models.png)
"""
HEAD = """Is your model here? The tables have one model of each family that timm, torchvision and
transformers build: the smallest, with random weights and a small input, in float64. {right} of
{count} models ({share:.1f} %) are right, {wrong} wrong in silence. {tried} of {listed} families
have been run.

- **outputs**: the largest difference between `Evaluator(model)` and the model, called with one
  input at a time, as a share of the largest output (or of 1). Right up to {output_tolerance:g}.
- **ig**: the largest difference between integrated gradients of the predicted class's logit and
  captum's, same quadrature of {steps} steps, one point per pass, as a share of the largest
  attribution. Right up to {map_tolerance:g}.
- **uni_blur** and **Grad-CAM layer**: a finite map, or a refusal in one line. The layer is the one
  that Grad-CAM chooses.
- **right**: all of these, and the model's weights, buffers and modes are as before to the last bit.

Texts are explained at the embeddings of their tokens, as [`unilens.text`](text.md) does. Made on
{date} with {versions},
by `python benchmarks/zoo.py --out zoo.jsonl`, {minutes:.0f} minutes on one
core, and the same command with `--write-docs`.
"""


def page(records: list[Record]) -> str:
    """Return docs/models.md."""
    models = [record for record in records if record["status"] != NOT_BUILT]
    counts = Counter(record["status"] for record in models)
    last = max(records, key=lambda record: record["date"])
    head = HEAD.format(
        right=counts[RIGHT],
        count=len(models),
        share=100 * counts[RIGHT] / max(1, len(models)),
        wrong=counts[WRONG],
        listed=len(families()),
        tried=len(records),
        output_tolerance=OUTPUT_TOLERANCE,
        map_tolerance=MAP_TOLERANCE,
        steps=STEPS,
        date=last["date"],
        versions=", ".join(f"{name} {number}" for name, number in last["versions"].items()),
        minutes=sum(record.get("seconds", 0.0) for record in records) / 60,
    )
    return "\n".join([TITLE, *_counts(models), head, *_tables(models), *_not_built(records)])


def _counts(models: list[Record]) -> Iterator[str]:
    yield from (_row("library", "models", *STATUSES), "|---" * (len(STATUSES) + 2) + "|")
    for library in LIBRARIES:
        of_library = [record["status"] for record in models if record["library"] == library]
        yield _row(library, len(of_library), *(of_library.count(status) for status in STATUSES))
    everywhere = [record["status"] for record in models]
    yield _row("all", len(everywhere), *(everywhere.count(status) for status in STATUSES))
    yield ""


def _tables(models: list[Record]) -> Iterator[str]:
    for library in LIBRARIES:
        of_library = [record for record in models if record["library"] == library]
        if of_library:
            yield from (f"## {library}", "", '<details markdown="1">')
            yield from (f"<summary>All {len(of_library)} models</summary>", "")
            yield from (_row(*COLUMNS), "|---" * len(COLUMNS) + "|")
            yield from (_model_row(record) for record in of_library)
            yield from ("", "</details>", "")


def _model_row(record: Record) -> str:
    millions = f"{record['parameters'] / 1e6:.2f} M" if "parameters" in record else ""
    numbers = [record.get(name, "") for name in ("outputs", "ig")]
    shown = [f"{one:.0e}" if isinstance(one, float) else one for one in numbers]
    layer = record.get("gradcam", "")
    return _row(
        record["family"],
        f"`{record['model']}`",
        millions,
        record.get("input", ""),
        record["status"],
        *shown,
        record.get("uni_blur", ""),
        layer if layer in ("", "refused", "raised") else f"`{layer}`",
        "; ".join(record["notes"]),
    )


def _not_built(records: list[Record]) -> Iterator[str]:
    missing = [record for record in records if record["status"] == NOT_BUILT]
    if missing:
        yield from ("## Not built", "", "These are not counted.", "", '<details markdown="1">')
        yield from (f"<summary>All {len(missing)} families</summary>", "")
        yield from (_row("library", "family", "why"), "|---|---|---|")
        for record in missing:
            yield _row(record["library"], record["family"], *record["notes"])
        yield from ("", "</details>", "")


def _row(*cells: object) -> str:
    texts = (" ".join(str(cell).split()).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(texts).replace('<', '&lt;')} |"


def main() -> None:
    """Run the sweep, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="file of results, one a line")
    parser.add_argument("--library", choices=LIBRARIES, action="append", help="these alone")
    parser.add_argument("--only", default="*", help="a pattern of families, such as '*resnet*'")
    parser.add_argument("--limit", type=int, help="at most so many families of each library")
    parser.add_argument("--write-docs", action="store_true", help="write docs/models.md and end")
    given = parser.parse_args()
    if given.write_docs:
        order = {(one.library, one.name): number for number, one in enumerate(families())}
        records = sorted(read(given.out), key=lambda one: order[one["library"], one["family"]])
        PAGE.write_text(page(records), encoding="utf-8")
        return
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    chosen: list[Family] = []
    for library in given.library or LIBRARIES:
        fitting = [one for one in families((library,)) if fnmatch.fnmatch(one.name, given.only)]
        chosen += fitting[: given.limit]
    sweep(given.out, chosen)


if __name__ == "__main__":
    main()
