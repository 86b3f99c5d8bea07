"""Draw the pictures of docs/series.md and docs/volumes.md: a series, a clip, a row and a volume.

Run:    python docs/kinds.py [NAME ...]

Needs the extra `test`. The networks are trained here in seconds, or read what tests/known_truth.py
says; the volume is a brain of 33 x 41 x 25 voxels that nibabel carries for its own tests.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from nibabel.testing import data_path
from PIL import Image
from torch import Tensor, nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tests.known_truth import ChannelClassifier  # noqa: E402
from tests.table_models import cancer  # noqa: E402

from unilens import explain  # noqa: E402
from unilens.models import load_volume  # noqa: E402
from unilens.output.viz import comparison, panel  # noqa: E402

SIDE = 7
"""Of the bright cube, in voxels."""


def series() -> Figure:
    """A classifier of five channels, which reads the third."""
    torch.manual_seed(3)
    steps = torch.linspace(0, 9, 80)
    channels = [torch.sin(steps * (0.6 + 0.5 * c) + c) for c in range(5)]
    given = torch.stack(channels) + 0.15 * torch.randn(5, 80)
    model = ChannelClassifier(steps=80)
    maps = {
        "ig from the blur": explain(model, given[None], "ig", 0, baseline="blur", channels="first")
    }
    return panel(given, maps, title="five channels, of which the model reads channel 2")


def trained(network: nn.Module, draw: object, steps: int) -> nn.Module:
    """Return a network after some steps of training on batches that a function draws."""
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(steps):
        inputs, target = draw()
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(network(inputs), target)
        loss.backward()
        optimiser.step()
    print(f"loss {loss.item():.3g} after {steps} steps")
    return network.eval()


def network(channels: int) -> nn.Module:
    """Return a small convolutional network of volumes or clips, for two classes."""
    return nn.Sequential(
        *(nn.Conv3d(channels, 8, 3, stride=2, padding=1), nn.BatchNorm3d(8), nn.ReLU()),
        *(nn.Conv3d(8, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU()),
        *(nn.AdaptiveMaxPool3d(1), nn.Flatten(), nn.Linear(8, 2)),
    )


def with_cube(brain: Tensor) -> Tensor:
    """Return a volume `(1, D, H, W)` with a bright cube at a random place."""
    changed = brain.clone()
    corner = [int(torch.randint(side - SIDE, ())) for side in brain.shape[1:]]
    places = tuple(slice(start, start + SIDE) for start in corner)
    changed[(0, *places)] = 0.6 * changed[(0, *places)] + 0.5
    return changed


def volume() -> Figure:
    """A network that tells brains with a bright cube from those without."""
    torch.manual_seed(0)
    loaded = load_volume(Path(data_path) / "anatomical.nii")
    brain = loaded.values[0]
    brain = 0.8 * (brain / brain.quantile(0.995)).clamp(0, 1)

    def draw() -> tuple[Tensor, Tensor]:
        target = torch.arange(8) % 2
        turned = [brain.flip(int(dim)) for dim in torch.randint(1, 4, (8,))]
        inputs = [with_cube(one) if cube else one for one, cube in zip(turned, target, strict=True)]
        return torch.stack(inputs) + 0.05 * torch.randn(8, *brain.shape), target

    model, given = trained(network(1), draw, 300), with_cube(brain)
    maps = {"uni_blur": explain(model, given[None], "uni_blur", 1)}
    title = "a brain with a bright cube, by a network trained to see such cubes"
    return panel(given, maps, title=title, spacing=loaded.spacing)


def clip() -> Figure:
    """A classifier of clips by whether a square moves to the right or down."""
    torch.manual_seed(0)

    def one(right: bool) -> Tensor:
        frames = 0.15 * torch.rand(3, 12, 32, 40)
        colour, start = torch.rand(3) * 0.6 + 0.4, int(torch.randint(2, 8, ()))
        for time in range(12):
            row, column = (start, 2 + 2 * time) if right else (2 + 2 * time, start)
            frames[:, time, row : row + 6, column : column + 6] = colour.view(3, 1, 1)
        return frames

    def draw() -> tuple[Tensor, Tensor]:
        target = torch.arange(8) % 2
        return torch.stack([one(bool(right)) for right in target]), target

    model, given = trained(network(3), draw, 150), one(True)
    blur = {"method": "ig", "baseline": "blur", "sigma": 3.0}
    maps = {
        f"ig from the blur, along={along}": explain(
            model, given[None], target=1, along=along, **blur
        )
        for along in ("time", "space")
    }
    return comparison(given, maps, title="a square that moves to the right", columns=6)


def row() -> Figure:
    """A patient of the table of docs/tables.md."""
    model, train, inputs, _, names = cancer()
    maps = explain(model, inputs[:1], "expected_gradients", references=train[:100])
    return comparison(inputs[0], {"expected_gradients": maps}, names=names, title="one patient")


PICTURES = {"series": series, "volume": volume, "clip": clip, "row": row}


def main() -> None:
    """Draw the pictures named on the command line, or all."""
    for name in sys.argv[1:] or PICTURES:
        path = HERE / "images" / f"kind-{name}.png"
        PICTURES[name]().savefig(path, dpi=70)
        Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
