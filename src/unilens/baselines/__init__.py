"""Baselines: what an input is compared with."""

from .adversarial import Adversarial
from .base import Baseline, Found, baselines
from .blur import Blur, gaussian_blur
from .constant import Constant, ImageMean, MaxDistance
from .max_entropy import MaxEntropy
from .noise import DatasetSample, GaussianNoise, UniformNoise
from .tangent import TangentAligned
from .unlearned import Unlearned
from .weighed import Weighed

__all__ = [
    "Adversarial",
    "Baseline",
    "Blur",
    "Constant",
    "DatasetSample",
    "Found",
    "GaussianNoise",
    "ImageMean",
    "MaxDistance",
    "MaxEntropy",
    "TangentAligned",
    "UniformNoise",
    "Unlearned",
    "Weighed",
    "baselines",
    "gaussian_blur",
]
