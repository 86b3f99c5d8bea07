"""The one place that runs the model: any number of points, in bounded memory, in a fast layout.

Everything here works on a copy of the user's model that shares its weights' storage, so the model
itself, its hooks, its training mode and its `requires_grad` flags are never touched, whatever
happens on the way.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from .._validation.models import check_model, tensors_of
from .._validation.settings import check_channels, check_choice, check_count
from ..errors import NotApplicableError, require
from ..outputs import OUTPUTS, OutputSpec
from .balanced import BalancedGradients
from .calls import ModelCalls, Run
from .copying import private_copy, unwrapped
from .gradients import input_gradient, second_gradient
from .microbatches import Microbatches
from .packing import InputSpec
from .passes import PassRunner, floating_dtypes
from .plan_cache import Adapter
from .plans import SPEED_UPS, Plan
from .rewriting import AttentionRule
from .smooth_activations import twice_differentiable
from .unlearning import check_weights
from .unlearning_at_once import Ascent, Unlearning
from .workers import Workers, is_on_cpu

T = TypeVar("T")
Objective = Callable[[Tensor, Tensor], Tensor]
"""From outputs `(m, K)` and the numbers `(m,)` of the inputs they belong to, to values `(m,)`."""


class PassCount(NamedTuple):
    """How often a computation runs the model forward and backward, per input."""

    forward: int
    backward: int

    def __add__(self, other: object) -> PassCount:
        if not isinstance(other, PassCount):
            return NotImplemented
        return PassCount(self.forward + other.forward, self.backward + other.backward)


class Evaluation(NamedTuple):
    """Outputs `(N, B, K)`, an objective `(N, B)` and its gradients `(N, B, *S)` at points."""

    outputs: Tensor
    values: Tensor
    gradients: Tensor


class Evaluator:
    """A model prepared for many passes; use it wherever a model is expected.

    Points come as `(N, B, *S)`: N points for each of B inputs. On the CPU a pass takes points of
    one input only and runs on one thread, with several passes at a time. So the result for an
    input is the same to the last bit alone and in any batch, on one core or on many. This matters
    because a search for a baseline amplifies differences of rounding. Elsewhere, where small passes
    leave most of a device idle, one takes points of several inputs.

    At the first points of a shape the user's module is called twice, with one point each time, and
    every speed-up (a copy, batch norms folded, another memory format, several points per pass) is
    kept only where outputs and input gradients agree with those calls; `describe` says what was
    dropped and why. What a call changes in the user's module is put back.

    Keep an evaluator as long as the model's weights stay as they are, and no longer. Threads can
    share one; it pickles where the model does.

    Attributes:
        output_spec: what the outputs are; None until it is set or detected.
        channels: as given; methods and metrics read it.
        balanced_reports: what balanced gradients rewrite, with the plan under which that was
            checked, by the shape of an input and the rule of attention weights.

    Args:
        model: any module from `(M, *S)` to logits `(M, K)`, in eval mode.
        chunk: micro-batch size, in points per pass; by default sized so that saved activations
            take at most 128 MiB (2 GiB on an accelerator), less where memory is short.
        independent: whether a pass takes points of one input only. False is faster on accelerators
            and for tables of many rows, and equal to rounding only; None is True on the CPU alone.
        fold: whether to fold batch norms into convolutions where that is exact.
        memory_format: "channels_last", "contiguous" or "auto" (channels-last for 2-D convolutions).
        precision: a dtype for autocast, such as `torch.bfloat16`; sums stay in float32.
        channels: which axis of the inputs holds the channels or features: "first" `(B, C, ...)`,
            "last" `(B, ..., C)`, "none", its number, or "auto", which detects it from the model
            where it matters.
        on_pass: called with the number of points before each pass, on the thread that runs it, to
            show progress. An exception that it raises ends the work; use neither a `UnilensError`
            nor a `RuntimeError`, which some metrics catch.
        outputs: what the outputs are, a name in `unilens.outputs.OUTPUTS`; None to detect it.

    Raises:
        UnilensError: the model is in training mode, or cannot be copied.
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        model: nn.Module,
        *,
        chunk: int | None = None,
        independent: bool | None = None,
        fold: bool = True,
        memory_format: str = "auto",
        precision: torch.dtype | None = None,
        channels: str | int = "auto",
        on_pass: Callable[[int], object] | None = None,
        outputs: str | None = None,
    ) -> None:
        check_model(model)
        check_channels(channels)
        chunk = None if chunk is None else check_count("chunk", chunk)
        require(
            precision in (None, torch.bfloat16, torch.float16),
            f"expected precision torch.bfloat16, torch.float16 or None, got {precision!r}",
        )
        require(
            memory_format in ("auto", "channels_last", "contiguous"),
            "expected memory_format 'auto', 'channels_last' or 'contiguous', got "
            f"{memory_format!r}",
        )
        self.model = model
        self._settings: dict[str, Any] = {
            "chunk": chunk,
            "independent": independent,
            "fold": fold,
            "memory_format": memory_format,
            "precision": precision,
            "channels": channels,
            "on_pass": on_pass,
            "outputs": outputs,
        }
        self.channels = channels
        self.output_spec = model.output_spec if isinstance(model, Adapter) else None
        if outputs is not None:
            check_choice("outputs", outputs, OUTPUTS)
            self.output_spec = self.output_spec or OutputSpec(outputs, "setting")
        modules = list(model.modules())
        tensors = tensors_of(modules)
        dtypes = floating_dtypes(tensors)
        self.dtype = next(iter(dtypes), None)
        self.device = tensors[0].device if tensors else None
        inference = any(value.is_inference() for value in tensors)  # not to be differentiated
        self._module = private_copy(unwrapped(model)) if inference else unwrapped(model)
        convolutional = any(isinstance(module, nn.Conv2d) for module in modules)
        channels_last = memory_format == "channels_last" or (
            memory_format == "auto" and convolutional
        )
        self._workers = Workers(self.device)
        self._calls = ModelCalls(model, on_pass)
        self._independent = is_on_cpu(self.device) if independent is None else independent
        self._microbatches = Microbatches(chunk, self._independent, self._workers.count)
        self._passes = PassRunner(
            self._module,
            Plan(folded=fold, channels_last=channels_last, autocast=precision),
            self._calls,
            self._microbatches,
            self._workers,
            dtypes,
        )
        self._pool = self._passes.pool
        self._unlearning = Unlearning(model, self._passes, self._calls, self._workers)
        self.balanced_reports: dict[tuple[torch.Size, AttentionRule], tuple[Plan, Any]] = {}

    @property
    def input_spec(self) -> InputSpec | None:
        """Where each input lies, for models of several inputs; None for others."""
        return self._calls.input_spec

    def __reduce__(self) -> tuple[Any, ...]:
        """Return a constructor and its arguments, for pickle."""
        return functools.partial(type(self), **self._settings), (self.model,)

    @classmethod
    def of(cls, model: nn.Module | Evaluator) -> Evaluator:
        """Return the evaluator itself, or one made for the model."""
        return model if isinstance(model, Evaluator) else cls(model)

    def with_model(self, model: nn.Module) -> Evaluator:
        """Return an evaluator of another model with the settings of this one."""
        other = Evaluator(model, **{**self._settings, "channels": self.channels})
        other._calls.input_spec = other.input_spec or self.input_spec
        if not isinstance(model, Adapter) or model.output_spec is None:
            other.output_spec = self.output_spec
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
            return self._passes.with_graph(points).unflatten(0, points.shape[:2])
        graph = self.plan(points[0]).reentrant  # without one, checkpointing warns

        def work(run: Run, microbatch: Tensor, rows: Tensor) -> tuple[Tensor]:
            with torch.set_grad_enabled(graph):
                leaf = microbatch.requires_grad_() if graph else microbatch
                return (run(leaf).detach(),)  # a forward may differentiate on its own

        return self._passes.run(points, work)[0]

    @torch.inference_mode(False)
    def differentiate(
        self,
        points: Tensor,
        objective: Objective,
        *,
        create_graph: bool = False,
        balanced: AttentionRule | None = None,
    ) -> Evaluation:
        """Return the model's outputs, an objective of them, and its gradients.

        Args:
            points: `(N, B, *S)`.
            objective: from outputs `(m, K)` and the inputs' numbers `(m,)`, in 0..B-1, to values
                `(m,)`; the value of a row may depend on that row's outputs only.
            create_graph: whether all three can be differentiated again, in the points and in the
                model's weights. One pass then takes all points, and needs memory for all of
                them; fused attention, which has no second derivative, is computed plainly.
            balanced: the rule of attention weights for balanced gradients, which `check_balanced`
                has checked at inputs of this shape; None for the model's own gradients.
        """
        if create_graph:
            with torch.enable_grad():
                flat = points.flatten(0, 1)
                leaf = flat if flat.requires_grad else flat.detach().requires_grad_()
                outputs = self._passes.with_graph(leaf.unflatten(0, points.shape[:2]))
                numbers = torch.arange(points.shape[1], device=points.device)
                values = objective(outputs, numbers.repeat(len(points)))
                gradient = input_gradient(self.model, values, leaf, create_graph=True)
            columns = (outputs, values, gradient)
            return Evaluation(*(column.unflatten(0, points.shape[:2]) for column in columns))
        reentrant = self.plan(points[0]).reentrant

        def work(run: Run, microbatch: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
            leaf = microbatch.detach().requires_grad_()
            rules = BalancedGradients(balanced) if balanced else contextlib.nullcontext()
            with torch.enable_grad():
                with rules:
                    outputs = run(leaf)
                values = objective(outputs, rows)
                with rules:  # checkpoints run layers again
                    gradient = input_gradient(self.model, values, leaf, reentrant=reentrant)
            return outputs.detach(), values.detach(), gradient

        return Evaluation(*self._passes.run(points, work))

    @torch.inference_mode(False)
    def hessian_vector(self, points: Tensor, vectors: Tensor, objective: Objective) -> Tensor:
        """Return the products `(N, B, *S)` of the objective's Hessians at points with vectors.

        The gradient is differentiated again. Convolutions and attention are computed by formulas
        whose second derivative is as cheap as their first, and the hard sigmoid, which has none,
        by way of ReLU6.

        Args:
            points: `(N, B, *S)`.
            vectors: `(N, B, *S)`.
            objective: as in `differentiate`, twice differentiable.
        """

        def work(run: Run, microbatch: Tensor, rows: Tensor) -> tuple[Tensor]:
            leaf, vector = microbatch[0].detach().requires_grad_(), microbatch[1]
            with torch.enable_grad(), twice_differentiable():
                values = objective(run(leaf), rows)
                gradient = input_gradient(self.model, values, leaf, create_graph=True)
                return (second_gradient(gradient * vector, leaf),)

        return self._passes.run(points, work, vectors.flatten(0, 1))[0]

    @torch.inference_mode(False)
    def unlearned_logits(
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
        An input whose gradient is zero has no direction: its outputs are the model's own. Where
        inputs may share a pass, those of small models unlearn together, each with weights of its
        own; the last layer, where it is linear, is unlearned by a formula.

        Args:
            inputs: `(B, *S)`.
            objective: as in `differentiate`.
            rate: the length of each step in weight space.
            steps: how many.
            weights: one of `UNLEARNED_WEIGHTS`: "all", or those of the "last" layer that has any,
                in the order in which the model registers its layers.
        """
        check_weights(self._module, weights)
        plan = self._copied_plan(inputs, "unlearn on").without("", "folded")
        ascent = Ascent(rate, steps, weights)
        together = not self._independent
        return self._unlearning.logits(plan, inputs, objective, ascent, together=together)

    outputs_after_ascent = unlearned_logits  # scripts of users call it so

    @torch.inference_mode(False)
    def private_module(self, inputs: Tensor) -> nn.Module:
        """Return a copy of the model to hook or change, whose outputs are the model's.

        Args:
            inputs: `(B, *S)`; at the first of a shape the copy is compared with the model.

        Raises:
            NotApplicableError: copies give other outputs than the model.
        """
        plan = self._copied_plan(inputs, "look into")
        return private_copy(self._module, own_weights=plan.own_weights)

    @contextlib.contextmanager
    def borrowed(self, inputs: Tensor) -> Iterator[tuple[nn.Module, Run]]:
        """Lend the calling thread a module with the model's outputs, and a pass of it.

        It runs without speed-ups: in the user's memory format, with no batch norm folded.

        Args:
            inputs: `(B, *S)`.
        """
        plan = self.plan(inputs).without("", *SPEED_UPS)
        with self._workers.alone(), self._pool.borrowed(plan, inputs[:1].detach()) as module:
            yield module, functools.partial(self._calls.forward, module, plan)

    def run(self, module: nn.Module, points: Tensor) -> Tensor:
        """Return the logits `(m, K)` of a variant of the model at points `(m, *S)`, in one pass.

        Its errors become `UnilensError`, as the model's own do.
        """
        return self._calls.forward(module, self.plan(points).without("", *SPEED_UPS), points)

    def plan(self, inputs: Tensor) -> Plan:
        """Return how the model is run at inputs `(B, *S)`, proven at the first one of a shape.

        Raises:
            UnilensError: the model cannot take the inputs, or gives other outputs at each call.
        """
        return self._passes.plan(inputs)

    def describe(self, inputs: Tensor) -> dict[str, object]:
        """Return how the model is run at inputs `(B, *S)`, as records store it."""
        return self.plan(inputs).describe()

    @torch.inference_mode(False)
    def points_at_once(self, inputs: Tensor) -> int:
        """Return how many points of each of the inputs `(B, *S)` keep all workers busy.

        It is a whole number of passes, so that the points that share a pass do not depend on B.
        """
        self.plan(inputs)
        passes = math.ceil(4 * self._workers.count / len(inputs))
        return self._microbatches.size(inputs.shape[1:]) * passes

    def for_each(self, count: int, work: Callable[[int], T]) -> list[T]:
        """Return the work's results for 0 ... count - 1, each on one thread, as passes run."""
        results: dict[int, T] = {}

        def run_at(index: Tensor) -> None:
            results[int(index)] = work(int(index))

        self._workers.run(run_at, list(torch.arange(count)))
        return [results[index] for index in range(count)]

    def in_turn(self, count: int, work: Callable[[int], T]) -> list[T]:
        """Return the results of `for_each`, all on one thread: for work that shares a module."""
        return self.for_each(1, lambda _: [work(index) for index in range(count)])[0]

    def _copied_plan(self, inputs: Tensor, purpose: str) -> Plan:
        """Return the plan at inputs; raise where it does not run copies."""
        plan = self.plan(inputs)
        if not plan.copied:
            raise NotApplicableError(
                f"expected a model that can be copied, to {purpose} the copy: "
                f"{plan.dropped['copied']}; use method='ig'"
            )
        return plan
