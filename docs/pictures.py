"""Draw the pictures of these pages: the methods of each family on installed photographs.

Run:    python docs/pictures.py [NAME ...]

Needs the extra `compare`. Every picture is what `unilens explain` writes, made smaller; `coffee` is
that of README and the first page. The picture `attention` is of another network, DINOv2, and needs
its weights (see `benchmarks/networks.py`):

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
from unilens.output.text import probability_text
from unilens.output.viz import comparison, panel

HERE = Path(__file__).parent / "images"
REFERENCES = ("coffee", "rocket", "astronaut", "motorcycle", "grace_hopper")
NAMES = {
    "coffee": {"uni_blur": {}, "uni": {}, "ig": {}},
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


PANELS = ("coffee",)
"""Pictures of all there is to see, of the sample of their name; others compare maps of a cat."""


def draw(name: str, model, evaluator: Evaluator) -> None:
    """Write one picture."""
    sample = name if name in PANELS else "chelsea"
    image = model.preprocess(samples[sample]())
    references = torch.stack([model.preprocess(samples[one]()) for one in REFERENCES])
    attributions = {}
    for shown, given in NAMES[name].items():
        settings = dict(given)
        method = settings.pop("method", shown)
        if method in ("expected_gradients", "deeplift_shap"):
            settings["references"] = references
        attributions[shown] = explain(evaluator, image[None], method, **settings)
        print(f"{name}: {shown}: {attributions[shown].provenance['seconds']:.1f} s")
    first = next(iter(attributions.values()))
    probability = probability_text(float(first.confidence))
    title = f"{sample}: why “{model.label(int(first.target))}”, probability {probability}?"
    if name in PANELS:
        figure = panel(image, attributions, title=title)
    else:
        figure = comparison(image, attributions, title=title, columns=min(len(attributions) + 1, 6))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=95)
    Image.open(buffer).convert("RGB").save(HERE / f"{name}.jpg", quality=82)


def main() -> None:
    """Draw the pictures named on the command line, or all."""
    for name in sys.argv[1:] or [name for name in NAMES if name not in MODELS]:
        model = load_model(MODELS.get(name, DEFAULT_MODEL))
        draw(name, model, Evaluator(model))


if __name__ == "__main__":
    main()
