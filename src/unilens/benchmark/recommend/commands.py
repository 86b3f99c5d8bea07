"""The command to run after a verdict."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...methods import methods as _registry
from ...output.text import printable
from ...specs import read_specs
from .source import Source
from .verdicts import BEST, NONE, Verdict


@dataclass(frozen=True)
class Commands:
    """The commands that follow a verdict."""

    source: Source
    minutes: float
    seed: int
    methods: Sequence[str] | None

    def of(self, verdict: Verdict, unused: int) -> str:
        """Return the command to run next; empty where there is none, but to add photographs.

        Args:
            verdict: on one purpose.
            unused: photographs that the race has not reached.
        """
        if not self.source.by_name:
            return self._in_python(verdict, unused)
        flags = ["--model", self.source.name, *["--random-weights"] * self.source.random_weights]
        if verdict.status == BEST:
            return _line("explain", *self._photograph(), *flags, "--method", str(verdict.method))
        if verdict.nothing or (verdict.status == NONE and not unused):
            return _line("audit", self.source.data, *flags)
        if not unused:
            return ""
        data = ["--data", self.source.data, "--minutes", f"{2 * self.minutes:g}"]
        chosen = [part for name in self.methods or () for part in ("--method", name)]
        return _line("recommend", *flags, *data, *chosen)

    def _photograph(self) -> list[str]:
        """Return how the command line names the first photograph, or an installed one."""
        path = Path(self.source.data)
        name = self.source.items[0].name
        if path.is_dir():
            return [printable(str(path / name))]
        return [printable(str(path))] if path.is_file() else ["--sample", "coffee"]

    def _in_python(self, verdict: Verdict, unused: int) -> str:
        if verdict.status == BEST:
            ((_, spec),) = read_specs(_registry, [str(verdict.method)]).items()
            settings = "".join(f", {key}={value!r}" for key, value in spec.settings.items())
            return f"unilens.explain(model, images, {spec.name!r}{settings})"
        if unused and not verdict.nothing:
            return f"unilens.recommend(model, images, minutes={2 * self.minutes:g})"
        return ""


def _line(*words: str) -> str:
    return shlex.join(["unilens", *words])
