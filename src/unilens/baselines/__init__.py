"""Baselines: what an input is compared with."""

from .adversarial import Adversarial
from .base import Baseline, BaselineResult, baselines
from .blur import Blur, gaussian_blur
from .constant import Constant, ImageMean, MaxDistance
from .max_entropy import MaxEntropy
from .noise import DatasetSample, GaussianNoise, UniformNoise
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
    "GaussianNoise",
    "ImageMean",
    "MaxDistance",
    "MaxEntropy",
    "TangentAligned",
    "UniformNoise",
    "Unlearned",
    "Weighted",
    "baselines",
    "gaussian_blur",
]
