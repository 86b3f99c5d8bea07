"""Baselines: what an input is compared with."""

from .adversarial import Adversarial
from .base import Baseline, BaselineResult, FunctionBaseline, baselines, to_baseline
from .blur import Blur, gaussian_blur
from .constant import Constant, FixedValues, ImageMean, MaxDistance
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
    "Constant",
    "DatasetSample",
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
