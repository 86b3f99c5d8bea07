"""On a model of known truth the strongest prompt token is the one that is copied."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import induction

LAG = 6


@pytest.fixture(scope="module")
def trained():
    model, accuracy = induction.train(lag=LAG, steps=150, width=32)
    assert accuracy > 0.95
    return model


@pytest.mark.parametrize("method", ["balanced", "occlusion"])
def test_the_copied_token_is_the_strongest(trained, method):
    prompts = induction.sequences(6, LAG, torch.Generator().manual_seed(5))
    found, total = induction.share(trained, induction.tokenizer(), prompts, LAG, method, {})
    assert total == 6 * LAG
    assert found >= 0.9
