"""Names of methods and explanations of settings for people who do not know them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from .._catalogue import CatalogueEntry, listing
from ..methods import methods
from .request import SettingField

RECOMMENDED = ("uni_blur", "uni", "gradcam")
"""Methods that the page shows before the others, the first of which it begins with."""
TITLES = {
    "uni_blur": "UNI from a blurred image",
    "uni": "UNI from a nearby image",
    "uni_paper": "UNI, algorithm 1 to the letter",
    "ig": "Integrated gradients from a black image",
    "blur_ig": "Integrated gradients by decreasing blur",
    "guided_ig": "Guided integrated gradients",
    "sig": "Integrated gradients by singular components",
    "agi": "Adversarial gradient integration",
    "mfaba": "Boundary-based attribution",
    "ig2": "Integrated gradients on a gradient path",
    "fringe_b": "Fisher-Rao integrated gradients",
    "idgi": "Important direction gradient integration",
    "idg": "Integrated decision gradients",
    "gradient": "Gradient",
    "input_x_gradient": "Input × gradient",
    "balanced": "Input × balanced gradient",
    "smoothgrad": "SmoothGrad",
    "vargrad": "VarGrad",
    "squaregrad": "SmoothGrad, squared",
    "expected_gradients": "Expected gradients over the samples",
    "neutral": "Integrated gradients from undecided inputs",
    "deeplift": "DeepLIFT",
    "deeplift_shap": "DeepLIFT over the samples",
    "guided_backprop": "Guided backpropagation",
    "deconvolution": "Deconvolution",
    "gradcam": "Grad-CAM",
    "guided_gradcam": "Guided Grad-CAM",
    "rollout": "Attention rollout",
    "gradient_rollout": "Attention rollout with gradients",
    "legrad": "LeGrad",
    "occlusion": "Occlusion",
    "rise": "RISE",
    "shapley": "Shapley values of regions",
    "sobol": "Sobol indices of regions",
    "random": "Random map (control)",
    "edges": "Edges of the image (control)",
}

_COMPONENTS = {
    "baseline": "what the photograph is compared with",
    "inner": "the method whose maps are averaged",
    "path": "how the baseline turns into the photograph, step by step",
    "weighting": "how much each step of the path counts",
}


def title_of(method: str) -> str:
    """Return the name of a method for people; its registered name where it has no other."""
    return TITLES.get(method, method)


def percent(share: float) -> str:
    """Return a share in percent with one decimal; never 0 or 100 by rounding."""
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return "> 99.9 %" if 0.9995 < share < 1 else f"{100 * share:.1f} %"


def signed(value: float) -> str:
    """Return a number with three digits and its sign."""
    return f"{value:+.3g}".replace("-", "−", 1)


def by_recommendation(names: list[str]) -> list[tuple[str, str]]:
    """Return title and name of methods, the recommended ones first."""
    first = [name for name in RECOMMENDED if name in names]
    rest = [name for name in methods if name in names and name not in first]
    return [(title_of(name), name) for name in (*first, *rest)]


def setting_help(method: str, field: SettingField, chosen: Mapping[str, Any]) -> str:
    """Return what a setting of a method means, with its unit and default."""
    words = {"True": "on", "False": "off", "None": "none"}
    default = words.get(str(field.default), str(field.default))
    meaning = ""
    if method in TITLES:
        entry = cast(CatalogueEntry, listing("methods")[method])
        meaning = _meaning(entry, field.name, chosen)
    return f"{meaning[:1].upper()}{meaning[1:]}{'.' if meaning else ''} Default: {default}.".strip()


def _meaning(entry: CatalogueEntry, name: str, chosen: Mapping[str, Any]) -> str:
    """Return the meaning of a setting of an entry or of a chosen component of it."""
    if name in entry.own:
        return entry.own[name].meaning.rstrip(".")
    if name in entry.components:
        return _COMPONENTS.get(name, "")
    components = (entry.component(component, chosen) for component in entry.components)
    meanings = (_meaning(component, name, chosen) for component in components if component)
    return next(filter(None, meanings), "")
