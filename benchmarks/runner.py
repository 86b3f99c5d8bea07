"""What a benchmark's runner costs beside the methods and metrics that it calls.

    python benchmarks/runner.py overhead FOLDER [IMAGES] [TURNS]
    python benchmarks/runner.py memory

`overhead`: the same methods and metrics on the same photographs, by a run and by calls in a loop,
in turns; the model is loaded in both. `memory`: the peak of a process that runs 50 images, and of
one that runs 500.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from unilens import Evaluator, load_model
from unilens.benchmark import run
from unilens.benchmark.data import open_source
from unilens.benchmark.plan import Plan, make_plan
from unilens.metrics.cache import MetricCache
from unilens.models import samples

METHODS = ("uni_blur", "ig", "gradient", "gradcam")
METRICS = ("mu_fidelity:subsets=50", "insertion_auc", "deletion_auc", "monotonicity")


def main() -> None:
    """Measure what is asked for."""
    what, *rest = sys.argv[1:] or [""]
    if what == "overhead":
        overhead(rest[0], *map(int, rest[1:]))
    elif what == "memory":
        memory()
    elif what == "peak":
        print(peak(Path(rest[0]), int(rest[1])))
    else:
        sys.exit(__doc__)


def overhead(folder: str, images: int = 4, turns: int = 5) -> None:
    """Print seconds of calls and of runs, and their ratio."""
    plan = make_plan(
        {
            "methods": METHODS,
            "metrics": METRICS,
            "settings": {"n_steps": 15},
            "data": {"source": folder, "limit": images},
        }
    )
    calls(plan)
    seconds: dict[str, list[float]] = {"calls": [], "run": []}
    for turn in range(turns):
        for name in ("calls", "run") if turn % 2 else ("run", "calls"):
            with tempfile.TemporaryDirectory() as out:
                began = time.perf_counter()
                calls(plan) if name == "calls" else run(plan, Path(out) / "run")
                seconds[name].append(time.perf_counter() - began)
    ratios = [b / a for a, b in zip(seconds["calls"], seconds["run"], strict=True)]
    for name, found in seconds.items():
        print(f"{name}: median {statistics.median(found):.2f} s of {turns}")
    print(f"run / calls, turn by turn: {', '.join(f'{one:.3f}' for one in ratios)}")
    print(f"median {statistics.median(ratios):.3f}")


def calls(plan: Plan) -> None:
    """Call every method and metric in a loop, as a user who has no runner would."""
    model = load_model()
    evaluator = Evaluator(model)
    explainers = {
        name: plan_method(name, spec.settings) for name, spec in plan.method_specs.items()
    }
    for item in open_source(plan.data.source, limit=plan.data.limit):
        pixels = model.preprocess(item.load())[None]
        cache = MetricCache(evaluator, pixels)
        for explainer in explainers.values():
            attribution = explainer(evaluator, pixels)
            for name, measure in plan.built_metrics.items():
                if name == "monotonicity" and attribution.baseline is None:
                    continue
                measure(evaluator, pixels, attribution, method=explainer, cache=cache)


def plan_method(name: str, settings: object) -> object:
    """Build a method of the plan."""
    from unilens.methods import methods

    return methods[name.partition(":")[0]](**settings)


def memory() -> None:
    """Print the peaks of two processes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photograph = samples["chelsea"]()
        for number in range(500):
            cut = (number % 100, number // 100, number % 100 + 240, number // 100 + 240)
            photograph.crop(cut).save(folder / f"{number:03}.png")
        peaks = {}
        for count in (50, 500):
            command = [sys.executable, __file__, "peak", name, str(count)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peaks[count] = int(done.stdout)
            print(f"{count} images: peak {peaks[count]} MiB")
    print(f"ratio {peaks[500] / peaks[50]:.3f}")


def peak(folder: Path, images: int) -> int:
    """Run images in this process and return its peak in MiB."""
    data = {"source": str(folder), "limit": images}
    said = {"methods": ["gradient", "ig:n_steps=2"], "metrics": ["deletion_auc:step=0.5"]}
    with tempfile.TemporaryDirectory() as out:
        run(make_plan({**said, "data": data}), Path(out) / "run")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
