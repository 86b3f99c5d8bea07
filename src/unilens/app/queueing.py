"""What gradio's queue leaves to others: answers that nobody fetches, and work that is cancelled."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from gradio.server_messages import ProcessCompletedMessage
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .jobs import Jobs

MAX_UNREAD = 200
"""Answers that wait to be fetched: more than the page can have in its queue."""
MAX_NAMES = 1000


def forget_unread(blocks: Any) -> None:
    """Forget the answers of the visitors who asked first, where too many wait to be fetched.

    Whoever has work in the queue, or work that runs, is left alone.

    Args:
        blocks: the page.
    """
    queue = blocks._queue
    asked = queue.pending_event_ids_session
    excess = sum(map(len, asked.values())) - MAX_UNREAD
    for visitor in list(asked) if excess > 0 else ():
        if any(event in queue.event_ids_to_events for event in asked[visitor]):
            continue
        excess -= len(asked.pop(visitor))
        with contextlib.suppress(KeyError):
            del queue.pending_messages_per_session[visitor]
        if excess <= 0:
            break
    for names in blocks.temp_file_sets:  # only for gradio's own removal, which unilens does not use
        if len(names) > MAX_NAMES:
            names.clear()


def cancel_endpoint(blocks: Any, jobs: Jobs) -> Callable[[Request], Awaitable[Response]]:
    """Return what cancels an event in place of gradio.

    Gradio cancels the task that answers the event. Where that has not begun, its place in the
    queue is never free again, and nobody's work is done any more. Here work ends at its next pass.

    Args:
        blocks: the page.
        jobs: the work that runs.
    """

    async def cancel(request: Request) -> Response:
        try:
            body = await request.json()
            session, event_id = str(body["session_hash"]), str(body["event_id"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return JSONResponse({"detail": "expected an event to cancel"}, 422)
        queue = blocks._queue
        event = queue.event_ids_to_events.get(event_id)
        if event is not None and event.session_hash == session:
            if event not in queue.event_queue_per_concurrency_id[event.concurrency_id].queue:
                jobs.cancel(session)
            await queue.remove_from_queue(event_id)
            done = ProcessCompletedMessage(output={}, success=True)
            with contextlib.suppress(KeyError):  # nobody listens
                queue.send_message(event, done)
            event.alive = False  # whatever it still says, nobody wants to know
        return JSONResponse({"success": True})

    return cancel
