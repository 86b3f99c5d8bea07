"""How long Shapley values of groups take, against bare forward passes at the same points.

Run:    python benchmarks/shapley.py [--runs N] [--permutations N] [--patch PIXELS] [--model NAME]

The points of `shapley` are recorded. Then three tasks take turns: `unilens.explain`; its passes
alone, by the same evaluator at the recorded points, in the same micro-batches; and the user's
module called with these micro-batches, without a gradient. Seconds are those of the processor, of
all threads together, so that other work on the machine does not count; medians of each task, and of
the ratios of tasks of one turn.

- EfficientNet-Lite0 with ImageNet weights and a ResNet-18 with random ones, 1 photograph of
  224 x 224, 49 patches;
- a network of 32 hidden neurons, 50 rows of 20 columns: there a pass costs next to nothing.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from unilens import Evaluator, explain, load_model
from unilens.groups import patches
from unilens.models import samples

COLUMNS = 20


class Recorder(Evaluator):
    """An evaluator that keeps the points at which it runs the model."""

    points: list[Tensor]

    def outputs(self, points: Tensor, *, create_graph: bool = False) -> Tensor:
        """Keep the points, and return the outputs at them."""
        self.points.append(points.clone())
        return super().outputs(points, create_graph=create_graph)


def problems() -> dict[str, tuple[nn.Module, Tensor]]:
    """Return the models and their inputs, by name."""
    torch.manual_seed(0)
    efficientnet = load_model()
    photograph = efficientnet.preprocess(samples["chelsea"]())[None]
    network = nn.Sequential(nn.Linear(COLUMNS, 32), nn.ReLU(), nn.Linear(32, 3)).eval()
    return {
        "EfficientNet-Lite0": (efficientnet, photograph),
        "ResNet-18": (resnet18().eval(), photograph),
        "32 hidden neurons": (network, torch.randn(50, COLUMNS)),
    }


def tasks_of(
    model: nn.Module, inputs: Tensor, permutations: int, patch: int
) -> dict[str, Callable[[], object]]:
    """Return what takes turns, by name; every task runs the model at the same points."""
    settings: dict[str, object] = {"n_permutations": permutations, "exact_up_to": 0}
    settings |= {"groups": patches(inputs, patch)} if inputs.ndim > 2 else {}
    recorder = Recorder(model)
    recorder.points = []
    explain(recorder, inputs, "shapley", 0, **settings)
    points, evaluator = recorder.points, Evaluator(model)
    evaluator.plan(inputs)  # proves what is proven once
    size = evaluator._microbatches.size(inputs.shape[1:])

    def passes() -> None:
        for block in points:
            evaluator.outputs(block)

    def module() -> None:
        with torch.no_grad():
            for block in points:
                for column in block.unbind(1):
                    for microbatch in column.split(size):
                        model(microbatch)

    return {
        "explain": lambda: explain(evaluator, inputs, "shapley", 0, **settings),
        "passes": passes,
        "module": module,
    }


def measure(runs: int, tasks: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Return the processor's seconds of each turn of each task, after a first turn for warmth."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(runs + 1):
        for name, task in tasks.items():
            began = time.process_time()
            task()
            if turn:
                seconds[name].append(time.process_time() - began)
    return seconds


def main() -> None:
    """Measure, and print a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--permutations", type=int, default=4)
    parser.add_argument("--patch", type=int, default=32, help="side of a patch, in pixels")
    parser.add_argument("--model", choices=problems(), help="one of them alone")
    options = parser.parse_args()
    for name, (model, inputs) in problems().items():
        if options.model not in (None, name):
            continue
        seconds = measure(
            options.runs, tasks_of(model, inputs, options.permutations, options.patch)
        )
        medians = [f"{statistics.median(turns):.3f}" for turns in seconds.values()]
        for other in ("passes", "module"):
            ratios = [
                whole / bare for whole, bare in zip(seconds["explain"], seconds[other], strict=True)
            ]
            medians.append(f"{statistics.median(ratios):.2f}")
        print(f"{name}: {', '.join(medians)}", flush=True)


if __name__ == "__main__":
    main()
