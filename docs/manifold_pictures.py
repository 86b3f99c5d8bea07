"""Draw the pictures of manifold.md: what was scored, the tangent directions of a digit, and a cat.

Run:    python docs/manifold_pictures.py [FOLDER]

FOLDER is one of `benchmarks/tangents.py`; its own picture is made smaller, beside the directions.
Without it only the photograph is explained.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from unilens import Evaluator, explain, load_model
from unilens.manifold import LocalPCA, Manifold, Transformations
from unilens.models import samples
from unilens.output.viz import heatmap, panel, pixels

HERE = Path(__file__).parent / "images"
sys.path.insert(0, str(HERE.parents[1] / "benchmarks"))
DIRECTIONS = 8
DIGIT = 1
WIDEST = 1100


def main() -> None:
    """Write the pictures."""
    _photograph()
    if not sys.argv[1:]:
        return
    folder = Path(sys.argv[1])
    scored = Image.open(folder / "score.png").convert("RGB")
    scored.thumbnail((WIDEST, WIDEST), Image.Resampling.LANCZOS)
    scored.save(HERE / "manifold-maps.png", optimize=True)
    from tangent_study.fitting import open_fitted

    fitted = open_fitted(folder)
    digit = fitted.split.held_out.values[DIGIT : DIGIT + 1]
    references, dimension = fitted.split.train.values, fitted.about["config"]["dimension"]
    manifolds = {
        fitted.about["config"]["kind"]: fitted.manifold,
        "local PCA": LocalPCA(references, dimension),
        "transformations": Transformations(),
    }
    _draw(digit, manifolds).savefig(HERE / "manifold-directions.png", dpi=90)


def _photograph() -> None:
    model = load_model()
    images = torch.stack([model.preprocess(samples["chelsea"]())])
    aligned = {"baseline": "tangent_aligned", "iterations": 20, "ascents": 2, "n_steps": 15}
    settings = {
        "ig": {},
        "ig:baseline=blur": {"baseline": "blur"},
        "ig:baseline=tangent_aligned": aligned,
        "uni_blur": {},
    }
    evaluator = Evaluator(model)
    found = {
        name: explain(evaluator, images, name.partition(":")[0], **own)
        for name, own in settings.items()
    }
    file = io.BytesIO()
    panel(images[0], found, title="chelsea").savefig(file, dpi=90)
    drawn = Image.open(file).convert("RGB")
    drawn.thumbnail((1000, 1000), Image.Resampling.LANCZOS)
    drawn.save(HERE / "manifold-photo.jpg", quality=88)


def _draw(digit: Tensor, manifolds: dict[str, Manifold]) -> Figure:
    figure = Figure(figsize=(1.2 * (DIRECTIONS + 1), 1.35 * len(manifolds)), layout="constrained")
    grid = figure.subplots(len(manifolds), DIRECTIONS + 1)
    for axes, (name, manifold) in zip(grid, manifolds.items(), strict=True):
        basis = manifold(digit).basis[0, :, :DIRECTIONS]
        shown = [pixels(digit[0])]
        shown += [heatmap(column.reshape(digit.shape[1:]).float()) for column in basis.T]
        for ax, picture in zip(axes, shown, strict=True):
            ax.imshow(picture.clip(0, 1))
            ax.set_xticks([])
            ax.set_yticks([])
        axes[0].set_ylabel(name, fontsize=9)
    return figure


if __name__ == "__main__":
    main()
