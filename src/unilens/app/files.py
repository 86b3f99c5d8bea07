"""What visitors bring and take, in a folder that forgets after an hour."""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from pathlib import Path

from ..errors import UnilensError
from .downloads import write_files
from .photograph import Photograph, read_photograph
from .studio import Explained
from .wanted import Wanted

KEPT_SECONDS = 3600.0
_SWEEP_SECONDS = 300.0


class Files:
    """Files of visitors.

    Args:
        folder: the folder; what is older than an hour is removed from it, and all at the end.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = folder / "made"

    def read(self, path: str | None) -> Photograph | None:
        """Return the photograph in an uploaded file."""
        return None if path is None else read_photograph(self.bytes_of(path), Path(path).name)

    def bytes_of(self, path: str) -> bytes:
        """Return what a file holds; a request may name any path, but only this folder is read."""
        try:
            whole = Path(path).resolve(strict=True)
            if whole.is_relative_to(self._folder.resolve()):
                return whole.read_bytes()
        except (OSError, ValueError):  # a path with a NUL is a ValueError
            pass
        raise UnilensError("the file is no longer here: files are kept for an hour; drop it again")

    def kept(self, photograph: Photograph) -> str:
        """Write a photograph where the page can show it, and return its path."""
        path = self._new(photograph.digest) / (photograph.stem + photograph.suffix)
        part = path.with_name(f"{uuid.uuid4().hex}.part")
        part.write_bytes(photograph.data)
        part.replace(path)  # at once: somebody else may be reading the same photograph
        return str(path)

    def written(self, explained: Explained, wanted: Wanted) -> list[str]:
        """Write the files about some maps, and return their paths."""
        folder = self._new(explained.photograph.digest + wanted.model_dump_json())
        return [str(path) for path in write_files(folder, explained, wanted)]

    def sweep(self, older_than: float = KEPT_SECONDS) -> int:
        """Remove the files that are older than so many seconds, and return how many they were."""
        removed = 0
        for path in sorted(self._folder.rglob("*"), reverse=True):
            try:
                if time.time() - path.stat().st_mtime <= older_than:
                    continue  # a folder that was made just now is about to be filled
                if path.is_file():
                    path.unlink()
                    removed += 1
                elif path.is_dir() and not any(path.iterdir()):
                    path.rmdir()
            except OSError:  # somebody else was faster
                continue
        return removed

    def sweep_often(self) -> None:
        """Sweep every few minutes for as long as the process lives."""

        def often() -> None:
            while True:
                time.sleep(_SWEEP_SECONDS)
                self.sweep()

        threading.Thread(target=often, name="unilens-sweep", daemon=True).start()

    def _new(self, about: str) -> Path:
        folder = self._made / hashlib.sha256(about.encode()).hexdigest()[:24]
        folder.mkdir(parents=True, exist_ok=True)
        return folder
