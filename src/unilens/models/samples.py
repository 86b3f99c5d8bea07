"""Sample photographs, from installed packages."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

from ..registry import Card, Registry
from .images import read_image

samples: Registry[Image.Image] = Registry("sample")


def _from_skimage(name: str) -> Callable[[], Image.Image]:
    def load() -> Image.Image:
        from skimage import data

        loaded = getattr(data, name)()
        return Image.fromarray(loaded[0] if isinstance(loaded, tuple) else loaded)

    return load


def _grace_hopper() -> Image.Image:
    from matplotlib import cbook

    return read_image(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))


for _name, _data, _summary in (
    ("chelsea", "chelsea", "a tabby cat"),
    ("coffee", "coffee", "a cup of espresso"),
    ("rocket", "rocket", "a rocket on its launch pad"),
    ("astronaut", "astronaut", "Eileen Collins in her space suit"),
    ("motorcycle", "stereo_motorcycle", "a motorcycle in a garage"),
):
    samples.add(Card(_name, "skimage.data", _summary, "scikit-image"), _from_skimage(_data))
samples.add(
    Card("grace_hopper", "matplotlib", "Grace Hopper in uniform", "matplotlib"), _grace_hopper
)
