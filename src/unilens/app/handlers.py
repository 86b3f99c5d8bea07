"""How a handler of the page runs: one at a time, with its errors told in one line."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from ..errors import UnilensError
from ..output.text import one_line
from .jobs import Cancelled

P = ParamSpec("P")
R = TypeVar("R")
ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
LONGEST_MESSAGE = 400
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
_log = logging.getLogger(__name__)


def plainly(function: Callable[P, R]) -> Callable[P, R]:
    """Return a handler whose errors are one line each; what is unforeseen goes to the log."""

    @functools.wraps(function)
    def handler(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except UnilensError as error:
            raise refusal(error) from None
        except Cancelled:
            raise gr.Error(
                "Cancelled; nothing was changed.",
                duration=5,
                title="Cancelled",
                print_exception=False,
            ) from None
        except gr.Error:
            raise
        except Exception:
            _log.exception("a request has failed")
            raise gr.Error(
                "Something unforeseen has happened; the server's log says what.",
                title="Error",
                print_exception=False,
            ) from None

    return handler


def refusal(error: UnilensError) -> gr.Error:
    """Return an error as a visitor sees it: one line, whatever names the visitor has sent."""
    line = one_line(error)
    if len(line) > LONGEST_MESSAGE:
        line = line[: LONGEST_MESSAGE - 1] + "…"
    return gr.Error(line, duration=None, title="Not possible", print_exception=False)


def visitor(request: gr.Request) -> str:
    """Return what a visitor's jobs are kept under."""
    return request.session_hash or "somebody"


def report(progress: gr.Progress) -> Callable[[float, str], object]:
    """Return what shows how far a job is."""
    return lambda fraction, text: progress(fraction, desc=text)
