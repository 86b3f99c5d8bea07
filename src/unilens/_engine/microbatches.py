"""How many points a pass takes: from what autograd saves for one, and from the free memory."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UnilensError
from .memory import free_memory, out_of_memory, trim
from .plans import Plan

_BYTES_PER_PASS = {"cpu": 128 * 2**20, "other": 2 * 2**30}
_POINTS_PER_PASS = 16 * 2**20
"""Bytes of the points themselves."""
_SHARE_OF_FREE_MEMORY = 0.25
_LARGEST = 4096
_POINTS_OF_A_PRODUCT = 4
"""Points of a pass whose memory a Hessian-vector product takes, with its graph kept twice."""
_TRIM_AFTER = 4 * 2**30
"""Saved bytes after which free memory is given back: without it the peak grows with the passes."""


class Microbatches:
    """Splits points into the passes that take them; the size is chosen per shape of an input.

    Args:
        size: points of a pass, for every shape; None to choose.
        independent: whether a pass takes points of one input only.
        workers: how many passes run at a time.
    """

    def __init__(self, size: int | None, independent: bool, workers: int) -> None:
        self._given, self._independent, self._workers = size, independent, workers
        self._sizes: dict[torch.Size, int] = {}
        self._saved_since = 0

    def clear(self) -> None:
        """Forget the sizes that were chosen."""
        self._sizes.clear()

    def choose(self, sample: Tensor, saved_bytes: int) -> None:
        """Choose the size for a sample `(1, *S)`, from the bytes that autograd saves for it."""
        device = sample.device
        free = _SHARE_OF_FREE_MEMORY * free_memory(device) / self._workers
        limit = _BYTES_PER_PASS["cpu" if device.type == "cpu" else "other"]
        fitting = min(limit, free) / max(saved_bytes, 1)
        fitting = min(fitting, _POINTS_PER_PASS / sample.nbytes)
        self._sizes[sample.shape[1:]] = self._given or int(min(max(fitting, 1), _LARGEST))

    def size(self, shape: torch.Size) -> int:
        """Return how many points `*S` a pass takes."""
        return self._sizes[shape]

    def split(
        self, points: Tensor, plan: Plan, *, alone: bool = False, product: bool = False
    ) -> list[Tensor]:
        """Return which of the points `(N, B, *S)`, flattened to N * B, each pass takes.

        Args:
            points: what to split.
            plan: may take one point at a time only.
            alone: whether each point has a pass to itself.
            product: whether a pass computes Hessian-vector products, which take more memory.
        """
        size = 1
        if plan.together and not alone:
            size = self._sizes[points.shape[2:]]
            size = max(1, size // _POINTS_OF_A_PRODUCT) if product else size
        numbers = torch.arange(points.shape[0] * points.shape[1], device=points.device)
        if not self._independent:
            return list(numbers.split(size))
        columns = numbers.view(points.shape[:2]).T
        return [indices for column in columns for indices in column.split(size)]

    def halve(self, points: Tensor, error: RuntimeError | MemoryError) -> None:
        """Halve the size after running out of memory; raise what is another error."""
        if not out_of_memory(error):
            raise error
        shape = points.shape[2:]
        if self._sizes[shape] == 1:
            raise no_memory(points[0]) from error
        most = len(points) if self._independent else points.shape[0] * points.shape[1]
        self._sizes[shape] = max(1, min(self._sizes[shape], most) // 2)
        if points.device.type == "cuda":
            torch.cuda.empty_cache()

    def trim_after(self, saved_bytes: int, device: torch.device) -> None:
        """Give free memory back to the system, once enough has been saved on the CPU."""
        self._saved_since += saved_bytes
        if self._saved_since > _TRIM_AFTER and device.type == "cpu":
            self._saved_since = 0
            trim()


def no_memory(inputs: Tensor) -> UnilensError:
    """Return the error of a device that has not the memory for one point of inputs `(B, *S)`."""
    return UnilensError(
        f"not enough memory on {inputs.device} for one point of shape {tuple(inputs.shape[1:])} "
        "at a time; use a smaller input, a smaller model or another device"
    )
