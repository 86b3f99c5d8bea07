"""What a worker process does: it is set up like the one that sends units, and computes them."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import sys
from collections.abc import Iterable
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import NamedTuple

import torch

from .._validation.imports import search_current_folder, searches_current_folder
from .plan import Plan, make_plan
from .rows import Row
from .work import Unit, Workbench

_log = logging.getLogger(__name__)
LogLine = tuple[int, str]
"""The level and text of a worker's log record."""


class WorkerSetup(NamedTuple):
    """The plan as JSON, the working directory and whether it is searched last, the search path."""

    plan: str
    folder: str
    search_path: tuple[str, ...]
    searches_folder: bool

    @classmethod
    def of(cls, plan: Plan) -> WorkerSetup:
        """Return the setup of this process."""
        return cls(
            plan.model_dump_json(), str(Path.cwd()), tuple(sys.path), searches_current_folder()
        )


def unit_rows(setup: WorkerSetup, unit: Unit, device: str) -> tuple[list[Row], list[LogLine]]:
    """Return the rows of a unit and its log lines, computed in this process."""
    logger, collector = logging.getLogger("unilens"), BufferingHandler(sys.maxsize)
    collector.setLevel(logging.INFO)
    logger.addHandler(collector)
    logger.setLevel(logging.INFO)
    try:
        bench = _workbench(setup, device)
        rows = [row for batch in bench.rows(unit) for row in batch]
    finally:
        logger.removeHandler(collector)
    return rows, [(record.levelno, collector.format(record)) for record in collector.buffer]


def logged(rows: list[Row], log: Iterable[LogLine]) -> list[Row]:
    """Return a worker's rows, and log its lines here."""
    for level, line in log:
        _log.log(level, line)
    return rows


@functools.lru_cache(maxsize=1)
def _workbench(setup: WorkerSetup, device: str) -> Workbench:
    """Set this process up like the one that sends the units."""
    with contextlib.suppress(OSError):  # another machine may not have it
        os.chdir(setup.folder)
        search_current_folder(setup.searches_folder)
    sys.path += [entry for entry in setup.search_path if entry not in sys.path]
    plan = make_plan(json.loads(setup.plan)).model_copy(update={"device": device})
    torch.set_num_threads(plan.engine.cpus)
    return Workbench(plan)
