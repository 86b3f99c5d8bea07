"""What the tabs of tables and series share: a CSV file, choices, a result, downloads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import gradio as gr

from ..errors import UnilensError
from ..methods import methods
from .csv_files import MAX_BYTES, MAX_COLUMNS, MAX_ROWS, CsvFile, read_csv_file
from .csv_request import CsvRequest
from .files import VisitorFiles
from .handlers import ONE_AT_A_TIME, PRIVATE, progress_callback, small, visitor_id
from .jobs import Job, Jobs
from .layout import PREDICTED
from .outdated import notice, outdated_notice
from .panels import REVEAL
from .upload import file_upload, unchecked

QUEUED: dict[str, Any] = {**ONE_AT_A_TIME, **PRIVATE}
DIRECT: dict[str, Any] = {"queue": False, **PRIVATE}
Shown = tuple[str, dict[str, Any]]
"""What is in the tab: the path of the file, and the request as plain values."""


class CsvTab(ABC):
    """A tab that explains an uploaded CSV file.

    Args:
        files: what visitors upload and download.
        jobs: the running ones of all tabs.
    """

    key: ClassVar[str]
    """Beginning of the ids of its components."""
    title: ClassVar[str]
    intro: ClassVar[str]
    read_form: ClassVar[Callable[..., CsvRequest]]
    """From what the visitor has chosen to the request."""

    def __init__(self, files: VisitorFiles, jobs: Jobs) -> None:
        self._visitor_files, self._jobs = files, jobs

    def build(self) -> None:
        """Lay the tab out, within `gr.Blocks`, and connect its components."""
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                self.file = file_upload(
                    label=f"CSV file (at most {MAX_BYTES // 2**20} MB)",
                    height=140,
                    elem_id=self._id("file"),
                )
                gr.HTML(small(f"{self.intro} At most {MAX_ROWS} rows, {MAX_COLUMNS} columns."))
                self.choices = self._add_choices()
                self.method = gr.Dropdown(
                    [_DEFAULT], value="", label="Method", elem_id=self._id("method")
                )
                with gr.Accordion("Advanced settings", open=False):
                    self.seed = gr.Number(0, label="Seed", precision=0, elem_id=self._id("seed"))
                with gr.Row():
                    explain = gr.Button("Explain", variant="primary", elem_id=self._id("explain"))
                    cancel = gr.Button("Cancel", elem_id=self._id("cancel"))
            with gr.Column(scale=9, min_width=320):
                shown = gr.State(None)
                status = gr.HTML(small("Nothing explained yet."), elem_id=self._id("status"))
                self.preview = gr.HTML(elem_id=self._id("preview"))
                with gr.Column(elem_classes="ul-veil", elem_id=self._id("results")):
                    outdated = outdated_notice(self._id("outdated"))
                    results = self._add_results(shown)
                    with gr.Accordion("Download", open=False, elem_id=self._id("take")):
                        prepare = gr.Button(
                            "Prepare values (CSV), picture and Python code",
                            elem_id=self._id("prepare"),
                        )
                        downloads = gr.Files(
                            label="Files", interactive=False, elem_id=self._id("downloads")
                        )
        for component in (*self.choices, self.method, self.seed):
            unchecked(component)
        read = [self.preview, self.method, *self.choices]
        reading = self.file.change(self._read, self.file, read, show_progress="minimal", **QUEUED)
        reading.failure(lambda: "", None, self.preview, **DIRECT)
        form = [self.file, *self.choices, self.method, self.seed]
        explaining = gr.on(
            [explain.click, outdated.select],
            self._explain,
            form,
            [shown, status, downloads, *results],
            show_progress_on=[status],
            **QUEUED,
        )
        explaining.success(None, None, None, js=REVEAL.format(self._id("results")), **DIRECT)
        gr.on(
            [component.change for component in (shown, *form)],
            self._compare,
            [shown, *form],
            outdated,
            show_progress="hidden",
            trigger_mode="always_last",
            **DIRECT,
        )
        prepare.click(self._write_files, shown, downloads, **QUEUED)
        cancel.click(self._cancel, None, status, cancels=[explaining], **DIRECT)

    @abstractmethod
    def _add_choices(self) -> list[Any]:
        """Lay out what this tab alone asks for, and return the components."""

    @abstractmethod
    def _add_results(self, shown: gr.State) -> list[Any]:
        """Lay out what this tab shows, and return the components."""

    @abstractmethod
    def _read(self, path: str | None) -> tuple[Any, ...]:
        """Return preview, methods and choices for a file."""

    @abstractmethod
    def _explain(self, *values: Any) -> tuple[Any, ...]:
        """Return what is shown, the status, no downloads, and the results."""

    @abstractmethod
    def _write_files(self, shown: Shown | None, request: gr.Request) -> list[str]:
        """Return the paths of downloads about what is shown."""

    def _compare(self, shown: Shown | None, path: str | None, *form: Any) -> str:
        """Return a notice if the result is not that of the form."""
        return notice(shown, path, lambda: self.read_form(*form))

    def _id(self, name: str) -> str:
        return f"ul-{self.key}-{name}"

    def _csv(self, path: str | None) -> CsvFile:
        """Return the file at a path that a browser sends."""
        if path is None:
            raise UnilensError("expected a CSV file; drop one")
        return read_csv_file(self._visitor_files.resolve(path))

    def _job(self, request: gr.Request, progress: gr.Progress) -> AbstractContextManager[Job]:
        return self._jobs.track(visitor_id(request), Job(progress_callback(progress)))

    def _cancel(self, request: gr.Request) -> str:
        count = self._jobs.cancel(visitor_id(request))
        return small("Cancelled." if count else "Nothing was running.")

    def _write(
        self, file: CsvFile, key: str, contents: dict[str, bytes], visitor: str
    ) -> list[str]:
        """Write downloads by their suffixes, and return their paths."""
        return [
            self._visitor_files.write(
                file.digest + key, f"{file.stem}-unilens{suffix}", data, visitor
            )
            for suffix, data in contents.items()
        ]


_DEFAULT = ("the default for this model", "")


def method_choices(names: Sequence[str]) -> Any:
    """Return an update of the methods that are offered."""
    described = [(f"{name}: {methods[name].card.summary}", name) for name in names]
    return gr.update(choices=[_DEFAULT, *described], value="")


def class_choices(labels: Sequence[Any], predicted: str = "") -> Any:
    """Return an update of the classes that are offered; none is shown where there are none."""
    first = f"the class predicted{': ' if predicted else ''}{predicted}"
    choices = [(first, PREDICTED), *((str(label), index) for index, label in enumerate(labels))]
    return gr.update(choices=choices, value=PREDICTED, visible=len(labels) > 1)
