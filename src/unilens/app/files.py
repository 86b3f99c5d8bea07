"""The files of visitors: uploads and downloads, few and small enough, removed after an hour."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import secrets
import stat
import threading
import time
import uuid
from pathlib import Path

from ..errors import UnilensError
from ..methods import methods
from ..models.loading import RANDOM_WEIGHTS
from ..output.records import record, write, write_text
from ..output.text import printable
from .photograph import Photograph, read_photograph
from .request import ExplainRequest, MethodRequest, PageState, PhotographFile
from .service import Explanation

MAX_AGE = 3600.0
"""Seconds for which a file is kept."""
MAX_BYTES_OF_ALL, MAX_FILES_OF_ALL = 2**30, 5000
MAX_BYTES_OF_ONE, MAX_FILES_OF_ONE = 128 * 2**20, 500
"""What all visitors and one visitor may have; beyond it the oldest files are removed."""
_SWEEP_INTERVAL = 300.0
_GONE = "the file is no longer here: files are kept for an hour; drop it again"
_SUFFIXES = (".png", ".safetensors", ".json", ".py", "-page.json")


class VisitorFiles:
    """Files that visitors upload and download.

    The path of a file is a secret: whoever knows what is in it, and even its digest, does not know
    where it is.

    Args:
        folder: where they are; nothing else is read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._secret = secrets.token_bytes(32)
        self._lock = threading.Lock()

    def read(self, path: str) -> Photograph:
        """Return the photograph in an uploaded file."""
        return read_photograph(self.read_bytes(path), Path(path).name)

    def read_bytes(self, path: str) -> bytes:
        """Return a file's content; a request may name any path, but only the folder is read."""
        try:
            return self.resolve(path).read_bytes()
        except OSError:
            raise UnilensError(_GONE) from None

    def resolve(self, path: str) -> Path:
        """Return the path of a file in the folder.

        Raises:
            UnilensError: it is elsewhere, or no longer there.
        """
        try:
            resolved = Path(path).resolve(strict=True)
            if resolved.is_file() and resolved.is_relative_to(self._folder.resolve()):
                return resolved
        except (OSError, ValueError):  # a path with a NUL is a ValueError
            pass
        raise UnilensError(_GONE)

    def upload_folder(self) -> Path:
        """Return a new folder for one upload."""
        folder = self._folder / "sent" / secrets.token_hex(16)
        folder.mkdir(parents=True)
        return folder

    def write_photograph(self, photograph: Photograph, visitor: str = "") -> str:
        """Write a photograph where the page can show it, and return its path."""
        name = photograph.stem + photograph.suffix
        return self.write(photograph.digest, name, photograph.data, visitor)

    def write(self, key: str, name: str, data: bytes, visitor: str = "") -> str:
        """Write a file where the page can offer it, and return its path.

        Args:
            key: files of one key lie together.
            name: of the file, without folders.
            data: its content.
            visitor: whose file it is; empty for one of all visitors.
        """
        path = self._new_folder(visitor, key) / name
        partial = path.with_name(f"{uuid.uuid4().hex}.part")
        partial.write_bytes(data)
        partial.replace(path)  # at once: another request may be reading the same file
        self.make_room(visitor)
        return str(path)

    def write_downloads(self, explanation: Explanation, visitor: str = "") -> list[str]:
        """Write the files about an explanation, and return their paths."""
        key = explanation.photograph.digest + explanation.request.model_dump_json()
        paths = _write_downloads(self._new_folder(visitor, key), explanation)
        self.make_room(visitor)
        return [str(path) for path in paths]

    def make_room(self, visitor: str | None = None) -> None:
        """Remove the oldest files where there are too many, or too large ones.

        Args:
            visitor: who has written a file just now; None after an upload, which is nobody's yet.
        """
        with self._lock:
            if visitor is not None:
                _keep_newest(self._of(visitor), MAX_BYTES_OF_ONE, MAX_FILES_OF_ONE)
            _keep_newest(self._folder, MAX_BYTES_OF_ALL, MAX_FILES_OF_ALL)

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

    def _of(self, visitor: str) -> Path:
        return self._folder / "made" / self._digest(visitor)

    def _new_folder(self, visitor: str, key: str) -> Path:
        folder = self._of(visitor) / self._digest(key)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _digest(self, text: str) -> str:
        """Return a name for a folder that nobody else can work out."""
        data = text.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(data, key=self._secret, digest_size=16).hexdigest()


def _keep_newest(folder: Path, max_bytes: int, max_files: int) -> None:
    """Remove the oldest files of a folder, and the folders that they leave empty."""
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # removed by another thread
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode):
                found.append((status.st_mtime, status.st_size, path))
    found.sort(reverse=True)
    total = 0
    for number, (_, size, path) in enumerate(found):
        total += size
        if total > max_bytes or number >= max_files:
            with contextlib.suppress(OSError):
                path.unlink()
                path.parent.rmdir()  # fails where other files are left


def _write_downloads(folder: Path, explanation: Explanation) -> list[Path]:
    """Write everything about an explanation into a folder, and return the files."""
    photograph, maps = explanation.photograph, explanation.attributions
    path = folder / f"{photograph.stem}-unilens"
    write(path, explanation.pixels, maps, explanation_record(explanation), "signed")
    write_text(path, ".py", python_code(explanation))
    write_text(path, "-page.json", page_state(photograph, explanation.request).text())
    return [folder / (path.name + suffix) for suffix in _SUFFIXES]


def explanation_record(explanation: Explanation) -> dict[str, object]:
    """Return everything about an explanation as plain data."""
    name = printable(explanation.photograph.name)
    return record(name, explanation.model, explanation.attributions, explanation.left_out)


def page_state(photograph: Photograph, request: ExplainRequest) -> PageState:
    """Return the state that restores the page, with the photograph unless it is a sample."""
    if photograph.sample:
        return PageState(request=request, sample=photograph.sample)
    data = base64.b64encode(photograph.data).decode()
    file = PhotographFile(name=printable(photograph.name), data=data)
    return PageState(request=request, photograph=file)


def python_code(explanation: Explanation) -> str:
    """Return the lines of Python that make the same maps."""
    photograph, request = explanation.photograph, explanation.request
    sample, file = photograph.sample, printable(photograph.name)
    image = f"samples[{sample!r}]()" if sample else f"read_image({file!r})"
    untrained = ", pretrained=False" if explanation.model.origin == RANDOM_WEIGHTS else ""
    lines = [
        "from unilens import explain, load_model",
        f"from unilens.models import {'samples' if sample else 'read_image'}",
        "from unilens.output.viz import panel",
        "",
        f"model = load_model({request.model!r}{untrained})",
        f"image = model.preprocess({image})",
    ]
    arguments = {
        method.name: _arguments(method)
        for method in request.methods
        if method.name in explanation.attributions
    }
    if any("references" in text for text in arguments.values()):
        lines[0:0] = ["import torch"]
        lines[2] = "from unilens.models import read_image, samples"
        images = "model.preprocess(load()) for load in samples.values()"
        lines.append(f"references = torch.stack([{images}])")
    lines.append("maps = {")
    lines += [
        f"    {name!r}: explain(model, image[None], {name!r}, {explanation.target}, "
        f"seed={request.seed}{text}),"
        for name, text in arguments.items()
    ]
    lines += ["}", f"panel(image, maps).savefig({photograph.stem + '-unilens.png'!r})"]
    return "\n".join(lines) + "\n"


def _arguments(method: MethodRequest) -> str:
    """Return the settings of a method as further arguments of a call."""
    text = "".join(f", {name}={value!r}" for name, value in method.settings.items())
    needs_references = "references" in methods[method.name].settings_with(method.settings)
    return text + ", references=references" * needs_references
