"""The passes of a model at any number of points: planned, split over workers, and checked."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ..errors import UnilensError, require
from .calls import ModelCalls, ModelError, Run
from .copying import CopyError
from .gradients import Reweighted
from .guard import USER_MODULE, Guard
from .memory import out_of_memory
from .microbatches import Microbatches, no_memory
from .module_pool import ModulePool
from .packing import map_inputs
from .plan_cache import Learned, learned_of
from .plans import MODEL_ERRORS, SPEED_UPS, Plan, differ
from .proof import prove
from .smooth_activations import twice_differentiable
from .unlearning import is_scripted
from .workers import Results, Workers

Work = Callable[[Run, Tensor, Tensor], tuple[Tensor, ...]]
"""From one pass of the model, a micro-batch `(m, *S)` of points and the numbers `(m,)` of their
inputs to tensors `(m, ...)`."""
_MANY = 32
"""Points of a pass from which on checking its ends costs next to nothing."""


class PassRunner:
    """Plans how a model is run at inputs of each shape, and runs it.

    Args:
        module: the user's.
        first: the plan with every speed-up that may be used.
        calls: call a module.
        microbatches: split points into passes.
        workers: run the passes.
        dtypes: of the module's tensors; it is given points in the first of them that it takes.

    Attributes:
        pool: the copies that passes run on.
    """

    def __init__(
        self,
        module: nn.Module,
        first: Plan,
        calls: ModelCalls,
        microbatches: Microbatches,
        workers: Workers,
        dtypes: list[torch.dtype],
    ) -> None:
        self._module, self._first, self._calls = module, first, calls
        self._microbatches, self._workers = microbatches, workers
        self._lock = threading.RLock()
        self.pool = ModulePool(module, calls, workers)
        self._dtypes = dtypes
        self._learned: Learned | None = None
        self._plans: dict[torch.Size, Plan] = {}
        self._checked_sizes: set[tuple[torch.Size, int]] = set()
        self._versions, self._scripted = 0, is_scripted(module)

    @torch.inference_mode(False)
    def plan(self, inputs: Tensor) -> Plan:
        """Return how the model is run at inputs `(B, *S)`, proven at the first one of a shape.

        Raises:
            UnilensError: the model cannot take the inputs, or gives other outputs at each call.
        """
        shape = inputs.shape[1:]
        with self._lock:
            self._forget_if_trained()
            if shape not in self._plans:
                self._prepare(inputs[:1].detach())
                self._versions = self._total_versions()
            return self._plans[shape]

    def run(
        self, points: Tensor, work: Work, beside: Tensor | None = None, *, alone: bool = False
    ) -> list[Tensor]:
        """Return what the work gives for points `(N, B, *S)`, each entry `(N, B, ...)`.

        Where memory runs out, passes take half as many points and the work begins again; where a
        speed-up fails in a pass, it begins again without that.

        Args:
            points: `(N, B, *S)`.
            work: done for each micro-batch; with `beside`, it takes both stacked `(2, m, *S)`.
            beside: `(N * B, *S)`, handed over with the points, of which a pass then takes fewer.
            alone: whether each point has a pass to itself, since the work adds up over its points.
        """
        flat, first = points.flatten(0, 1), self.plan(points[0])
        while True:
            plan = self._plans.get(points.shape[2:]) or self.plan(points[0])
            results = Results(len(flat))
            task = functools.partial(self._one_pass, plan, work, flat, beside, results)
            passes = self._microbatches.split(points, plan, alone=alone, product=beside is not None)
            try:
                self._workers.run(functools.partial(task, points.shape[1]), passes)
                break
            except ModelError as error:
                plainer = plan.without(str(error), *SPEED_UPS)
                if plainer == plan:  # the model itself fails here
                    self._plans[points.shape[2:]] = first
                    raise
                self._plans[points.shape[2:]] = plainer
            except CopyError as error:  # it keeps something else than when it was proven
                lost = plan.without(str(error), "copied", *SPEED_UPS)
                self._plans[points.shape[2:]] = lost
            except (RuntimeError, MemoryError) as error:
                self._microbatches.halve(points, error)
        self._microbatches.trim_after(plan.saved_bytes * len(flat), flat.device)
        return [column.unflatten(0, points.shape[:2]) for column in results.columns]

    def points_per_pass(self, inputs: Tensor) -> int:
        """Return how many inputs `(B, *S)` a pass may take."""
        return self._microbatches.size(inputs.shape[1:]) if self.plan(inputs).together else 1

    def with_graph(self, points: Tensor) -> Tensor:
        """Return the logits `(N * B, K)` with a graph to the points and the user's weights."""
        flat, plan = points.flatten(0, 1), self.plan(points[0])
        with torch.enable_grad(), twice_differentiable():
            microbatches = flat.split(len(flat) if plan.together else 1)
            return torch.cat([self._graph_pass(plan, microbatch) for microbatch in microbatches])

    def _graph_pass(self, plan: Plan, points: Tensor) -> Tensor:
        plain = plan.without("", *SPEED_UPS)
        if not plan.copied or self._scripted:
            with USER_MODULE, Guard(self._module) as guard:
                outputs = self._calls.forward(self._module, plain, points)
            require(
                not guard.wrote_tensors,
                "expected a model that does not write its own weights, to differentiate twice",
            )
            return outputs
        with self.pool.borrowed(plain, points[:1]) as module:
            names = (name for name, _ in module.named_parameters())  # inside a wrapper others
            weights = dict(zip(names, self._module.parameters(), strict=False))
            return self._calls.forward(Reweighted(module, weights), plain, points)

    def _one_pass(
        self,
        plan: Plan,
        work: Work,
        flat: Tensor,
        beside: Tensor | None,
        results: Results,
        batch: int,
        index: Tensor,
    ) -> None:
        microbatch = flat[index]
        with torch.enable_grad(), self.pool.borrowed(plan, microbatch[:1]) as module:
            run = functools.partial(self._checked, module, plan)
            if beside is not None:
                microbatch = torch.stack([microbatch, beside[index]])
            results.put(index, work(run, microbatch, index % batch))

    def _checked(self, module: nn.Module, plan: Plan, points: Tensor) -> Tensor:
        """Return the logits of one pass; where it takes several points, its ends are checked.

        The proof had two points. What a model does with more of them, or with points far from the
        input, is seen here: at the first pass of each number of points, and at every pass of many.
        """
        outputs = self._calls.forward(module, plan, points)
        known = (points.shape[1:], len(points))
        if len(points) > 1 and (known not in self._checked_sizes or len(points) >= _MANY):
            self._checked_sizes.add(known)
            ends = [0, len(points) - 1]
            plain = plan.without("", *SPEED_UPS)
            with torch.no_grad(), self.pool.borrowed(plain, points[:1].detach()) as copy:
                singles = [points[end : end + 1] for end in ends]
                expected = [self._calls.unreported(copy, plain, single) for single in singles]
            if reason := differ(outputs.detach()[ends], torch.cat(expected).detach(), plan):
                raise ModelError(reason)
        return outputs

    def _prepare(self, sample: Tensor) -> None:
        """Prove how to run the model at a sample `(1, *S)`, and choose the points of a pass."""
        promoted = sample.to(torch.promote_types(sample.dtype, torch.float32))
        key = (str(sample.shape[1:]), promoted.dtype, promoted.device, self._first)
        made: list[nn.Module | None] = []

        def find() -> Plan:
            plan, module = self._proven(promoted)
            made.append(module)
            return plan

        try:
            if self._learned is None:
                self._learned = learned_of(self._module)
            plan = self._learned.plan(self._module, key, find)
        except MODEL_ERRORS as error:
            if isinstance(error, UnilensError):
                raise
            if not out_of_memory(error):
                raise self._calls.refusal(sample, error) from error
            raise no_memory(sample) from error
        if not self._plans:
            self.pool.kept = self._learned.copies(self._module)
        if made and made[0] is not None:
            self.pool.adopt(plan, made[0])
        self._plans[sample.shape[1:]] = plan
        self._microbatches.choose(sample, plan.saved_bytes)

    def _proven(self, sample: Tensor) -> tuple[Plan, nn.Module | None]:
        points = torch.cat([sample, map_inputs(self._calls, _another_point, sample)])
        dtypes = list(dict.fromkeys([sample.dtype, *self._dtypes]))
        with self._workers.alone():
            return prove(self._module, points, self._first, dtypes, self._calls.raw)

    def _forget_if_trained(self) -> None:
        """Forget the copies and plans where the weights have changed since they were made."""
        shared = all(plan.copied and not plan.own_weights for plan in self._plans.values())
        if shared and self._plans and self._total_versions() != self._versions:
            self._plans.clear()
            self._checked_sizes.clear()
            self._microbatches.clear()
            self.pool.clear()
            self._learned = None

    def _total_versions(self) -> int:
        """Return what grows with every write into a weight or buffer; asked before every run."""
        if self._scripted:
            return sum(map(_version_of, (*self._module.parameters(), *self._module.buffers())))
        total, seen, waiting = 0, set[int](), [self._module]
        while waiting:  # `parameters()` takes ten times as long: it makes names
            module = waiting.pop()
            if id(module) not in seen:
                seen.add(id(module))
                total += sum(map(_version_of, module._parameters.values()))
                total += sum(map(_version_of, module._buffers.values()))
                waiting += [child for child in module._modules.values() if child is not None]
        return total


def _version_of(value: Tensor | None) -> int:
    return 0 if value is None or value.is_inference() else value._version


def floating_dtypes(tensors: Iterable[Tensor]) -> list[torch.dtype]:
    """Return the floating-point dtypes of tensors, that of the most values first."""
    counts: dict[torch.dtype, int] = {}
    for value in tensors:
        if value.is_floating_point():
            counts[value.dtype] = counts.get(value.dtype, 0) + value.numel()
    return sorted(counts, key=lambda dtype: -counts[dtype])


def _another_point(inputs: Tensor) -> Tensor:
    """Return another point: each value of an input shrunk at random, noise where all are 0.

    It lies as far away as the points of a path do, so that what depends on the rest of a batch
    shows.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(inputs.shape[1:], generator=generator, dtype=torch.float64).to(inputs)
    return inputs * drawn if inputs.any() else inputs + drawn / 4
