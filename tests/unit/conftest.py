import io

import numpy
import pytest
from PIL import Image

from unilens.benchmark.plan import make_plan
from unilens.benchmark.store import Store, folder_lock

from . import watched_runs

SHIFT = {"uni": 0.10, "ig": 0.0, "ig:baseline=blur": 0.12, "gradient": -0.05, "gradcam": 0.05}
FRACTIONS = [step / 10 for step in range(11)]
WEBP = io.BytesIO()
Image.new("RGB", (320, 160), (90, 120, 60)).save(WEBP, "WEBP")


def rows_of(plan, images, seed=0, pictures=None, labels=True):
    """Rows as a run of this plan could have written them: smooth curves, plausible values."""
    random = numpy.random.default_rng(seed)
    rows = []
    for model in plan.models:
        for number in range(images):
            hard = random.normal(0, 0.1)
            for change in plan.data.conditions:
                for place, method in enumerate(plan.methods):
                    rows += _of_map(plan, model, number, change, method, place, hard, random)
    kept = plan.pictures if pictures is None else pictures
    for row in rows:
        first = row["metric"] == plan.metrics[0]
        row["picture"] = WEBP.getvalue() if first and int(row["image"][5:8]) < kept else None
        row["label"] = int(row["image"][5:8]) % 3 if labels else None
    return rows


def _of_map(plan, model, number, change, method, place, hard, random):
    level = 0.4 + SHIFT.get(method, 0.01 * place - 0.1) + hard
    rows = []
    for metric in plan.metrics:
        value = float(level + random.normal(0, 0.05))
        value = 1 - value if metric.startswith("deletion") else value
        row = {
            "image": f"photo{number:03d}.png",
            "corruption": "" if change is None else change.name,
            "severity": 0 if change is None else change.severity,
            "model": model,
            "method": method,
            "metric": metric,
            "method_settings": '{"n_steps": 15}',
            "metric_settings": "{}",
            "content": f"{number:016x}",
            "predicted": number % 3 if number % 4 else (number + 1) % 3,
            "target": number % 3,
            "confidence": 0.5,
            "value": value,
            "status": "ok",
            "warnings": ["saturation"] if number % 5 == 0 else [],
            "forward": 15 + place,
            "backward": 15,
            "seed": plan.seed,
            "seconds": 0.5,
            "map_seconds": 0.05 * (place + 1) * (1 + 0.1 * number**2),
        }
        if metric.startswith(("insertion", "deletion")):
            up = metric.startswith("insertion")
            curve = [value * (f if up else 1 - f) + 0.05 for f in FRACTIONS]
            row["curves"] = {"curve": curve, "fractions": FRACTIONS}
        if metric.startswith("stability"):
            row["parts"] = {"1_steps": value - 0.1, "15_steps": value + 0.1}
        rows.append(row)
    return rows


@pytest.fixture
def make_run(tmp_path):
    """Write a run's folder: `make_run(images=8, change=...)`; `change` alters its rows in place."""

    def make_run(name="run", images=8, change=None, seed=0, rows=None, pictures=None, **said):
        said = {
            "models": ["torchvision:resnet18"],
            "methods": ["uni", "ig", "ig:baseline=blur", "gradient", "gradcam"],
            "metrics": ["insertion_auc", "deletion_auc", "stability"],
        } | said
        plan = make_plan(said)
        folder = tmp_path / name
        with folder_lock(folder):
            store = Store.create(folder, plan, images)
            found = rows_of(plan, images, seed, pictures) if rows is None else rows
            if change is not None:
                change(found)
            half = len(found) // 2
            store.append(found[half:])
            store.append(found[:half])
        return store

    return make_run


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with photographs, and the current one."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "notes").mkdir()
    drawn = numpy.random.default_rng(0)
    for number in range(watched_runs.IMAGES):
        small = drawn.integers(0, 256, (5, 6, 3), dtype=numpy.uint8)
        image = Image.fromarray(small).resize((watched_runs.FIRST + number, 40))
        image.save(tmp_path / "photos" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path
