"""Runs whose workers take notes: what they loaded, and which image they had in hand."""

import os
import time

from unilens.benchmark.plan import make_plan
from unilens.benchmark.rows import MEASURED_TIME
from unilens.benchmark.store import Store

MODEL = """
import os, signal, sys, time
import torch
from torch import nn
from unilens.models import PixelClassifier, Preprocessing

NOTES, DRIVER = {notes!r}, {driver}

def note(kind, what):
    with open(os.path.join(NOTES, kind), "a") as file:
        file.write(f"{{os.getpid()}} {{what}}\\n")

class Watched(PixelClassifier):
    def preprocess(self, image):
        if os.getpid() != DRIVER:
            ray = sys.modules.get("ray")
            node = ray.get_runtime_context().get_node_id() if ray else ""
            note("begun", f"{{image.width}} {{node}}")
            time.sleep({seconds})
            if image.width == {deadly}:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().preprocess(image)

def tiny(seed=0):
    note("loaded", seed)
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(24, 5),
    )
    size = Preprocessing((20, 20), 20, (0.5,) * 3, (0.25,) * 3)
    return Watched(network, size, ("tench", "bulbul", "frog", "conch", "stork"))

def other():
    return tiny(1)
"""
IMAGES = 6
FIRST = 40
"""The width of the first image; the others are wider by one each."""


def write_model(place, seconds=0.0, deadly=0):
    """Write a model whose module no other test has imported, and return its module's name."""
    name = f"watched_{place.name.strip('_')}_{time.monotonic_ns()}"
    settings = {"notes": str(place / "notes"), "driver": os.getpid()}
    text = MODEL.format(**settings, seconds=seconds, deadly=deadly)
    (place / f"{name}.py").write_text(text)
    return name


def plan_of(module, *, models=("tiny",), **settings):
    said = {
        "models": [f"py:{module}:{one}" for one in models],
        "methods": ["uni", "ig", "gradient"],
        "metrics": ["deletion_auc", "mu_fidelity:subsets=8,cells=4"],
        "settings": {"n_steps": 3},
        "data": {"source": "photos"},
    }
    return make_plan(said | {"engine": settings} if settings else said)


def notes(place, kind):
    path = place / "notes" / kind
    lines = path.read_text().splitlines() if path.exists() else []
    return [tuple(line.split()) for line in lines]


def lasting(folder):
    """Return all that a run says but for the time it took."""
    kept = Store(folder).table(Store(folder).dataset().schema.names).drop_columns(MEASURED_TIME)
    return kept.to_pylist()
