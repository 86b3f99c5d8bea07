"""Whatever module is brought, a call ends in the right map or in a `UnilensError` of one line.

The right maps are those of the user's own module, called in a loop with one point at a time.
`UNILENS_EXAMPLES=3000` tries that many modules, at random.
"""

import functools
import os
import types
import warnings
import weakref
from collections.abc import Mapping

import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from torch import nn

import unilens
from unilens import UnilensError
from unilens.errors import NotApplicableError

from . import random_modules
from .random_modules import DTYPES, Recipe

EXAMPLES = int(os.environ.get("UNILENS_EXAMPLES", "0"))
FEW = {"n_steps": 3}
WITHOUT_SETTINGS = ("gradcam", "guided_gradcam", "deeplift", "deeplift_shap", "random", "edges")
WITHOUT_SETTINGS += ("guided_backprop", "deconvolution")
SETTINGS = {
    "uni_paper": {"n_steps": 2, "matching_steps": 2},
    "agi": {"classes": 2, "iterations": 2, "n_steps": 2},
    "mfaba": {"iterations": 2, "n_steps": 2},
    "ig2": {"iterations": 2, "n_steps": 2},
    "fringe_b": {"waypoints": 2, "n_steps": 3},
    "rise": {"n_masks": 6, "cells": 2},
    "sobol": {"designs": 2, "cells": 2},
    "shapley": {"cells": 2},
    "ig": {"n_steps": 3, "rule": "midpoint", "score": "logit"},
    "gradient": {"score": "logit"},
    "input_x_gradient": {"score": "logit"},
    "occlusion": {"score": "logit"},
    **{name: {"n_samples": 2} for name in ("smoothgrad", "vargrad", "squaregrad")},
    **{name: {} for name in WITHOUT_SETTINGS},
}
COMPARED = ("ig", "gradient", "input_x_gradient", "occlusion")
NEEDS_GRADIENTS = ("checks_gradient",)
"""Forwards that fail under no_grad, as the passes of forward values are."""
NOT_SCORES = ("log_sigmoid",)
"""Outputs that are refused, since no score is defined on them."""
REFERENCES = ("expected_gradients", "deeplift_shap", "ig2")
METHODS = sorted(set(unilens.methods()) - {"neutral"})
SPATIAL = ((), (4,), (5, 4), (3, 4, 2))


def mostly(usual, *others):
    """Draw the usual value in two of three cases."""
    return st.integers(0, 2).flatmap(
        lambda n: st.sampled_from(others) if n == 2 else st.just(usual)
    )


def names(table):
    return mostly("", *(name for name in table if name))


recipes = st.builds(
    Recipe,
    spatial=st.sampled_from(SPATIAL),
    blocks=st.lists(st.sampled_from(list(random_modules.BLOCKS)), max_size=4).map(tuple),
    fault=names(random_modules.FAULTS),
    flatten=st.sampled_from(list(random_modules.FLATTENS)),
    output=mostly("logits", *random_modules.OUTPUTS),
    classes=st.integers(1, 3),
    keeps=names(random_modules.KEEPS),
    writes=names(random_modules.WRITES),
    dtype=mostly("float64", *DTYPES),
    inner_dtype=names(("", "autocast", *DTYPES)),
    wrapper=names(random_modules.WRAPPERS),
    seed=st.integers(0, 3),
)

INPUTS = {
    "plain": lambda x: x,
    "noncontiguous": lambda x: x.transpose(1, -1).contiguous().transpose(1, -1),
    "with_gradient": lambda x: x.requires_grad_(),
    "zeros": torch.zeros_like,
    "large": lambda x: x * 1e4,
    "numpy": lambda x: x.numpy(),
    "expanded": lambda x: x[:1].expand_as(x),
    "no_batch": lambda x: x[0],
    "no_rows": lambda x: x[:0],
    "more_channels": lambda x: torch.cat([x, x], 1),
    "one_axis_more": lambda x: x.unsqueeze(-1),
    "one_axis_less": lambda x: x.flatten(1)[:, :3],
    "longer": lambda x: torch.cat([x, x], -1),
    "integers": lambda x: (x * 4).long(),
    "complex": lambda x: torch.complex(x.float(), x.float()),
    "nan": lambda x: x * torch.nan,
    "strings": lambda x: "x",
}
inputs_of = st.tuples(
    mostly("plain", *INPUTS), st.integers(1, 3), mostly("float64", *DTYPES), st.integers(0, 3)
)


def made_inputs(shape, kind, rows, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(rows, *shape, generator=generator, dtype=torch.float64)
    return INPUTS[kind]((drawn - 0.2).to(torch.float32 if kind == "numpy" else DTYPES[dtype]))


@pytest.mark.slow
@settings(
    max_examples=EXAMPLES or 600,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    recipe=recipes,
    method=st.sampled_from([*METHODS, *COMPARED, *COMPARED, *COMPARED]),
    said=inputs_of,
    target=mostly(None, 0, 1),
    channels=mostly("first", "auto", "last", 1),
)
def test_any_module_ends_in_the_right_map_or_a_unilens_error(
    recipe, method, said, target, channels
):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        event(check(recipe, method, said, target, channels))


def check(recipe, method, said, target, channels):
    """Explain a module, assert what always holds, and return how far it was compared."""
    torch.manual_seed(0)
    random_modules.forget()
    module, inputs = recipe.build(), made_inputs(recipe.shape, *said)
    before = state_of(module)
    error, found, fits = "", None, True
    try:
        found = explained(module, inputs, method, target, channels)
    except UnilensError as raised:
        fits = not isinstance(raised, NotApplicableError)
        error = str(raised)
        assert error, "an error that says nothing"
        assert "\n" not in error
    assert state_of(module) == before, "the module is not as it was"
    if method not in COMPARED or channels != "first" or not fits:
        return "explained" if found is not None else "refused"
    expected = Reference(recipe).map_of(method, inputs, target)
    batched = recipe.wrapper == "vmapped" and recipe.keeps  # vmap's own tensors, kept too long
    unknown = recipe.fault in NEEDS_GRADIENTS or recipe.output in NOT_SCORES or batched
    if expected is None or (unknown and found is None):
        return "without a reference"
    assert found is not None, f"refused, but the module itself has this map: {error}"
    assert found.values.shape == expected.shape
    scale = expected.norm().clamp_min(1e-30)
    if method == "occlusion":  # differences of scores, which round as these do
        scale = scale.maximum(found.score.double().norm())
    off = (found.values.double() - expected).norm() / scale
    assert float(off) <= tolerance(recipe, inputs), f"the map differs by {float(off):.2g}"
    return "compared"


FAULTS_FOUND = {
    "own exception": (Recipe(fault="raises_own_error"), "ig"),
    "own exception in the backward pass": (Recipe(fault="fails_backward"), "gradient"),
    "exception for dark inputs": (Recipe(fault="raises_for_dark"), "ig"),
    "warning that is an error": (Recipe(fault="raises_warning"), "occlusion"),
    "copies to itself": (Recipe(blocks=("gru",), wrapper="copies_to_itself"), "gradient"),
    "default argument of a hook": (Recipe((4,), ("batch_norm",), keeps="default"), "ig"),
    "list of the class": (Recipe((4,), ("batch_norm",), keeps="of_class"), "ig"),
    "freezes": (Recipe(writes="frozen"), "gradient"),
    "calls backward": (Recipe(fault="double_backward_only_once"), "gradient"),
    "reentrant, not copied": (Recipe(keeps="of_class", wrapper="reentrant"), "gradient"),
    "trains": (Recipe((5, 4), ("folds",), writes="trains"), "gradient"),
    "trace of constants": (Recipe(blocks=("minus_mean_of_batch",), wrapper="traced"), "gradient"),
    "trace that counts": (Recipe(writes="counter", wrapper="traced"), "gradient"),
    "frozen trace that counts": (Recipe(writes="counter", wrapper="frozen"), "gradient"),
    "gradient of NaN": (Recipe(fault="nan_gradient"), "occlusion"),
    "adds modules": (Recipe(writes="new_module"), "uni_paper"),
    "threshold of the batch": (Recipe((4,), ("top_values",)), "ig"),
    "branch of the batch": (Recipe(blocks=("branch_by_value",)), "occlusion"),
}
"""By what went wrong, what this test has found."""


@pytest.mark.parametrize("name", FAULTS_FOUND)
def test_faults_that_were_found_stay_away(name):
    recipe, method = FAULTS_FOUND[name]
    for seed in (0, 1):
        check(recipe, method, ("plain", 2, "float64", seed), None, "first")


def explained(module, inputs, method, target, channels):
    chosen = dict(SETTINGS.get(method, FEW))
    if method in REFERENCES and isinstance(inputs, torch.Tensor):
        chosen["references"] = torch.as_tensor(inputs.detach()).flip(0) * 0.5
    return unilens.explain(module, inputs, method, target, channels=channels, **chosen)


def tolerance(recipe, inputs):
    kinds = {recipe.dtype, recipe.inner_dtype, recipe.output, recipe.fault}
    if kinds & {"float16", "bfloat16", "autocast"}:
        return 0.1
    if kinds & {"float32", "in_float32", "to_other_dtype"} or inputs.dtype != torch.float64:
        return 1e-3
    return 1e-6


class Reference:
    """Maps by hand: the module itself, with one point at a time, in a dtype that it takes."""

    def __init__(self, recipe):
        random_modules.forget()
        self.module = recipe.build()
        weights = [*self.module.parameters(), *self.module.buffers()]
        self.dtypes = [one.dtype for one in weights if one.is_floating_point()]

    def map_of(self, method, inputs, target):
        """Return the map `(B, *S)`, or None where the module has none, or is random."""
        try:
            inputs = torch.as_tensor(inputs).detach()
            if not inputs.is_floating_point():
                return None
            inputs = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
            return torch.stack([self._of_item(method, one[None], target) for one in inputs])
        except Exception:
            return None

    def _of_item(self, method, point, target):
        for dtype in dict.fromkeys([point.dtype, *self.dtypes]):
            try:
                first, slope = self._observe(point.to(dtype), 0)
                break
            except Exception:
                continue
        shape = first.shape
        if not first.is_floating_point() or first.layout != torch.strided:
            raise TypeError
        if not (shape in ((), (1,)) or (first.ndim == 2 and len(first) == 1)):
            raise TypeError
        target = int(first.flatten().argmax()) if target is None else target
        first, slope = self._observe(point.to(dtype), target)
        self._observe(0.9 * point.to(dtype), target)
        again = self._observe(point.to(dtype), target)
        if not first.isfinite().all() or not torch.allclose(first, again[0], rtol=1e-9, atol=0):
            raise ValueError
        if method == "occlusion":
            return self._occlusion(point.to(dtype), target, first)
        if not torch.allclose(slope, again[1], rtol=1e-6, atol=0):
            raise ValueError
        if method == "ig":
            nodes = [(node + 0.5) / 3 for node in range(3)]
            slopes = [self._observe((point * node).to(dtype), target)[1] for node in nodes]
            slope = sum(one.double() for one in slopes) / 3
        slope = slope.double()[0]
        return slope if method == "gradient" else slope * point[0].double()

    def _observe(self, point, target):
        """Return the outputs, and the gradient of the target's; None where there is none."""
        leaf = point.clone().requires_grad_()
        outputs = self.module(leaf.clone())
        score = outputs.flatten()[target]
        if not score.requires_grad:
            return outputs.detach(), None
        try:
            return outputs.detach(), torch.autograd.grad(score, leaf)[0]
        except Exception as error:
            if "checkpoint" not in str(error).lower():
                return outputs.detach(), None
        score.backward()
        return outputs.detach(), leaf.grad

    def _occlusion(self, point, target, first):
        falls = torch.zeros(point.shape[2:] or point.shape[1:], dtype=torch.float64)
        for place in range(falls.numel()):
            hidden = point.clone()
            hidden.view(1, -1, falls.numel())[..., place] = 0
            outputs = self.module(hidden.clone())
            fall = first.flatten()[target].double() - outputs.detach().flatten()[target].double()
            falls.view(-1)[place] = fall
        return falls if point.ndim == 2 else (falls / point.shape[1]).expand(point.shape[1:])


def state_of(value, seen=None):
    """Return what an object keeps, tensors by their bytes, to compare before and after."""
    seen = {} if seen is None else seen
    if isinstance(value, (str, bytes, int, float, bool, type(None), torch.dtype)):
        return value
    if id(value) in seen:
        return seen[id(value)]
    seen[id(value)] = f"object {len(seen)}"
    below = functools.partial(state_of, seen=seen)
    if isinstance(value, torch.Tensor):
        return bytes_of(value), value.requires_grad, below(value.grad if value.is_leaf else None)
    if isinstance(value, torch.jit.ScriptModule):
        return [below(one) for one in (*value.parameters(), *value.buffers())]
    if type(value).__name__ == "OptimizedModule":
        return below(value._orig_mod)
    if isinstance(value, Mapping):
        return [(below(key), below(one)) for key, one in value.items()]
    if isinstance(value, (list, tuple, set)) or type(value).__name__ == "deque":
        return [below(one) for one in value]
    if isinstance(value, functools.partial):
        return below((value.func, value.args, value.keywords))
    if isinstance(value, types.MethodType):
        return below(value.__self__)
    if isinstance(value, weakref.ref):
        return below(value())
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _filled(cell)]
        return below([cells, value.__defaults__])
    own = type(value).__module__.startswith(random_modules.__name__)
    if isinstance(value, nn.Module) or own:
        return type(value).__name__, below(vars(value)), below(getattr(value, "shelf", None))
    return type(value).__name__


def _filled(cell):
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def bytes_of(tensor):
    kind = str(tensor.dtype), tuple(tensor.shape)
    if tensor.is_meta or tensor.layout != torch.strided or type(tensor).__name__ == "FakeTensor":
        return kind
    return *kind, tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def test_state_sees_what_is_written():
    recipe = Recipe(keeps="dict", writes="counter")
    module = recipe.build()
    before = state_of(module)
    assert state_of(module) == before
    module(recipe.sample())
    assert state_of(module) != before


@pytest.mark.parametrize("method", COMPARED)
def test_reference_of_a_linear_model_is_its_closed_form(method):
    recipe = Recipe(blocks=())
    inputs = made_inputs(recipe.shape, "plain", 2, "float64", 0)
    weight = recipe.build().head.weight[1].detach()
    expected = weight.expand(2, -1) if method == "gradient" else weight * inputs
    found = Reference(recipe).map_of(method, inputs, 1)
    assert torch.allclose(found, expected, rtol=1e-12)
