"""The panels beside the maps: what the visitor uses, and what happens then."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import gradio as gr

from ..errors import UnilensError
from .files import VisitorFiles
from .handlers import ONE_AT_A_TIME, PRIVATE, progress_callback, visitor_id, with_short_errors
from .jobs import Job, Jobs
from .panel_render import contrast_html, opinion_html
from .request import read_form
from .second_opinion import second_opinion
from .service import ExplainService, Explanation

CONTRAST_METHOD = "uni_blur"
"""Explains the margin of two classes: its map has large areas of either colour."""
CHOOSE_TWO = """
let chosen = [];
element.addEventListener("click", event => {
  const bar = event.target.closest("button[data-index]");
  if (!bar) return;
  const others = chosen.filter(other => other.isConnected && other !== bar);
  chosen = chosen.includes(bar) ? others : [...others.slice(0, 1), bar];
  for (const other of element.querySelectorAll("button[data-index]")) {
    const place = chosen.indexOf(other);
    other.setAttribute("aria-pressed", place >= 0);
    other.dataset.place = place;
  }
  const classes = chosen.map(other => Number(other.dataset.index));
  if (classes.length === 2) trigger("select", {classes});
});
"""
"""Lets the visitor choose two bars of the predictions; the first stays when a third is chosen."""
REVEAL = "() => unilens.reveal(document.querySelector('#{}'))"
"""Scrolls a part into view, by its id."""


class Panels:
    """The second opinion, and why one class and not another; made within `gr.Blocks`."""

    def __init__(self) -> None:
        self.contrast = gr.HTML(elem_id="ul-contrast")
        self.ask = gr.Button("Second opinion: do other methods agree?", elem_id="ul-second")
        self.opinion = gr.HTML(elem_id="ul-opinion")

    def connect(
        self,
        service: ExplainService,
        files: VisitorFiles,
        jobs: Jobs,
        current: Callable[[Any, Job], Explanation],
        layout: Any,
    ) -> list[Any]:
        """Connect the panels to their handlers, and return the events that can be cancelled.

        Args:
            service: explains.
            files: of the visitors.
            jobs: that run.
            current: returns the explanation on the page.
            layout: the other components.
        """
        queued: dict[str, Any] = {**ONE_AT_A_TIME, **PRIVATE}
        direct: dict[str, Any] = {"queue": False, **PRIVATE}
        work = _Work(service, files, jobs, current)
        contrasting = layout.predictions.select(
            work.contrast,
            [layout.photograph, layout.model, layout.seed],
            self.contrast,
            show_progress_on=[layout.status, self.contrast],
            trigger_mode="multiple",  # one at a time; a deferred event would lose its classes
            **queued,
        )
        asking = self.ask.click(
            work.opinion,
            layout.shown,
            self.opinion,
            show_progress_on=[layout.status, self.opinion],
            **queued,
        )
        for event, name in ((contrasting, "ul-contrast"), (asking, "ul-opinion")):
            event.success(None, None, None, js=REVEAL.format(name), **direct)
        changes = [layout.photograph.change, layout.model.change, layout.seed.change]
        gr.on(changes, lambda: "", None, self.contrast, **direct)
        layout.shown.change(lambda: "", None, self.opinion, **direct)
        return [contrasting, asking]


class _Work:
    """The handlers of the panels."""

    def __init__(
        self,
        service: ExplainService,
        files: VisitorFiles,
        jobs: Jobs,
        current: Callable[[Any, Job], Explanation],
    ) -> None:
        self._service, self._files, self._jobs, self._current = service, files, jobs, current

    @with_short_errors
    def contrast(
        self,
        path: str | None,
        model: str,
        seed: float,
        request: gr.Request,
        chosen: gr.EventData,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - gradio looks at the default
    ) -> str:
        """Return why the first of two chosen classes, and not the second."""
        if path is None:
            raise UnilensError("expected a photograph; drop one, or pick a sample")
        target, against = _classes(chosen)
        asked = read_form(model, [{"name": CONTRAST_METHOD}], target, seed)
        with self._job(request, progress) as job:
            photograph = self._files.read(path)
            return contrast_html(self._service.explain(photograph, asked, job, against))

    @with_short_errors
    def opinion(
        self,
        shown: Any,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> str:
        """Return where the maps of several methods agree about what is on the page."""
        with self._job(request, progress) as job:
            found = second_opinion(self._service, self._current(shown, job), job)
            return opinion_html(*found)

    def _job(self, request: gr.Request, progress: gr.Progress) -> AbstractContextManager[Job]:
        return self._jobs.track(visitor_id(request), Job(progress_callback(progress)))


def _classes(chosen: gr.EventData) -> tuple[int, int]:
    """Return the two classes of an event, whose content may be anything."""
    data = chosen._data
    classes = data.get("classes") if isinstance(data, dict) else None
    if isinstance(classes, list) and len(classes) == 2:
        first, second = classes
        if type(first) is int and type(second) is int and min(classes) >= 0:
            return first, second
    raise UnilensError("expected two classes among the predictions; choose two bars")
