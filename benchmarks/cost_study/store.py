"""The folder of a cost study: its configuration and sessions, and one JSON line per measurement."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unilens.benchmark.environment import describe_environment
from unilens.errors import require
from unilens.output.records import write_json, write_text

from .config import EXTENDABLE, CostConfig, UnitKey

Row = dict[str, Any]
OK, INAPPLICABLE, FAILED = "ok", "inapplicable", "failed"


def key_of(row: Row) -> UnitKey:
    """Return what a row is the measurement of."""
    return UnitKey(*(row[name] for name in UnitKey._fields))


class CostStore:
    """The folder of one study, which has a `study.json`.

    Args:
        folder: of the study.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / "study.json"
        require(path.is_file(), f"expected the folder of a cost study, with study.json: {folder}")
        self.study: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        self.config = CostConfig.model_validate(self.study["config"])

    @classmethod
    def create(cls, folder: Path, config: CostConfig) -> CostStore:
        """Begin a study in a folder, or continue the one that is there.

        Raises:
            UnilensError: the folder has a study whose configuration differs in a setting that
                cannot be extended.
        """
        folder.mkdir(parents=True, exist_ok=True)
        sessions = []
        if (folder / "study.json").exists():
            before = cls(folder)
            sessions = before.study["sessions"]
            for name in CostConfig.model_fields.keys() - set(EXTENDABLE):
                was, now = getattr(before.config, name), getattr(config, name)
                require(was == now, f"{name}: was {was!r}, now {now!r}; choose another folder")
        write_json(
            folder / "study",
            {
                "config": config.model_dump(mode="json"),
                "sessions": [*sessions, describe_environment()],
            },
        )
        return cls(folder)

    @property
    def hardware(self) -> dict[str, Any]:
        """The hardware of the last session."""
        return self.study["sessions"][-1]["hardware"]

    def rows(self) -> list[Row]:
        """Return the measurements so far, in the order in which they were made."""
        path = self.folder / "costs.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def write(self, rows: Sequence[Row]) -> None:
        """Replace the measurements, all or none of them."""
        write_text(self.folder / "costs", ".jsonl", "".join(json.dumps(r) + "\n" for r in rows))
