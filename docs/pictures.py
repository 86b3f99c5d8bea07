"""Draw the pictures of these pages: the methods of each family on installed photographs.

Run:    python docs/pictures.py [NAME ...]

Needs the extra `compare`. Every picture is what `unilens explain` writes, made smaller. The picture
`attention` is of another network, DINOv2, and needs its weights (see `benchmarks/networks.py`):

    PYTHONPATH=benchmarks UNILENS_DINOV2=FILE python docs/pictures.py attention
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import torch
from PIL import Image

from unilens import Evaluator, explain, load_model
from unilens.models import samples
from unilens.models.loading import DEFAULT_MODEL
from unilens.output.viz import comparison

HERE = Path(__file__).parent / "images"
REFERENCES = ("coffee", "rocket", "astronaut", "motorcycle", "grace_hopper")
NAMES = {
    "paths": {
        "ig": {},
        "blur_ig": {},
        "guided_ig": {},
        "sig": {},
        "agi": {"classes": 10},
        "idgi": {},
        "idg": {},
    },
    "baselines": {
        f"ig: {name}": {"method": "ig", "baseline": name}
        for name in (
            "black",
            "white",
            "image_mean",
            "blur",
            "uniform_noise",
            "max_distance",
            "max_entropy",
            "adversarial",
            "weighted",
        )
    }
    | {"uni_blur": {}},
    "gradients": {
        "gradient": {},
        "input_x_gradient": {},
        "smoothgrad": {},
        "vargrad": {},
        "squaregrad": {},
        "expected_gradients": {},
    },
    "rules": {"deeplift": {}, "deeplift_shap": {}, "guided_backprop": {}, "deconvolution": {}},
    "activations": {"gradcam": {}, "guided_gradcam": {}},
    "attention": {
        "rollout": {},
        "gradient_rollout": {},
        "legrad": {},
        "input_x_gradient": {},
        "balanced": {},
        "gradcam": {},
        "ig": {},
        "ig, balanced": {"method": "ig", "balanced": True},
        "uni_blur": {},
        "uni_blur, balanced": {"method": "uni_blur", "balanced": True},
    },
    "perturbation": {
        "occlusion": {},
        "rise": {"n_masks": 1000},
        "rise, centred": {"method": "rise", "n_masks": 1000, "centred": True},
        "sobol": {},
    },
    "controls": {"random": {}, "edges": {}, "gradient": {}, "guided_backprop": {}, "uni_blur": {}},
}

MODELS = {"attention": "py:networks:dinov2"}
"""Of pictures that are not of the default model."""


def draw(name: str, model, evaluator: Evaluator) -> None:
    """Write one picture."""
    image = model.preprocess(samples["chelsea"]())
    references = torch.stack([model.preprocess(samples[one]()) for one in REFERENCES])
    found = {}
    for shown, given in NAMES[name].items():
        settings = dict(given)
        method = settings.pop("method", shown)
        if method in ("expected_gradients", "deeplift_shap"):
            settings["references"] = references
        found[shown] = explain(evaluator, image[None], method, **settings)
        print(f"{name}: {shown}: {found[shown].provenance['seconds']:.1f} s")
    target = model.label(int(next(iter(found.values())).target))
    columns = min(len(found) + 1, 6)
    figure = comparison(image, found, title=f"why “{target}”?", columns=columns)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    Image.open(buffer).convert("RGB").save(HERE / f"{name}.jpg", quality=82)


def main() -> None:
    """Draw the pictures named on the command line, or all."""
    for name in sys.argv[1:] or [name for name in NAMES if name not in MODELS]:
        model = load_model(MODELS.get(name, DEFAULT_MODEL))
        draw(name, model, Evaluator(model))


if __name__ == "__main__":
    main()
