"""How the page's event handlers run: one at a time, and with errors of one line."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from ..errors import UnilensError
from ..output.text import one_line
from .jobs import Cancelled, ProgressCallback

P = ParamSpec("P")
R = TypeVar("R")
ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
MAX_MESSAGE_LENGTH = 400
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
ONE_BESIDE: dict[str, Any] = {"concurrency_id": "start", "concurrency_limit": 1, **PRIVATE}
"""What begins work does not wait for it; but it decodes photographs, so that one runs at a time."""
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
"""The beginning of a tag: gradio shows messages as HTML."""
_log = logging.getLogger(__name__)


def with_short_errors(handler: Callable[P, R]) -> Callable[P, R]:
    """Return a handler whose errors are one line each; unexpected ones go to the log."""

    @functools.wraps(handler)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return handler(*args, **kwargs)
        except UnilensError as error:
            raise visitor_error(error) from None
        except Cancelled:
            raise gr.Error("Cancelled.", visible=False, print_exception=False) from None
        except gr.Error:
            raise
        except Exception:
            _log.exception("a request has failed")
            raise _error("An unexpected error; see the server's log.", "Error", 10) from None

    return wrapper


def visitor_error(error: UnilensError) -> gr.Error:
    """Return an error as a visitor sees it: one short line, whatever the request contained."""
    line = one_line(error)
    if len(line) > MAX_MESSAGE_LENGTH:
        line = line[: MAX_MESSAGE_LENGTH - 1] + "…"
    return _error(_TAG.sub("&lt;", line), "Not possible", None)


def _error(text: str, title: str, seconds: float | None) -> gr.Error:
    return gr.Error(text, duration=seconds, title=title, print_exception=False)


def visitor_id(request: gr.Request) -> str:
    """Return the key of a visitor's jobs."""
    return request.session_hash or "anonymous"


def progress_callback(progress: gr.Progress) -> ProgressCallback:
    """Return a callback that shows the progress of a job on the page."""
    return lambda fraction, text: progress(fraction, desc=text)


def small(text: str) -> str:
    """Return a small line of the page; the text is ours, and is not escaped."""
    return f"<p class='ul-small'>{text}</p>"
