"""The one place that runs the model: any number of points, in bounded memory, in a fast layout.

Everything here works on a copy of the user's model that shares its weights' storage, so the model
itself, its hooks, its training mode and its `requires_grad` flags are never touched, whatever
happens on the way.
"""

from __future__ import annotations

import contextlib
import math
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from .checks import check_model, check_outputs
from .errors import UnilensError, require
from .folding import fold_batch_norms
from .layout import Layout, OfParts
from .numerics import l2_norm
from .passes import Results, Workers, first_line, free_memory, out_of_memory, trim, working_copy
from .settings import check_channels
from .smooth import twice_differentiable

T = TypeVar("T")
Objective = Callable[[Tensor, Tensor], Tensor]
"""From outputs `(m, K)` and the numbers `(m,)` of the inputs they belong to, to values `(m,)`."""

UNLEARNED_WEIGHTS = ("all", "last")
"""Which weights an ascent takes along: all, or those of the last layer that has any."""
FORWARD_MODE = threading.Lock()
"""One pass in forward mode at a time: several at once end the process now and then (torch 2.14)."""
_BYTES_PER_PASS = {"cpu": 128 * 2**20, "other": 2 * 2**30}
_POINTS_PER_PASS = 16 * 2**20
_SHARE_OF_FREE_MEMORY = 0.25
_LARGEST_CHUNK = 4096
_POINTS_OF_A_PRODUCT = 4
"""Points of a pass whose memory a Hessian-vector product takes, with its graph kept twice."""
_TRIM_AFTER = 4 * 2**30
"""Saved bytes after which free memory is given back: without it the peak grows with the passes."""


class Passes(NamedTuple):
    """How often a computation runs the model forward and backward, per input."""

    forward: int
    backward: int

    def __add__(self, other: object) -> Passes:
        if not isinstance(other, Passes):
            return NotImplemented
        return Passes(self.forward + other.forward, self.backward + other.backward)


class Evaluation(NamedTuple):
    """Outputs `(N, B, K)`, an objective `(N, B)` and its gradients `(N, B, *S)` at points."""

    outputs: Tensor
    values: Tensor
    gradients: Tensor


class Evaluator:
    """A model prepared for many passes; use it wherever a model is expected.

    Points come as `(N, B, *S)`: N points for each of B inputs. A pass takes points of one input
    only, and on the CPU it runs on one thread, several passes side by side. So what comes out for
    an input is the same to the last bit alone and in any batch, on one core or on many; and on a
    CPU it is the faster way. It matters because a search for a baseline amplifies differences of
    rounding.

    Making one costs a copy of the model, which shares the weights that keep their layout, and a few
    passes at the first point.
    Keep it as long as the model's weights stay as they are, and no longer.

    Attributes:
        parts: where the parts of an input lie, for models of several inputs; None for others.
        channels: as given; methods and metrics read it.

    Args:
        model: any module from `(M, *S)` to logits `(M, K)`, in eval mode.
        chunk: points per pass; by default as many as save 128 MiB for the way back (2 GiB on an
            accelerator), less where memory is short.
        independent: False lets one pass take points of several inputs: faster on accelerators and
            for tables of many rows, equal to rounding only.
        fold: whether to fold batch norms into convolutions where that is exact.
        layout: "channels_last", "contiguous" or "auto" (channels-last for 2-D convolutions).
        precision: a dtype for autocast, such as `torch.bfloat16`; sums stay in float32.
        channels: which axis of the inputs holds the channels or features: "first" `(B, C, ...)`,
            "last" `(B, ..., C)`, "none", its number, or "auto", which reads it off the model where
            it counts.
        on_pass: called with the number of points before each pass, on the thread that takes it: to
            show progress. What it raises ends the work; let it be neither a `UnilensError` nor a
            `RuntimeError`, which some metrics count and go on.

    Raises:
        UnilensError: the model is in training mode, or cannot be copied.
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        model: nn.Module,
        *,
        chunk: int | None = None,
        independent: bool = True,
        fold: bool = True,
        layout: str = "auto",
        precision: torch.dtype | None = None,
        channels: str | int = "auto",
        on_pass: Callable[[int], object] | None = None,
    ) -> None:
        check_model(model)
        check_channels(channels)
        require(
            chunk is None or (type(chunk) is int and chunk >= 1),
            f"expected chunk to be a whole number of at least 1, got {chunk!r}",
        )
        require(
            precision in (None, torch.bfloat16, torch.float16),
            f"expected precision torch.bfloat16, torch.float16 or None, got {precision!r}",
        )
        require(
            layout in ("auto", "channels_last", "contiguous"),
            f"expected layout 'auto', 'channels_last' or 'contiguous', got {layout!r}",
        )
        self.model = model
        self.parts: Layout | None = model.layout if isinstance(model, OfParts) else None
        self._chunk_wanted, self._independent = chunk, independent
        self._fold, self._layout, self._precision = fold, layout, precision
        self._on_pass = on_pass
        self.channels = channels
        self._chunks: dict[torch.Size, int] = {}
        self._saved_bytes: dict[torch.Size, int] = {}
        self._saved_since = 0
        convolutional = any(isinstance(part, nn.Conv2d) for part in model.modules())
        self._channels_last = layout == "channels_last" or (layout == "auto" and convolutional)
        self._module = working_copy(model)
        if self._channels_last:
            self._module.to(memory_format=torch.channels_last)
        self._fast: nn.Module | None = None
        tensors = [*model.parameters(), *model.buffers()]
        floating = [tensor for tensor in tensors if tensor.is_floating_point()]
        self.dtype = floating[0].dtype if floating else None
        self.device = tensors[0].device if tensors else None
        self._workers = Workers(self.device)

    @classmethod
    def of(cls, model: nn.Module | Evaluator) -> Evaluator:
        """Return the evaluator itself, or one made for the model."""
        return model if isinstance(model, Evaluator) else cls(model)

    def with_model(self, model: nn.Module) -> Evaluator:
        """Return an evaluator of another model with the settings of this one."""
        other = Evaluator(
            model,
            chunk=self._chunk_wanted,
            independent=self._independent,
            fold=self._fold,
            layout=self._layout,
            precision=self._precision,
            channels=self.channels,
            on_pass=self._on_pass,
        )
        other.parts = other.parts or self.parts
        return other

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the logits `(B, K)` at inputs `(B, *S)`, without gradient."""
        return self.outputs(inputs.unsqueeze(0))[0]

    @torch.inference_mode(False)
    def outputs(self, points: Tensor, *, create_graph: bool = False) -> Tensor:
        """Return the logits `(N, B, K)` at points `(N, B, *S)`, in float32 or wider.

        With `create_graph` they can be differentiated, in the points and the model's weights.
        """
        if create_graph:
            return self._with_graph(points).unflatten(0, points.shape[:2])
        fast = self._prepared(points)

        def work(part: Tensor, rows: Tensor) -> tuple[Tensor]:
            with torch.no_grad():
                return (self._forward(self._own(fast), part),)

        return self._in_passes(points, work)[0]

    @torch.inference_mode(False)
    def differentiate(
        self, points: Tensor, objective: Objective, *, create_graph: bool = False
    ) -> Evaluation:
        """Return the model's outputs, an objective of them, and its gradients.

        Args:
            points: `(N, B, *S)`.
            objective: from outputs `(m, K)` and the inputs' numbers `(m,)`, in 0..B-1, to values
                `(m,)`; the value of a row may depend on that row's outputs only.
            create_graph: whether all three can be differentiated again, in the points and in the
                model's weights. One pass then takes all points, and the memory is that of them
                all; fused attention, which has no second derivative, gives way to the plain kernel.
        """
        if create_graph:
            with torch.enable_grad():
                flat = points.flatten(0, 1)
                leaf = flat if flat.requires_grad else flat.detach().requires_grad_()
                outputs = self._with_graph(leaf.unflatten(0, points.shape[:2]))
                numbers = torch.arange(points.shape[1], device=points.device)
                values = objective(outputs, numbers.repeat(len(points)))
                (gradient,) = _gradient(values, leaf, create_graph=True)
            found = (outputs, values, gradient)
            return Evaluation(*(one.unflatten(0, points.shape[:2]) for one in found))
        fast = self._prepared(points)

        def work(part: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
            leaf = part.detach().requires_grad_()
            with torch.enable_grad():
                outputs = self._forward(self._own(fast), leaf)
                values = objective(outputs, rows)
                (gradient,) = _gradient(values, leaf)
            return outputs.detach(), values.detach(), gradient

        return Evaluation(*self._in_passes(points, work))

    @torch.inference_mode(False)
    def hessian_vector(self, points: Tensor, vectors: Tensor, objective: Objective) -> Tensor:
        """Return the products `(N, B, *S)` of the objective's Hessians at points with vectors.

        With J the outputs' Jacobian and u the objective's gradient in the outputs, the product is
        the gradient of u . Jv. Jv comes from forward mode, which is exact and spares the second
        derivative of convolutions (fifty times a pass, where they are grouped); where an operation
        has no forward mode, the gradient is differentiated again. Fused attention has neither, so
        the plain kernel is used; nor has the hard sigmoid, which is computed by way of ReLU6.

        Args:
            points: `(N, B, *S)`.
            vectors: `(N, B, *S)`.
            objective: as in `differentiate`, twice differentiable.
        """
        fast = self._prepared(points)
        beside = vectors.flatten(0, 1)

        def forward_mode(part: Tensor, rows: Tensor) -> tuple[Tensor]:
            leaf, vector = part[0].detach().requires_grad_(), part[1]
            with FORWARD_MODE, torch.enable_grad(), twice_differentiable():
                dual = forward_ad.make_dual(leaf, vector)
                outputs, along = forward_ad.unpack_dual(self._forward(self._own(fast), dual))
                (inner,) = _gradient(objective(outputs, rows), outputs, create_graph=True)
                return _second(inner * along, leaf)

        def twice(part: Tensor, rows: Tensor) -> tuple[Tensor]:
            leaf, vector = part[0].detach().requires_grad_(), part[1]
            with torch.enable_grad(), twice_differentiable():
                values = objective(self._forward(self._own(fast), leaf), rows)
                (gradient,) = _gradient(values, leaf, create_graph=True)
                return _second(gradient * vector, leaf)

        with sdpa_kernel(SDPBackend.MATH):
            try:
                with forward_ad.dual_level(), warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # torch scripts its own formulas, and warns
                    return self._in_passes(points, forward_mode, beside)[0]
            except (RuntimeError, TypeError, UnilensError):
                return self._in_passes(points, twice, beside)[0]

    @torch.inference_mode(False)
    def outputs_after_ascent(
        self,
        inputs: Tensor,
        objective: Objective,
        rate: float,
        *,
        steps: int = 1,
        weights: str = "all",
    ) -> Tensor:
        """Return the logits `(B, K)` at each input after ascent steps taken for it alone.

        theta' = theta + rate g / |g|, g the objective's gradient in all weights together. The
        weights are separate tensors; frozen parameters take part, and the model stays as it is.
        An input whose gradient is zero has no direction: its outputs are the model's own.

        Args:
            inputs: `(B, *S)`.
            objective: as in `differentiate`.
            rate: the length of each step in weight space.
            steps: how many.
            weights: one of `UNLEARNED_WEIGHTS`: "all", or those of the "last" layer that has any,
                in the order in which the model registers its layers.
        """
        chosen = _weights_of(self._module, weights)
        require(
            bool(chosen), "expected a model with weights to unlearn, got one without parameters"
        )

        def work(part: Tensor, rows: Tensor) -> tuple[Tensor]:
            module = self._workers.own(self._module)
            own = {
                name: value.detach() for name, value in module.named_parameters() if name in chosen
            }
            for _ in range(steps):
                own = {name: value.requires_grad_() for name, value in own.items()}
                with torch.enable_grad():
                    outputs = self._forward(_Reweighted(module, own), part)
                    values = objective(outputs, rows)
                    if not values.requires_grad:
                        raise not_differentiable()
                    gradients = torch.autograd.grad(
                        values.sum(), list(own.values()), materialize_grads=True
                    )
                norm = torch.stack([l2_norm(gradient, 0) for gradient in gradients]).norm()
                if not norm > 0:
                    return (outputs.detach(),)
                own = {
                    name: value.detach() + gradient * (rate / norm).to(gradient.dtype)
                    for (name, value), gradient in zip(own.items(), gradients, strict=True)
                }
            with torch.no_grad():
                return (self._forward(_Reweighted(module, own), part),)

        return self._in_passes(inputs.unsqueeze(0), work, alone=True)[0][0]

    def run(self, module: nn.Module, points: Tensor) -> Tensor:
        """Return the logits `(m, K)` of a variant of the model at points `(m, *S)`, in one pass.

        Its errors become `UnilensError`, as the model's own do.
        """
        return self._forward(module, points)

    @torch.inference_mode(False)
    def points_at_once(self, inputs: Tensor) -> int:
        """Return how many points of each of the inputs `(B, *S)` keep all workers busy.

        It is a whole number of passes, so that the points that share a pass do not depend on B.
        """
        self._prepared(inputs.unsqueeze(0))
        passes = math.ceil(4 * self._workers.count / len(inputs))
        return self._chunks[inputs.shape[1:]] * passes

    def for_each(self, count: int, work: Callable[[int], T]) -> list[T]:
        """Return what the work gives for 0 ... count - 1, done as passes are: one thread each."""
        results: dict[int, T] = {}

        def one(index: Tensor) -> None:
            results[int(index)] = work(int(index))

        self._workers.run(one, list(torch.arange(count)))
        return [results[index] for index in range(count)]

    def in_turn(self, count: int, work: Callable[[int], T]) -> list[T]:
        """Return what `for_each` does, on one thread in all: for work that shares a module."""
        return self.for_each(1, lambda _: [work(index) for index in range(count)])[0]

    def _with_graph(self, points: Tensor) -> Tensor:
        """Return the logits `(N * B, K)` in one pass of the user's own weights, with its graph."""
        weights = dict(self.model.named_parameters())
        with sdpa_kernel(SDPBackend.MATH), torch.enable_grad(), twice_differentiable():
            return self._forward(_Reweighted(self._module, weights), points.flatten(0, 1))

    def _own(self, fast: nn.Module) -> nn.Module:
        return self._workers.own(fast) if fast is self._module else fast

    def _forward(self, run: nn.Module, points: Tensor) -> Tensor:
        if self._on_pass is not None:
            self._on_pass(len(points))
        last = self._channels_last and points.ndim == 4
        # A clone, never the leaf itself: a first layer that works in place may overwrite it.
        given = points.to(self.dtype).clone(
            memory_format=torch.channels_last if last else torch.contiguous_format
        )
        try:
            with self._autocast(points.device):
                outputs = run(given)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            if isinstance(error, UnilensError) or out_of_memory(error):
                raise
            shape = tuple(points.shape[1:]) if self.parts is None else f"parts {self.parts}"
            raise UnilensError(
                f"the model could not take an input of shape {shape}, {points.dtype}: "
                f"{first_line(error)}"
            ) from error
        check_outputs(outputs, len(points))
        return outputs.to(torch.promote_types(outputs.dtype, torch.float32))

    def _autocast(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        if self._precision is None:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=self._precision)

    def _in_passes(
        self,
        points: Tensor,
        work: Callable[[Tensor, Tensor], tuple[Tensor, ...]],
        beside: Tensor | None = None,
        *,
        alone: bool = False,
    ) -> list[Tensor]:
        """Return what the work gives for points `(N, B, *S)`, each entry `(N, B, ...)`.

        Where memory runs out, passes take half as many points and the work begins again.

        Args:
            points: `(N, B, *S)`.
            work: from some of the points `(m, *S)` and their inputs' numbers `(m,)` to tensors
                `(m, ...)`; with `beside`, from both stacked `(2, m, *S)`.
            beside: `(N * B, *S)`, handed over with the points, of which a pass then takes fewer.
            alone: whether each point has a pass to itself, since the work adds up over its points.
        """
        steps, batch = points.shape[:2]
        flat = points.flatten(0, 1)
        numbers = torch.arange(steps * batch, device=points.device).view(steps, batch)

        while True:
            results = Results(steps * batch)

            def one(index: Tensor, into: Results = results) -> None:
                part = flat[index]
                given = part if beside is None else torch.stack([part, beside[index]])
                into.put(index, work(given, index % batch))

            together = self._chunks.get(points.shape[2:], 1)
            if alone:
                together = 1
            elif beside is not None:
                together = max(1, together // _POINTS_OF_A_PRODUCT)
            if self._independent:
                indices = [part for column in numbers.T for part in column.split(together)]
            else:
                indices = list(numbers.flatten().split(together))
            try:
                self._workers.run(one, indices)
            except (RuntimeError, MemoryError) as error:
                self._halve(points, error)
            else:
                break
        self._saved_since += self._saved_bytes.get(points.shape[2:], 0) * len(flat)
        if self._saved_since > _TRIM_AFTER and flat.device.type == "cpu":
            self._saved_since = 0
            trim()
        return [column.unflatten(0, (steps, batch)) for column in results.columns]

    def _prepared(self, points: Tensor) -> nn.Module:
        """Return the fast copy; at the first points of a shape, choose the chunk for it."""
        shape = points.shape[2:]
        if self._fast is None:
            sample = points[0, :1].detach().clone()
            with torch.no_grad():
                self._forward(self._module, sample)
            given = sample.to(self.dtype)
            self._fast = fold_batch_norms(self._module, given) if self._fold else self._module
        if shape not in self._chunks:
            try:
                self._saved_bytes[shape] = self._measure(self._fast, points[0, :1])
            except (RuntimeError, MemoryError) as error:
                self._halve(points, error)
            self._chunks[shape] = self._chunk_wanted or self._choose_chunk(
                points.device, self._saved_bytes[shape], points[0, 0].nbytes
            )
        return self._fast

    def _measure(self, run: nn.Module, sample: Tensor) -> int:
        """Return how many bytes autograd saves for one point, weights not counted."""
        weights = {
            value.untyped_storage().data_ptr() for value in (*run.parameters(), *run.buffers())
        }
        saved: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            self._forward(run, sample.detach().clone().requires_grad_())
        return sum(saved.values())

    def _choose_chunk(self, device: torch.device, saved: int, point: int) -> int:
        """Return how many points a pass should take, from what is saved for one and its size."""
        kind = "cpu" if device.type == "cpu" else "other"
        free = _SHARE_OF_FREE_MEMORY * free_memory(device) / self._workers.count
        fitting = min(_BYTES_PER_PASS[kind], free) / max(saved, 1)
        fitting = min(fitting, _POINTS_PER_PASS / point)
        return int(min(max(fitting, 1), _LARGEST_CHUNK))

    def _halve(self, points: Tensor, error: RuntimeError | MemoryError) -> None:
        """Take smaller passes after running out of memory; raise where that is not the trouble."""
        if not out_of_memory(error):
            raise error
        shape = points.shape[2:]
        if self._chunks.get(shape, 1) == 1:
            raise UnilensError(
                f"not enough memory on {points.device} for one point of shape {tuple(shape)} "
                "at a time; use a smaller input, a smaller model or another device"
            ) from error
        most = len(points) if self._independent else points.shape[0] * points.shape[1]
        self._chunks[shape] = max(1, min(self._chunks[shape], most) // 2)
        if points.device.type == "cuda":
            torch.cuda.empty_cache()


def not_differentiable(
    came: str = "outputs without a gradient", within: str = "inputs"
) -> UnilensError:
    """Return the error of a model that cannot be differentiated in its inputs, or its layers."""
    return UnilensError(
        f"expected a model that is differentiable in its {within}, got {came}; remove detach(), "
        "argmax, numpy or no_grad from its forward"
    )


def _gradient(values: Tensor, leaf: Tensor, create_graph: bool = False) -> tuple[Tensor]:
    if not values.requires_grad:
        raise not_differentiable()
    (gradient,) = torch.autograd.grad(
        values.sum(), leaf, create_graph=create_graph, allow_unused=True
    )
    if gradient is None:
        raise not_differentiable("outputs that do not depend on them")
    return (gradient,)


def _second(product: Tensor, leaf: Tensor) -> tuple[Tensor]:
    """Return the gradient of a sum that may not depend on the leaf: then it is zero."""
    if not product.requires_grad:
        return (torch.zeros_like(leaf),)
    (gradient,) = torch.autograd.grad(product.sum(), leaf, materialize_grads=True)
    return (gradient,)


def _weights_of(module: nn.Module, which: str) -> set[str]:
    """Return the names of the floating-point weights that an ascent takes along."""
    named = [name for name, value in module.named_parameters() if value.is_floating_point()]
    if which == "all" or not named:
        return set(named)
    layer = named[-1].rpartition(".")[0]
    return {name for name in named if name.rpartition(".")[0] == layer}


class _Reweighted(nn.Module):
    """A module run with other weights; the module itself is not changed."""

    def __init__(self, module: nn.Module, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._call = (module, dict(weights))

    def forward(self, inputs: Tensor) -> Tensor:
        module, weights = self._call
        return torch.func.functional_call(module, weights, (inputs,))
