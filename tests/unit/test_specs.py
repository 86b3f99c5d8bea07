"""Methods from text: which photographs `references` stands for."""

import pytest
import torch
from torch import nn

from unilens.errors import UnilensError, UnknownNameError
from unilens.methods import methods
from unilens.models import PixelClassifier, samples
from unilens.models.classifier import Preprocessing
from unilens.specs import build_method, read_specs


@pytest.fixture(scope="module")
def classifier():
    plain = Preprocessing(size=(16, 16), resize=16, mean=(0.0,) * 3, std=(1.0,) * 3)
    return PixelClassifier(nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), plain)


def referred(text, classifier):
    (spec,) = read_specs(methods, [f"expected_gradients:references={text}"]).values()
    return build_method(spec, classifier).references


def test_references_are_samples_some_of_them_or_a_folder(classifier, tmp_path):
    every = torch.stack([classifier.preprocess(load()) for load in samples.values()])
    names = list(samples)
    assert torch.equal(referred("samples", classifier), every)
    some = referred(f"[{names[3]},{names[0]}]", classifier)
    assert torch.equal(some, every[[3, 0]])
    samples[names[1]]().save(tmp_path / "b.png")
    assert torch.equal(referred(str(tmp_path), classifier), every[[1]])


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("[nobody]", UnknownNameError, "unknown sample 'nobody'"),
        ("[]", UnilensError, "references to name photographs, got an empty list"),
        ("nowhere", UnilensError, "references to be an image or a folder of images, got nowhere"),
    ],
)
def test_references_that_are_nothing_are_refused(classifier, text, error, message):
    with pytest.raises(error, match=message):
        referred(text, classifier)
