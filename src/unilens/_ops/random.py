"""Random draws that depend on an input's content, not on its position in a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def per_input(
    inputs: Tensor, generator: torch.Generator, draw: Callable[[torch.Generator], Tensor]
) -> Tensor:
    """Draw once for each input, seeded by the generator's seed and the input's content.

    The draw for an input is the same alone, in any batch, in any order and on any device: numbers
    are drawn on the CPU and moved.

    Args:
        inputs: `(B, *S)`.
        generator: its initial seed is the run's seed; it is not advanced.
        draw: from a generator to a tensor of one fixed shape.

    Returns:
        `(B, ...)`, the draws stacked, on the inputs' device and in their dtype.
    """
    draws = [draw(input_generator) for input_generator in generators(inputs, generator)]
    return torch.stack(draws).to(inputs.dtype).to(inputs.device)


def seed_for(purpose: str, seed: int) -> int:
    """Derive an independent seed for a purpose, such as a metric.

    A metric's noise must differ from the noise that a method used for the same seed.
    """
    return _digest(f"{purpose}:{seed}".encode())


def generator_of(kind: str, number: int, generator: torch.Generator) -> torch.Generator:
    """Derive an independent generator per component; component 0 keeps the parent's generator."""
    if not number:
        return generator
    return torch.Generator().manual_seed(seed_for(f"{kind} {number}", generator.initial_seed()))


def generators(inputs: Tensor, generator: torch.Generator) -> list[torch.Generator]:
    """Return a generator for each input, for draws that do not fit in memory together."""
    seed = generator.initial_seed()
    return [torch.Generator().manual_seed(_seed(seed, row)) for row in inputs]


def _seed(seed: int, row: Tensor) -> int:
    content = row.detach().to(device="cpu", dtype=torch.float32).contiguous().numpy().tobytes()
    return _digest(str(seed).encode() + b":" + content)


def _digest(content: bytes) -> int:
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 1


def standard_normal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return standard normal draws in float32, for any default dtype of torch."""
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32)


def uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return uniform draws from [0, 1) in float32, for any default dtype of torch."""
    return torch.rand(tuple(shape), generator=generator, dtype=torch.float32)
