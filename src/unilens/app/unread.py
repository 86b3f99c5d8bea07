"""What gradio keeps for visitors who never fetch it: answers, and the addresses of files."""

from __future__ import annotations

import contextlib
from typing import Any

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
