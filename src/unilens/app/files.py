"""The files of visitors, in a folder from which they are removed after an hour."""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from pathlib import Path

from ..errors import UnilensError
from .downloads import write_downloads
from .photograph import Photograph, read_photograph
from .service import Explanation

MAX_AGE = 3600.0
"""Seconds for which a file is kept."""
_SWEEP_INTERVAL = 300.0


class VisitorFiles:
    """Files that visitors upload and download.

    Args:
        folder: where they are; nothing else is read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, path: str) -> Photograph:
        """Return the photograph in an uploaded file."""
        return read_photograph(self.read_bytes(path), Path(path).name)

    def read_bytes(self, path: str) -> bytes:
        """Return a file's content; a request may name any path, but only the folder is read."""
        try:
            resolved = Path(path).resolve(strict=True)
            if resolved.is_relative_to(self._folder.resolve()):
                return resolved.read_bytes()
        except (OSError, ValueError):  # a path with a NUL is a ValueError
            pass
        raise UnilensError("the file is no longer here: files are kept for an hour; drop it again")

    def write_photograph(self, photograph: Photograph) -> str:
        """Write a photograph where the page can show it, and return its path."""
        path = self._new_folder(photograph.digest) / (photograph.stem + photograph.suffix)
        partial = path.with_name(f"{uuid.uuid4().hex}.part")
        partial.write_bytes(photograph.data)
        partial.replace(path)  # at once: another visitor may be reading the same photograph
        return str(path)

    def write_downloads(self, explanation: Explanation) -> list[str]:
        """Write the files about an explanation, and return their paths."""
        key = explanation.photograph.digest + explanation.request.model_dump_json()
        return [str(path) for path in write_downloads(self._new_folder(key), explanation)]

    def sweep(self, max_age: float = MAX_AGE) -> int:
        """Remove files and empty folders older than this many seconds; return how many files."""
        removed = 0
        for path in sorted(self._folder.rglob("*"), reverse=True):
            try:
                if time.time() - path.stat().st_mtime <= max_age:
                    continue  # a new folder is about to be filled
                if path.is_file():
                    path.unlink()
                    removed += 1
                elif path.is_dir() and not any(path.iterdir()):
                    path.rmdir()
            except OSError:  # removed by another thread
                continue
        return removed

    def start_sweeping(self) -> None:
        """Sweep every few minutes for as long as the process lives."""

        def sweep_forever() -> None:
            while True:
                time.sleep(_SWEEP_INTERVAL)
                self.sweep()

        threading.Thread(target=sweep_forever, name="unilens-sweep", daemon=True).start()

    def _new_folder(self, key: str) -> Path:
        folder = self._folder / "made" / hashlib.sha256(key.encode()).hexdigest()[:24]
        folder.mkdir(parents=True, exist_ok=True)
        return folder
