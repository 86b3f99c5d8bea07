"""The figures of the UNI paper, for comparison with a run's own.

They are copied from arXiv 2410.08069v2, tables 1 to 7, into `paper.json`. The paper does not state
its whole protocol (`notes`), so that no cell is strictly comparable.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from ...specs import Spec

SOURCE = "Choi et al. 2025, arXiv 2410.08069v2, ImageNet-1K"
_MODELS = {
    "resnet18": ("resnet18", "resnet-18"),
    "efficientnet_v2_s": ("efficientnet_v2_s", "tf_efficientnetv2_s", "efficientnetv2_s"),
    "convnext_tiny": ("convnext_tiny", "convnext-tiny-224"),
    "vgg16_bn": ("vgg16_bn",),
    "vit_b_16": ("vit_b_16", "vit_base_patch16_224", "vit-base-patch16-224"),
    "swin_t": ("swin_t", "swin_tiny_patch4_window7_224", "swin-tiny-patch4-window7-224"),
}
_COLUMNS = {known: column for column, names in _MODELS.items() for known in names}
_METHODS = {"uni_paper": "uni", "uni": ""}
"""Their names in the tables; `uni`, with normalised gradients and other steps, has none."""
_METRICS = {
    "monotonicity": "monotonicity",
    "mu_fidelity_abs": "mu_fidelity_abs",
    "deletion_auc": "deletion_auc",
    "insertion_auc": "insertion_auc",
    "fgsm_spearman": "attack_spearman",
    "fgsm_top_k": "attack_top_1000_percent",
    "confidence_change": "baseline_confidence_change_percent",
}
_FREE = frozenset({"n_steps"})
"""Settings that may differ from the paper's method."""
_BLACK = {"black", "0", "0.0"}


@dataclass(frozen=True, slots=True)
class Figure:
    """A cell of the paper's tables.

    Attributes:
        mean: over images.
        sd: over images; None where the paper gives none.
        table: its number in the paper.
        note: a conversion or a caveat.
    """

    mean: float
    sd: float | None
    table: int
    note: str = ""


@functools.cache
def tables() -> dict[str, Any]:
    """Return the paper's tables as plain data, with their source and notes."""
    text = (resources.files(__package__) / "paper.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def notes() -> list[str]:
    """Return the caveats of comparing a figure with the paper's."""
    return [
        *tables()["notes"],
        "the networks are the paper's by architecture; their weights, and so their figures, may "
        "be others",
        "percentages of the paper (table 6, the confidence change of table 7) are shown as "
        "fractions",
    ]


def metrics_of(table: int) -> list[str]:
    """Return the metrics of one of the paper's tables; LPIPS of table 7 needs a package."""
    return [
        metric for metric, name in _METRICS.items() if tables()["tables"][name]["table"] == table
    ]


def methods_of(table: int) -> list[str]:
    """Return the methods of one of the paper's tables, in its order, by their names here."""
    named = {theirs: ours for ours, theirs in _METHODS.items() if theirs}
    cells = [
        cell
        for metric in metrics_of(table)
        for cell in tables()["tables"][_METRICS[metric]]["values"].values()
    ]
    listed = [name for cell in cells for name in (cell if isinstance(cell, Mapping) else ["uni"])]
    return [named.get(name, name) for name in dict.fromkeys(listed)]


def figure(model: str, method: Spec, metric: Spec) -> Figure | None:
    """Return the paper's figure for a model, method and metric, or None.

    Args:
        model: as `unilens.load_model` takes it.
        method: with the settings given for it. `uni_paper` is the paper's UNI (and
            `uni`, which differs from it in two settings, is not), `ig` from black is its IG, others
            go by their names; settings other than the number of steps make it another method.
        metric: with the settings given for it.
    """
    column, name = _column(model), _table(metric)
    if column is None or name is None:
        return None
    table = tables()["tables"][name]
    cell = table["values"].get(column)
    if not _is_papers(method, cell):
        return None
    if isinstance(cell, Mapping):
        cell = cell[_METHODS.get(method.name, method.name)]
        mean, sd = cell["mean"], cell.get("sd")
    else:
        mean, sd = cell, None
    scale = 100 if name.endswith("_percent") else 1
    note = "converted from percent" if scale == 100 else ""
    if column == "swin_t" and table["table"] in (5, 6):
        note += "; " * bool(note) + "equal to the ResNet-18 cell, probably a slip in the paper"
    return Figure(mean / scale, None if sd is None else sd / scale, table["table"], note)


def _column(model: str) -> str | None:
    """Return the column of a model's architecture in the paper's tables."""
    prefix, _, rest = model.partition(":")
    if prefix not in ("torchvision", "timm", "hf"):
        return None
    name = rest.rpartition("/")[2] if prefix == "hf" else rest.partition(".")[0]
    return _COLUMNS.get(name)


def _table(metric: Spec) -> str | None:
    if metric.name == "lpips":
        network = metric.settings.get("network", "alex")
        return f"baseline_lpips_{network}" if network in ("alex", "vgg") else None
    if metric.name == "fgsm_top_k" and metric.settings.get("k") not in (None, 1000):
        return None
    return _METRICS.get(metric.name)


def _is_papers(method: Spec, cell: Any) -> bool:
    """Whether a method is in the table; cells that are numbers are UNI's."""
    name = _METHODS.get(method.name, method.name)
    known = name in cell if isinstance(cell, Mapping) else name == "uni" and cell is not None
    other = {key: value for key, value in method.settings.items() if key not in _FREE}
    if name == "ig" and str(other.get("baseline", "black")) in _BLACK:
        other.pop("baseline", None)
    return known and not other
