"""The one place that runs the model: any number of points, in bounded memory, in a fast layout.

Everything here works on a copy of the user's model that shares its weights' storage, so the model
itself, its hooks, its training mode and its `requires_grad` flags are never touched, whatever
happens on the way.
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from .._ops.precision import l2_norm
from .._validation.inputs import check_model, check_outputs, embedding_hint, not_differentiable
from .._validation.settings import check_channels, check_count
from ..errors import NotApplicableError, UnilensError, first_line, require
from ..outputs import given_spec
from .copying import CopyError, private_copy, unwrapped
from .guard import USER_MODULE, Guard
from .memory import free_memory, out_of_memory, trim
from .observation import input_gradient
from .packing import InputSpec, PackedModel, by_part
from .plan_cache import remembered
from .plans import MODEL_ERRORS, SPEED_UPS, Plan, differ
from .proof import prepared, prove
from .smooth_activations import twice_differentiable
from .workers import Results, Workers

T = TypeVar("T")
Objective = Callable[[Tensor, Tensor], Tensor]
"""From outputs `(m, K)` and the numbers `(m,)` of the inputs they belong to, to values `(m,)`."""

UNLEARNED_WEIGHTS = ("all", "last")
"""Which weights an ascent takes along: all, or those of the last layer that has any."""
Run = Callable[[Tensor], Tensor]
"""One pass of a prepared model: from points `(m, *S)` to logits `(m, K)`."""
_BYTES_PER_PASS = {"cpu": 128 * 2**20, "other": 2 * 2**30}
_POINTS_PER_PASS = 16 * 2**20
_SHARE_OF_FREE_MEMORY = 0.25
_LARGEST_CHUNK = 4096
_POINTS_OF_A_PRODUCT = 4
"""Points of a pass whose memory a Hessian-vector product takes, with its graph kept twice."""
_MANY = 32
"""Points of a pass from which on checking its ends costs next to nothing."""
_TRIM_AFTER = 4 * 2**30
"""Saved bytes after which free memory is given back: without it the peak grows with the passes."""


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

    Points come as `(N, B, *S)`: N points for each of B inputs. A pass takes points of one input
    only, and on the CPU it runs on one thread, several passes side by side. So what comes out for
    an input is the same to the last bit alone and in any batch, on one core or on many; and on a
    CPU it is the faster way. It matters because a search for a baseline amplifies differences of
    rounding.

    At the first points of a shape the user's module is called twice, with one point each time, and
    every speed-up (a copy, batch norms folded, another memory format, several points per pass) is
    kept only where outputs and input gradients agree with those calls; `describe` says what was
    dropped and why. What a call changes in the user's module is put back.

    Keep an evaluator as long as the model's weights stay as they are, and no longer. Threads can
    share one; it pickles where the model does.

    Attributes:
        input_spec: where each input lies, for models of several inputs; None for others.
        output_spec: what the outputs are; None until it is said or found out.
        channels: as given; methods and metrics read it.

    Args:
        model: any module from `(M, *S)` to logits `(M, K)`, in eval mode.
        chunk: points per pass; by default as many as save 128 MiB for the way back (2 GiB on an
            accelerator), less where memory is short.
        independent: False lets one pass take points of several inputs: faster on accelerators and
            for tables of many rows, equal to rounding only.
        fold: whether to fold batch norms into convolutions where that is exact.
        memory_format: "channels_last", "contiguous" or "auto" (channels-last for 2-D convolutions).
        precision: a dtype for autocast, such as `torch.bfloat16`; sums stay in float32.
        channels: which axis of the inputs holds the channels or features: "first" `(B, C, ...)`,
            "last" `(B, ..., C)`, "none", its number, or "auto", which reads it off the model where
            it counts.
        on_pass: called with the number of points before each pass, on the thread that takes it: to
            show progress. What it raises ends the work; let it be neither a `UnilensError` nor a
            `RuntimeError`, which some metrics count and go on.
        outputs: what the outputs are, a name in `unilens.outputs.OUTPUTS`; None to find out.

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
        self.input_spec: InputSpec | None = (
            model.input_spec if isinstance(model, PackedModel) else None
        )
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
        self._chunk_wanted, self._independent, self._on_pass = chunk, independent, on_pass
        self.output_spec, self.channels = given_spec(outputs), channels
        tensors = [*model.parameters(), *model.buffers()]
        inference = any(value.is_inference() for value in tensors)  # not to be differentiated
        self._module = private_copy(unwrapped(model)) if inference else unwrapped(model)
        convolutional = any(isinstance(part, nn.Conv2d) for part in model.modules())
        channels_last = memory_format == "channels_last" or (
            memory_format == "auto" and convolutional
        )
        self._first = Plan(folded=fold, channels_last=channels_last, autocast=precision)
        self._plans: dict[torch.Size, Plan] = {}
        self._checked_sizes: set[tuple[torch.Size, int]] = set()
        self._versions = 0
        self._chunks: dict[torch.Size, int] = {}
        self._bases: dict[tuple[bool, ...], nn.Module] = {}
        self._idle: dict[int, list[nn.Module]] = {}
        self._learners: dict[tuple[int, str], _Learners] = {}
        self._lock = threading.RLock()
        self._saved_since = 0
        self._dtypes = _floating_dtypes(tensors)
        self.dtype = self._dtypes[0] if self._dtypes else None
        self.device = tensors[0].device if tensors else None
        self._workers = Workers(self.device)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what makes it anew, in another process too."""
        return functools.partial(type(self), **self._settings), (self.model,)

    @classmethod
    def of(cls, model: nn.Module | Evaluator) -> Evaluator:
        """Return the evaluator itself, or one made for the model."""
        return model if isinstance(model, Evaluator) else cls(model)

    def with_model(self, model: nn.Module) -> Evaluator:
        """Return an evaluator of another model with the settings of this one."""
        other = Evaluator(model, **{**self._settings, "channels": self.channels})
        other.input_spec = other.input_spec or self.input_spec
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
            return self._with_graph(points).unflatten(0, points.shape[:2])
        graph = self.plan(points[0]).reentrant  # without one, checkpointing warns

        def work(run: Run, part: Tensor, rows: Tensor) -> tuple[Tensor]:
            with torch.set_grad_enabled(graph):
                given = part.requires_grad_() if graph else part
                return (run(given).detach(),)  # a forward may differentiate on its own

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
                gradient = self._gradient(values, leaf, create_graph=True)
            found = (outputs, values, gradient)
            return Evaluation(*(one.unflatten(0, points.shape[:2]) for one in found))
        reentrant = self.plan(points[0]).reentrant

        def work(run: Run, part: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
            leaf = part.detach().requires_grad_()
            with torch.enable_grad():
                outputs = run(leaf)
                values = objective(outputs, rows)
                gradient = self._gradient(values, leaf, reentrant=reentrant)
            return outputs.detach(), values.detach(), gradient

        return Evaluation(*self._in_passes(points, work))

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

        def work(run: Run, part: Tensor, rows: Tensor) -> tuple[Tensor]:
            leaf, vector = part[0].detach().requires_grad_(), part[1]
            with torch.enable_grad(), twice_differentiable():
                gradient = self._gradient(objective(run(leaf), rows), leaf, create_graph=True)
                return (_second(gradient * vector, leaf),)

        return self._in_passes(points, work, vectors.flatten(0, 1))[0]

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
        An input whose gradient is zero has no direction: its outputs are the model's own.

        Args:
            inputs: `(B, *S)`.
            objective: as in `differentiate`.
            rate: the length of each step in weight space.
            steps: how many.
            weights: one of `UNLEARNED_WEIGHTS`: "all", or those of the "last" layer that has any,
                in the order in which the model registers its layers.
        """
        require(bool(_weights_of(self._module, weights)), _no_weights(self._module))
        plan = self.plan(inputs)
        if not plan.copied:
            raise NotApplicableError(
                f"expected a model that can be copied, to unlearn on the copy: "
                f"{plan.dropped['copied']}; use method='ig'"
            )
        plan = plan.without("", "folded")
        learners = self._learners_of(plan, inputs[:1], weights)

        def work(_: Run, part: Tensor, rows: Tensor) -> tuple[Tensor]:
            with learners.borrowed() as (module, own), self._restored(module, plan):
                for _step in range(steps):
                    with torch.enable_grad():
                        outputs = self._forward(module, plan, part.detach().requires_grad_())
                        values = objective(outputs, rows)
                        gradients = self._weight_gradients(values, own, plan.reentrant)
                    norm = torch.stack([l2_norm(gradient, 0) for gradient in gradients]).norm()
                    if not norm > 0:
                        return (outputs.detach(),)
                    with torch.no_grad():
                        for weight, gradient in zip(own, gradients, strict=True):
                            weight += gradient * (rate / norm).to(gradient.dtype)
                with torch.no_grad():
                    return (self._forward(module, plan, part).detach(),)

        return self._in_passes(inputs.unsqueeze(0), work, alone=True)[0][0]

    @torch.inference_mode(False)
    def private_module(self, inputs: Tensor) -> nn.Module:
        """Return a copy of the model for hooks and changes, which gives what the model gives.

        Args:
            inputs: `(B, *S)`; at the first of a shape the copy is compared with the model.

        Raises:
            NotApplicableError: copies do not give what the model gives.
        """
        plan = self.plan(inputs)
        if not plan.copied:
            raise NotApplicableError(
                f"expected a model that can be copied, to look into the copy: "
                f"{plan.dropped['copied']}; use method='ig'"
            )
        return private_copy(self._module, own_weights=plan.own_weights)

    @contextlib.contextmanager
    def borrowed(self, inputs: Tensor) -> Iterator[tuple[nn.Module, Run]]:
        """Lend the calling thread a module that gives what the model gives, and a pass of it.

        It is run plainly, in the user's layout and with no batch norm folded.

        Args:
            inputs: `(B, *S)`.
        """
        plan = self.plan(inputs).without("", *SPEED_UPS)
        with self._workers.alone(), self._borrowed(plan, inputs[:1].detach()) as module:
            yield module, functools.partial(self._forward, module, plan)

    def run(self, module: nn.Module, points: Tensor) -> Tensor:
        """Return the logits `(m, K)` of a variant of the model at points `(m, *S)`, in one pass.

        Its errors become `UnilensError`, as the model's own do.
        """
        return self._forward(module, self.plan(points).without("", *SPEED_UPS), points)

    @torch.inference_mode(False)
    def plan(self, inputs: Tensor) -> Plan:
        """Return how the model is run at inputs `(B, *S)`, proven at the first one of a shape.

        Raises:
            UnilensError: the model cannot take the inputs, or gives other outputs at each call.
        """
        shape = inputs.shape[1:]
        with self._lock:
            self._refresh()
            if shape not in self._plans:
                self._prepare(inputs[:1].detach())
                self._versions = self._total_versions()
            return self._plans[shape]

    def _refresh(self) -> None:
        """Forget the copies and plans where the weights have changed since they were made."""
        shared = all(plan.copied and not plan.own_weights for plan in self._plans.values())
        if shared and self._plans and self._total_versions() != self._versions:
            for kept in (self._plans, self._chunks, self._bases, self._idle, self._learners):
                kept.clear()
            self._checked_sizes.clear()

    def _total_versions(self) -> int:
        weights = (*self._module.parameters(), *self._module.buffers())
        return sum(0 if value.is_inference() else value._version for value in weights)

    def describe(self, inputs: Tensor) -> dict[str, object]:
        """Return what a record says of how the model is run at inputs `(B, *S)`."""
        return self.plan(inputs).describe()

    @torch.inference_mode(False)
    def points_at_once(self, inputs: Tensor) -> int:
        """Return how many points of each of the inputs `(B, *S)` keep all workers busy.

        It is a whole number of passes, so that the points that share a pass do not depend on B.
        """
        self.plan(inputs)
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
        """Return the logits `(N * B, K)` with a graph to the points and the user's weights."""
        flat, plan = points.flatten(0, 1), self.plan(points[0])
        with torch.enable_grad(), twice_differentiable():
            parts = flat.split(len(flat) if plan.together else 1)
            return torch.cat([self._graph_pass(plan, part) for part in parts])

    def _graph_pass(self, plan: Plan, points: Tensor) -> Tensor:
        plain = plan.without("", *SPEED_UPS)
        if not plan.copied or _scripted(self._module):
            with USER_MODULE, Guard(self._module) as guard:
                outputs = self._forward(self._module, plain, points)
            require(
                not guard.wrote_tensors,
                "expected a model that does not write its own weights, to differentiate twice",
            )
            return outputs
        with self._borrowed(plain, points[:1]) as module:
            names = (name for name, _ in module.named_parameters())  # inside a wrapper others
            weights = dict(zip(names, self._module.parameters(), strict=False))
            return self._forward(_Reweighted(module, weights), plain, points)

    def _forward(self, module: nn.Module, plan: Plan, points: Tensor) -> Tensor:
        """Return the logits of one pass; what a module raises becomes a `UnilensError`."""
        if self._on_pass is not None:
            self._on_pass(len(points))
        return self._pass(module, plan, points)

    def _pass(self, module: nn.Module, plan: Plan, points: Tensor) -> Tensor:
        try:
            return self._call(module, points, plan)
        except MODEL_ERRORS as error:
            if isinstance(error, UnilensError) or out_of_memory(error):
                raise
            raise self._refusal(points, error) from error

    def _refusal(self, points: Tensor, error: BaseException) -> UnilensError:
        shape = tuple(points.shape[1:]) if self.input_spec is None else f"parts {self.input_spec}"
        return _ModelError(
            f"the model could not take an input of shape {shape}, {points.dtype}: "
            f"{first_line(error)}{embedding_hint(self.model, error)}"
        )

    def _call(self, module: nn.Module, points: Tensor, plan: Plan) -> Tensor:
        """Return the logits of one pass, in float32 or wider."""
        last = plan.channels_last and points.ndim == 4
        # A clone, never the leaf itself: a first layer that works in place may overwrite it.
        given = points.to(plan.dtype).clone(
            memory_format=torch.channels_last if last else torch.contiguous_format
        )
        kind, precision = points.device.type, plan.autocast
        with torch.autocast(kind, dtype=precision) if precision else contextlib.nullcontext():
            outputs = module(given)
        outputs = check_outputs(outputs, len(points))
        return outputs.to(torch.promote_types(outputs.dtype, torch.float32))

    @contextlib.contextmanager
    def _borrowed(self, plan: Plan, sample: Tensor) -> Iterator[nn.Module]:
        """Lend a module that a plan runs: a copy that no other thread uses, or the user's own."""
        if not plan.copied:
            with USER_MODULE, Guard(self._module):
                yield self._module
            return
        base = self._base(plan, sample)
        idle = self._idle[id(base)]
        try:
            module = idle.pop()
        except IndexError:
            with self._lock:
                module = self._another(base, plan, sample)
        with self._restored(module, plan):
            yield module
        idle.append(module)

    def _another(self, base: nn.Module, plan: Plan, sample: Tensor) -> nn.Module:
        if self._workers.count > 1:
            return private_copy(base, own_weights=plan.own_weights)
        copied = private_copy(self._module, own_weights=plan.own_weights)
        return prepared(copied, plan, sample, self._call)[0]

    def _restored(self, module: nn.Module, plan: Plan) -> contextlib.AbstractContextManager[object]:
        return Guard(module) if plan.restored else contextlib.nullcontext()

    def _learners_of(self, plan: Plan, sample: Tensor, weights: str) -> _Learners:
        """Return the copies that unlearn, which are kept."""
        base = self._base(plan, sample)
        with self._lock:
            key = (id(base), weights)
            if key not in self._learners:
                self._learners[key] = _Learners(base, _weights_of(base, weights))
            return self._learners[key]

    def _base(self, plan: Plan, sample: Tensor) -> nn.Module:
        """Return the copy that a plan's copies are made from."""
        key = (plan.own_weights, plan.folded, plan.channels_last)
        with self._lock:
            if key not in self._bases:
                copied = private_copy(self._module, own_weights=plan.own_weights)
                with self._workers.alone():
                    base, _ = prepared(copied, plan, sample, self._call)
                self._bases[key] = base
                # With one worker it is run itself, and a second thread of the user's makes another.
                self._idle[id(base)] = [base] if self._workers.count == 1 else []
            return self._bases[key]

    def _in_passes(
        self,
        points: Tensor,
        work: Callable[[Run, Tensor, Tensor], tuple[Tensor, ...]],
        beside: Tensor | None = None,
        *,
        alone: bool = False,
    ) -> list[Tensor]:
        """Return what the work gives for points `(N, B, *S)`, each entry `(N, B, ...)`.

        Where memory runs out, passes take half as many points and the work begins again; where the
        model fails in a way in which the user would not run it, it begins again without that.

        Args:
            points: `(N, B, *S)`.
            work: from one pass of the model, some of the points `(m, *S)` and their inputs' numbers
                `(m,)` to tensors `(m, ...)`; with `beside`, from both stacked `(2, m, *S)`.
            beside: `(N * B, *S)`, handed over with the points, of which a pass then takes fewer.
            alone: whether each point has a pass to itself, since the work adds up over its points.
        """
        flat, first = points.flatten(0, 1), self.plan(points[0])
        while True:
            plan = self.plan(points[0])
            results = Results(len(flat))
            task = functools.partial(self._one_pass, plan, work, flat, beside, results)
            together = self._together(points, plan, alone, beside is not None)
            try:
                self._workers.run(
                    functools.partial(task, points.shape[1]), self._indices(points, together)
                )
                break
            except _ModelError as error:
                plainer = plan.without(str(error), *SPEED_UPS)
                if plainer == plan:  # the model itself fails here
                    self._plans[points.shape[2:]] = first
                    raise
                self._plans[points.shape[2:]] = plainer
            except CopyError as error:  # it keeps something else than when it was proven
                lost = plan.without(str(error), "copied", *SPEED_UPS)
                self._plans[points.shape[2:]] = lost
            except (RuntimeError, MemoryError) as error:
                self._halve(points, error)
        self._saved_since += plan.saved_bytes * len(flat)
        if self._saved_since > _TRIM_AFTER and flat.device.type == "cpu":
            self._saved_since = 0
            trim()
        return [column.unflatten(0, points.shape[:2]) for column in results.columns]

    def _one_pass(
        self,
        plan: Plan,
        work: Callable[[Run, Tensor, Tensor], tuple[Tensor, ...]],
        flat: Tensor,
        beside: Tensor | None,
        results: Results,
        batch: int,
        index: Tensor,
    ) -> None:
        part = flat[index]
        with torch.enable_grad(), self._borrowed(plan, part[:1]) as module:
            run = functools.partial(self._checked, module, plan)
            given = part if beside is None else torch.stack([part, beside[index]])
            results.put(index, work(run, given, index % batch))

    def _checked(self, module: nn.Module, plan: Plan, points: Tensor) -> Tensor:
        """Return the logits of one pass; where it takes several points, its ends are checked.

        The proof had two points. What a model does with more of them, or with points far from the
        input, is seen here: at the first pass of so many points, and at every one of many.
        """
        outputs = self._forward(module, plan, points)
        known = (points.shape[1:], len(points))
        if len(points) > 1 and (known not in self._checked_sizes or len(points) >= _MANY):
            self._checked_sizes.add(known)
            ends = [0, len(points) - 1]
            plain = plan.without("", *SPEED_UPS)
            with torch.no_grad(), self._borrowed(plain, points[:1].detach()) as copy:
                alone = [self._pass(copy, plain, points[end : end + 1]) for end in ends]
            if reason := differ(outputs.detach()[ends], torch.cat(alone).detach(), plan):
                raise _ModelError(reason)
        return outputs

    def _together(self, points: Tensor, plan: Plan, alone: bool, product: bool) -> int:
        """Return how many points a pass takes."""
        if alone or not plan.together:
            return 1
        chunk = self._chunks[points.shape[2:]]
        return max(1, chunk // _POINTS_OF_A_PRODUCT) if product else chunk

    def _indices(self, points: Tensor, together: int) -> list[Tensor]:
        """Return which of the points `(N * B)` each pass takes."""
        numbers = torch.arange(points.shape[0] * points.shape[1], device=points.device)
        if not self._independent:
            return list(numbers.split(together))
        return [
            part for column in numbers.view(points.shape[:2]).T for part in column.split(together)
        ]

    def _prepare(self, sample: Tensor) -> None:
        """Prove how to run the model at a sample `(1, *S)`, and choose the points of a pass."""
        shape = sample.shape[1:]
        promoted = sample.to(torch.promote_types(sample.dtype, torch.float32))
        key = (str(shape), promoted.dtype, promoted.device, self._first)
        try:
            plan = remembered(self._module, key, lambda: self._proven(promoted))
        except MODEL_ERRORS as error:
            if isinstance(error, UnilensError):
                raise
            if not out_of_memory(error):
                raise self._refusal(sample, error) from error
            raise _no_memory(sample, error) from error
        self._plans[shape] = plan
        self._chunks[shape] = self._chunk_wanted or self._choose_chunk(
            sample.device, plan.saved_bytes, sample[0].nbytes
        )

    def _proven(self, sample: Tensor) -> Plan:
        points = torch.cat([sample, by_part(self, _another_point, sample)])
        dtypes = list(dict.fromkeys([sample.dtype, *self._dtypes]))
        with self._workers.alone():
            return prove(self._module, points, self._first, dtypes, self._call)

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
        if self._chunks[shape] == 1:
            raise _no_memory(points[0], error) from error
        most = len(points) if self._independent else points.shape[0] * points.shape[1]
        self._chunks[shape] = max(1, min(self._chunks[shape], most) // 2)
        if points.device.type == "cuda":
            torch.cuda.empty_cache()

    def _gradient(
        self, values: Tensor, leaf: Tensor, *, reentrant: bool = False, create_graph: bool = False
    ) -> Tensor:
        """Return the gradient of the sum of values in a leaf; raise where there is none."""
        if not values.requires_grad:
            raise not_differentiable(self.model)
        try:
            gradient = input_gradient(
                values.sum(), leaf, reentrant=reentrant, create_graph=create_graph
            )
        except MODEL_ERRORS as error:
            if isinstance(error, UnilensError) or out_of_memory(error):
                raise
            raise not_differentiable(self.model, first_line(error)) from error
        if gradient is None:
            raise not_differentiable(self.model, "outputs that do not depend on them")
        return gradient

    def _weight_gradients(
        self, values: Tensor, weights: list[Tensor], reentrant: bool
    ) -> list[Tensor]:
        """Return the gradients of the sum of values in a copy's weights."""
        if not values.requires_grad:
            raise not_differentiable(self.model)
        try:
            if not reentrant:
                return list(torch.autograd.grad(values.sum(), weights, materialize_grads=True))
            for weight in weights:
                weight.grad = None
            values.sum().backward()
        except MODEL_ERRORS as error:
            if isinstance(error, UnilensError) or out_of_memory(error):
                raise
            raise not_differentiable(self.model, first_line(error), "weights") from error
        return [torch.zeros_like(one) if one.grad is None else one.grad for one in weights]


class _ModelError(UnilensError):
    """What a model raised in a pass."""


class _Learners:
    """Copies with weights of their own to unlearn with, each lent to one input at a time."""

    def __init__(self, base: nn.Module, chosen: set[str]) -> None:
        self._base, self._chosen = base, chosen
        self._idle: list[nn.Module] = []

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[tuple[nn.Module, list[Tensor]]]:
        """Lend a copy as the model is, and its chosen weights, which take gradients."""
        try:
            module = self._idle.pop()
            first = dict(self._base.named_parameters())
            with torch.no_grad():
                for name, value in module.named_parameters():
                    if name in first:  # a forward may add some
                        value.copy_(first[name])
        except IndexError:
            module = private_copy(self._base, own_weights=True)
        named = module.named_parameters()
        yield module, [value.requires_grad_() for name, value in named if name in self._chosen]
        self._idle.append(module)


def _second(product: Tensor, leaf: Tensor) -> Tensor:
    """Return the gradient of a sum that may not depend on the leaf: then it is zero."""
    if not product.requires_grad:
        return torch.zeros_like(leaf)
    (gradient,) = torch.autograd.grad(product.sum(), leaf, materialize_grads=True)
    return gradient


def _another_point(inputs: Tensor) -> Tensor:
    """Return another point: each value of an input shrunk at random, noise where all are 0.

    It lies as far away as the points of a path do, so that what depends on the rest of a batch
    shows.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(inputs.shape[1:], generator=generator, dtype=torch.float64).to(inputs)
    return inputs * drawn if inputs.any() else inputs + drawn / 4


def _floating_dtypes(tensors: list[Tensor]) -> list[torch.dtype]:
    """Return the floating-point dtypes of tensors, that of the most values first."""
    counts: dict[torch.dtype, int] = {}
    for value in tensors:
        if value.is_floating_point():
            counts[value.dtype] = counts.get(value.dtype, 0) + value.numel()
    return sorted(counts, key=lambda dtype: -counts[dtype])


def _scripted(module: nn.Module) -> bool:
    return any(isinstance(part, torch.jit.ScriptModule) for part in module.modules())


def _no_memory(inputs: Tensor, error: BaseException) -> UnilensError:
    return UnilensError(
        f"not enough memory on {inputs.device} for one point of shape {tuple(inputs.shape[1:])} "
        "at a time; use a smaller input, a smaller model or another device"
    )


def _no_weights(module: nn.Module) -> str:
    kind = (
        "a frozen TorchScript module; use" if _scripted(module) else "one without parameters; use"
    )
    return (
        f"expected a model with weights to unlearn, got {kind} method='ig', or the model it is of"
    )


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
        self._given = (module, dict(weights))

    def forward(self, inputs: Tensor) -> Tensor:
        module, weights = self._given
        return torch.func.functional_call(module, weights, (inputs,))
