"""Another default dtype of torch changes nothing that unilens gives."""

import subprocess
import sys

import pytest

CODE = """
import torch, unilens
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
inputs = torch.rand(2, 3, 8, 8)
own_references = {"deeplift_shap", "expected_gradients", "ig2", "neutral"}


def everything():
    found = {}
    for name in set(unilens.methods()) - own_references:
        try:
            found[name] = unilens.explain(model, inputs, name, 0).values
        except unilens.UnilensError as error:
            found[name] = str(error)
    for name in ("mu_fidelity", "sensitivity_n", "infidelity", "deletion_auc", "road"):
        found[name] = unilens.evaluate(model, inputs, found["ig"], name)
    return found


expected = everything()
for dtype in (torch.float64, torch.float16, torch.bfloat16):
    torch.set_default_dtype(dtype)
    for name, value in everything().items():
        if isinstance(value, str):
            assert value == expected[name], (dtype, name, value)
        else:
            known = expected[name]
            off = (value.double() - known.double()).abs().max() / known.double().abs().max()
            assert value.dtype == known.dtype and off <= 1e-4, (dtype, name, float(off))
print("the same")
"""


@pytest.mark.slow
def test_draws_and_sums_do_not_depend_on_the_default_dtype():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.stdout == "the same\n", done.stderr
