import copy
import os
import queue
import signal
import threading
from queue import SimpleQueue

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from unilens._engine.evaluator import Evaluator
from unilens._engine.passes import PassRunner
from unilens._engine.score_gradient import ScoreGradient
from unilens.errors import UnilensError
from unilens.methods import methods
from unilens.methods.path_diagnostics import stability
from unilens.quadrature import Quadrature, quadrature
from unilens.scores import probability

from ..conftest import randomise


def by_autograd(model, points, target):
    """Gradients of probabilities, one point at a time."""
    rows = []
    for point, c in zip(points, target, strict=True):
        leaf = point[None].clone().requires_grad_()
        rows.append(torch.autograd.grad(model(leaf).softmax(-1)[0, c], leaf)[0][0])
    return torch.stack(rows)


@pytest.mark.parametrize("chunk", [None, 1, 3, 100])
@pytest.mark.parametrize("independent", [True, False])
@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
@pytest.mark.parametrize("fold", [True, False])
def test_every_way_of_running_gives_the_same(small_net, images, chunk, independent, layout, fold):
    evaluator = Evaluator(
        small_net, chunk=chunk, independent=independent, memory_format=layout, fold=fold
    )
    target = torch.arange(8) % 5
    points = torch.stack([images, images * 0.5, 1 - images, images**2])
    outputs, values, found = ScoreGradient(evaluator, probability, target)(points)
    expected = torch.stack([by_autograd(small_net, one, target) for one in points])
    assert found.shape == points.shape
    assert float((found - expected).abs().max()) < 1e-12
    logits = torch.stack([small_net(one) for one in points]).detach()
    assert float((outputs - logits).abs().max()) < 1e-12
    assert float((evaluator.outputs(points) - logits).abs().max()) < 1e-12
    expected = logits.softmax(-1)[:, torch.arange(8), target]
    assert float((values - expected).abs().max()) < 1e-12


def test_an_input_comes_out_the_same_alone_and_in_a_batch_to_the_last_bit(small_net, images):
    model, inputs = small_net.float(), images.float()
    target = torch.arange(8) % 5
    points = torch.stack([inputs, inputs * 0.5, inputs * 0.1])
    together = ScoreGradient(Evaluator(model, chunk=2), probability, target)(points)
    for i in range(8):
        gradient = ScoreGradient(Evaluator(model, chunk=2), probability, target[i : i + 1])
        alone = gradient(points[:, i : i + 1])
        assert torch.equal(alone.gradients[:, 0], together.gradients[:, i])


def test_blocks_share_passes_in_the_same_way_for_every_batch_size(small_net, images):
    fractions = torch.linspace(0, 1, 23)
    sizes = {}
    for count in (1, 2, 8):
        gradient = ScoreGradient(Evaluator(small_net, chunk=3), probability, torch.zeros(count))
        blocks = [len(block) for (block,) in gradient.blocks(images[:count], fractions)]
        sizes[count] = [min(3, size - i) for size in blocks for i in range(0, size, 3)]
    assert sizes[1] == sizes[2] == sizes[8] == [3] * 7 + [2]


def test_the_chunk_comes_from_what_a_pass_saves(images):
    class Saving(nn.Module):
        def forward(self, inputs):
            big = inputs.flatten(1).mean(1, keepdim=True).expand(-1, 2**20).exp()  # 8 MiB saved
            return torch.cat([big.mean(1, keepdim=True), inputs[:, 0, 0, :1]], dim=1)

    chunk = Evaluator(Saving().eval()).points_at_once(images[:100].repeat(100, 1, 1, 1))
    assert 10 <= chunk <= 16  # 128 MiB / 8 MiB, and what else it saves


def test_running_out_of_memory_halves_the_chunk_and_tries_again(small_net, images, monkeypatch):
    largest = []

    class Tight(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small_net

        def forward(self, inputs):
            largest.append(len(inputs))
            if len(inputs) > 3:
                raise torch.OutOfMemoryError("out of memory")
            return self.inner(inputs)

    evaluator = Evaluator(Tight().eval(), chunk=16, fold=False)
    points = images[:, None]
    target = torch.tensor([2])
    found = ScoreGradient(evaluator, probability, target)(points).gradients
    assert max(largest) == 8
    expected = by_autograd(small_net, images, [2] * 8)
    assert float((found[:, 0] - expected).abs().max()) < 1e-12
    assert evaluator.points_at_once(images[:1].repeat(100, 1, 1, 1)) == 2


def test_passes_of_several_inputs_are_halved_as_well(images):
    taken = SimpleQueue()

    class Tight(nn.Module):
        def forward(self, inputs):
            if len(inputs) > 5:
                raise torch.OutOfMemoryError("out of memory")
            return inputs.flatten(1)

    evaluator = Evaluator(Tight().eval(), chunk=64, independent=False, on_pass=taken.put)
    evaluator.differentiate(images[None], lambda outputs, rows: outputs[:, 0])
    counts = [taken.get() for _ in range(taken.qsize())]
    assert counts[-2:] == [4, 4]


def test_no_memory_for_a_single_point_is_said(images):
    class Hungry(nn.Module):
        def forward(self, inputs):
            if inputs.requires_grad:
                raise MemoryError("can't allocate memory")
            return inputs.flatten(1)

    evaluator = Evaluator(Hungry().eval(), chunk=4)
    with pytest.raises(UnilensError, match=r"not enough memory on cpu for one point of shape \(3,"):
        evaluator.differentiate(images[None, :1], lambda outputs, rows: outputs[:, 0])


def test_other_errors_are_not_taken_for_want_of_memory(small_net, images):
    def broken(outputs, rows):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        Evaluator(small_net).differentiate(images[None], broken)


class Stateful(nn.Module):
    """Keeps the input between two lines of its forward, as real models do."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs):
        self.calls += 1
        self.kept = inputs
        out = self.linear(inputs)
        for _ in range(50):  # give other threads their turn
            out = out + 0
        if self.kept is not inputs:
            raise RuntimeError("another pass came between")
        return out


def test_passes_side_by_side_do_not_share_state():
    torch.manual_seed(0)
    model = Stateful().eval()
    evaluator = Evaluator(model, chunk=1)
    points = torch.rand(40, 4, 6)
    found = evaluator.differentiate(points, lambda outputs, rows: outputs[:, 1])
    assert torch.allclose(found.gradients, model.linear.weight[1].expand_as(points))
    assert float(model.calls) == 0
    assert not hasattr(model, "kept")


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
def test_models_that_keep_tensors_with_a_graph_can_be_copied():
    torch.manual_seed(0)
    normed = nn.utils.weight_norm(nn.Linear(6, 3)).eval()
    keeping = nn.Sequential(normed, nn.Tanh())
    keeping.kept = {"activations": [normed(torch.rand(2, 6))]}
    keeping.eval()
    points = torch.rand(1, 2, 6)
    found = Evaluator(keeping).differentiate(points, lambda outputs, rows: outputs[:, 1])
    leaf = points.clone().requires_grad_()
    (expected,) = torch.autograd.grad(keeping(leaf[0])[:, 1].sum(), leaf)
    assert torch.allclose(found.gradients, expected, atol=1e-6)


def test_a_traced_model_is_not_shared_between_threads(small_net, images):
    traced = torch.fx.symbolic_trace(small_net).eval()
    expected = Evaluator(small_net, fold=False)
    for _ in range(5):
        evaluator = Evaluator(traced, fold=False)
        found, reference = (
            one.unlearned_logits(images, lambda outputs, rows: outputs[:, 0], 5.0)
            for one in (evaluator, expected)
        )
        assert torch.equal(found, reference)
    assert not torch.allclose(reference, small_net(images))


def test_ascent_is_each_inputs_own_where_passes_are_shared(linear):
    inputs = torch.rand(3, 2, 3).double()
    shared = Evaluator(linear, chunk=8, independent=False)
    shared.differentiate(inputs[None], lambda outputs, rows: outputs[:, 0])  # it knows its passes
    found = shared.unlearned_logits(inputs, lambda outputs, rows: outputs[:, 0], 1.0)
    for one, outputs in zip(inputs, found, strict=True):
        copied = copy.deepcopy(linear)
        copied(one[None])[0, 0].backward()
        norm = torch.cat([weight.grad.flatten() for weight in copied.parameters()]).norm()
        with torch.no_grad():
            for weight in copied.parameters():
                weight += weight.grad / norm
            assert torch.allclose(outputs, copied(one[None])[0])


def test_an_evaluator_made_in_inference_mode_works_outside(small_net, images):
    with torch.inference_mode():
        evaluator = Evaluator(small_net)
        made_there = images.clone()
        evaluator(made_there)
    target = torch.zeros(8, dtype=torch.long)
    found = ScoreGradient(evaluator, probability, target)(made_there[None]).gradients[0]
    assert torch.allclose(found, by_autograd(small_net, images, target))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_an_evaluator_works_after_a_fork(linear):
    evaluator = Evaluator(linear)
    inputs = torch.rand(2, 2, 3).double()
    evaluator(inputs)
    child = os.fork()
    if not child:
        signal.alarm(20)
        os._exit(0 if evaluator(inputs).shape == (2, 4) else 1)
    assert os.waitpid(child, 0)[1] == 0


class Counting(nn.Module):
    """Notes how many threads each pass may use, on its way forward and back."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, inputs):
        outputs = (self.weight * inputs).flatten(1)
        THREADS.put(torch.get_num_threads())
        if outputs.requires_grad:
            outputs.register_hook(lambda _: THREADS.put(torch.get_num_threads()))
        return outputs


THREADS: queue.SimpleQueue[int] = queue.SimpleQueue()
"""Not a list: what a model appends to a global one is taken back."""


def drained() -> list[int]:
    return [THREADS.get() for _ in range(THREADS.qsize())]


def test_a_pass_runs_on_one_thread_however_many_there_are(images):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        evaluator = Evaluator(Counting().double().eval(), fold=False)
        evaluator(images)
        drained()
        evaluator(images)
        evaluator.differentiate(images[None], lambda outputs, _: outputs[:, 0])
        evaluator.unlearned_logits(images, lambda outputs, _: outputs[:, 0], 1.0)
    finally:
        torch.set_num_threads(before)
    seen = drained()
    assert len(seen) >= 5 * len(images)
    assert set(seen) == {1}


def test_threads_of_the_caller_are_left_as_they_are(small_net, images):
    before = torch.get_num_threads()
    Evaluator(small_net)(images)
    seen = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert torch.get_num_threads() == before
    assert seen == [before]


def test_a_first_layer_in_place_does_not_overwrite_the_points():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)).eval()
    points = torch.randn(2, 5, 4)
    before = points.clone()
    found = Evaluator(model).differentiate(points, lambda outputs, rows: outputs[:, 0])
    assert torch.equal(points, before)
    assert torch.allclose(found.gradients, model[1].weight[0] * (points > 0))


class Quadratic(nn.Module):
    """One output, x^T A x / 2 + b x: its Hessian is A."""

    def __init__(self, size):
        super().__init__()
        drawn = torch.randn(size, size, generator=torch.Generator().manual_seed(2)).double()
        self.register_buffer("matrix", drawn + drawn.T)

    def forward(self, inputs):
        return 0.5 * ((inputs @ self.matrix) * inputs).sum(1, keepdim=True) + inputs[:, :1]


def test_hessian_vector_products_of_a_quadratic():
    model = Quadratic(7).eval()
    points, vectors = torch.randn(2, 3, 2, 7).double()
    found = Evaluator(model).hessian_vector(points, vectors, lambda outputs, rows: outputs[:, 0])
    assert torch.allclose(found, vectors @ model.matrix)


class Attention(nn.Module):
    """Fused attention, which has neither a forward mode nor a second derivative."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 12)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs):
        q, k, v = self.inner(inputs).chunk(3, -1)
        mixed = nn.functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])
        return self.head(mixed[:, 0].mean(1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["convolutions", "attention"])
def test_hessian_vector_products_against_autograd(kind, small_net, images):
    model = small_net if kind == "convolutions" else randomise(Attention().double())
    points = images[:2] if kind == "convolutions" else torch.rand(2, 5, 4).double()
    vectors = torch.randn(points.shape, generator=torch.Generator().manual_seed(0)).double()
    target = torch.tensor([1, 2])
    gradient = ScoreGradient(Evaluator(model), probability, target)
    found = gradient.hessian_vector(points[None], vectors[None])[0]
    for i, (point, vector) in enumerate(zip(points, vectors, strict=True)):
        with sdpa_kernel(
            SDPBackend.MATH
        ):  # autograd alone cannot differentiate the fused one twice
            hessian = torch.autograd.functional.hessian(
                lambda x, i=i: model(x[None]).softmax(-1)[0, target[i]], point
            ).reshape(point.numel(), -1)
        expected = (hessian @ vector.flatten()).view(point.shape)
        assert float(expected.abs().max()) > 1e-3
        assert float((found[i] - expected).abs().max()) < 1e-10


def test_a_score_without_curvature_has_zero_products(linear):
    points = torch.rand(1, 2, 2, 3).double()
    gradient = ScoreGradient(Evaluator(linear), lambda outputs, target: outputs[:, 0], None)
    gradient.target = torch.zeros(2, dtype=torch.long)
    assert float(gradient.hessian_vector(points, points).abs().max()) == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtypes(dtype, small_net, images):
    model = small_net.to(dtype)
    points = images.float() if dtype is torch.bfloat16 else images.to(dtype)
    outputs, values, found = Evaluator(model).differentiate(
        points[None], lambda outputs, rows: outputs[:, 0]
    )
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    assert outputs.dtype == values.dtype == found.dtype == wide


def test_autocast_computes_in_bfloat16_and_sums_in_float32(small_net, images):
    model = small_net.float()
    points = images.float()[None]
    exact = Evaluator(model).differentiate(points, lambda outputs, rows: outputs[:, 0])
    coarse = Evaluator(model, precision=torch.bfloat16).differentiate(
        points, lambda outputs, rows: outputs[:, 0]
    )
    assert coarse.gradients.dtype == torch.float32
    difference = float((coarse.gradients - exact.gradients).norm() / exact.gradients.norm())
    assert 1e-5 < difference < 0.1


@pytest.mark.slow
def test_the_peak_of_memory_does_not_grow_with_the_steps(small_net, images, monkeypatch):
    made = []
    original = PassRunner.run

    def spy(self, points, *args, **kwargs):
        made.append(points.numel())
        return original(self, points, *args, **kwargs)

    monkeypatch.setattr(PassRunner, "run", spy)
    from unilens import PathAttribution

    largest = {}
    for n_steps in (40, 400):
        made.clear()
        PathAttribution(n_steps=n_steps)(Evaluator(small_net, chunk=2), images)
        largest[n_steps] = max(made)
    assert largest[400] == largest[40]


def test_an_evaluator_of_another_model_keeps_the_settings(small_net, images):
    own = Evaluator(small_net, chunk=3, fold=False, memory_format="contiguous", independent=False)
    other = own.with_model(nn.Sequential(nn.Flatten(), nn.Linear(429, 2)).double().eval())
    assert other(images).shape == (8, 2)
    assert other._settings == own._settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"chunk": 0}, "chunk to be a whole number of at least 1, got 0"),
        ({"memory_format": "rows"}, "memory_format 'auto', 'channels_last' or .*, got 'rows'"),
    ],
)
def test_wrong_settings(settings, message, small_net):
    with pytest.raises(UnilensError, match=message):
        Evaluator(small_net, **settings)


class NoFloat64(TorchDispatchMode):
    """What a device without float64 does: it raises."""

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, torch.Tensor) and value.dtype == torch.float64:
                raise TypeError(f"{function} made float64")
        return result


@pytest.mark.slow
@pytest.mark.parametrize("method", ["uni_blur", "ig", "guided_ig", "sig", "idgi"])
def test_devices_without_float64_can_be_used(method, small_net, images, monkeypatch):
    monkeypatch.setattr("unilens._ops.precision._WITHOUT_FLOAT64", {"cpu"})
    # Nodes and weights are made on the CPU in float64, and arrive on the device in float32.
    single = quadrature("midpoint", 7)
    halved = Quadrature(single.nodes.float(), single.weights.float())
    monkeypatch.setattr("unilens.path_attribution.quadrature", lambda rule, n_steps: halved)
    evaluator = Evaluator(small_net.float())
    monkeypatch.setattr(evaluator._workers, "_on_cpu", False)
    explainer = methods[method]()
    inputs = images.float()
    explainer(evaluator, inputs)  # kernels of a blur are made on the CPU as well, and kept
    with NoFloat64():
        found = explainer(evaluator, inputs)
        assert found.warnings
        stable = stability(explainer, evaluator, inputs, found, steps=(1, 3))
    assert found.values.isfinite().all()
    assert stable["stability_1_3"].dtype == torch.float32


def test_on_pass_counts_every_point_and_can_end_the_work(small_net, images):
    class EnoughError(Exception):
        pass

    counted, allowed = [], [10_000]

    def on_pass(points):
        counted.append(points)
        if sum(counted) > allowed[0]:
            raise EnoughError

    evaluator = Evaluator(small_net, chunk=3, on_pass=on_pass)
    explainer = methods["ig"](n_steps=20)
    explainer(evaluator, images, 0)  # the first points are also tried for their size
    counted.clear()
    explainer(evaluator, images, 0)
    assert sum(counted) == len(images) * explainer.passes.forward
    counted.clear()
    evaluator.with_model(small_net)(images)
    assert sum(counted) >= len(images)
    counted.clear()
    allowed[0] = 30
    with pytest.raises(EnoughError):
        explainer(evaluator, images, 0)
    assert 30 < sum(counted) < 60


@pytest.mark.parametrize("convolution", [True, False])
def test_batch_norm_before_tokens_has_its_true_gradient(convolution):
    """PyTorch misreads gradients that are not contiguous, for one image on the CPU."""
    torch.manual_seed(0)

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 6, 1)
            self.norm, self.last = nn.BatchNorm2d(6), nn.Linear(6 * 16, 2)
            self.between = nn.Identity() if convolution else nn.ReLU()

        def forward(self, images):
            grid = self.norm(self.between(self.first(images)))
            return self.last(grid.flatten(2).transpose(1, 2).flatten(1))

    model = Tokens().double()
    nn.init.uniform_(model.norm.running_var, 0.5, 2.0)
    nn.init.normal_(model.norm.weight)
    model.eval()
    image, step = torch.rand(2, 1, 3, 4, 4, dtype=torch.float64).unbind(0)
    gradient = methods["gradient"](score="logit")(model, image, 1).values
    with torch.no_grad():
        ends = [model(image + sign * 1e-6 * step)[0, 1] for sign in (1, -1)]
    torch.testing.assert_close(
        (gradient * step).sum(), (ends[0] - ends[1]) / 2e-6, rtol=1e-6, atol=0
    )
