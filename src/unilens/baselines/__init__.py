"""Baselines: what an input is compared with."""

from .adversarial import Adversarial
from .base import Baseline, BaselineResult, FunctionBaseline, baselines, to_baseline
from .blur import Blur, gaussian_blur
from .boundary import Boundary
from .constant import Constant, FixedValues, ImageMean, MaxDistance
from .counterfactual import Counterfactual
from .fisher_rao import FisherRao
from .max_entropy import MaxEntropy
from .noise import DatasetSample, GaussianNoise, UniformNoise
from .per_input import PerInput
from .tangent import TangentAligned
from .unlearned import Unlearned
from .weighted import Weighted

__all__ = [
    "Adversarial",
    "Baseline",
    "BaselineResult",
    "Blur",
    "Boundary",
    "Constant",
    "Counterfactual",
    "DatasetSample",
    "FisherRao",
    "FixedValues",
    "FunctionBaseline",
    "GaussianNoise",
    "ImageMean",
    "MaxDistance",
    "MaxEntropy",
    "PerInput",
    "TangentAligned",
    "UniformNoise",
    "Unlearned",
    "Weighted",
    "baselines",
    "gaussian_blur",
    "to_baseline",
]
