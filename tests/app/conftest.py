"""A server in a process of its own, and a browser that visits it."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

MAIN = "from unilens.cli import main; main()"
SECONDS = 120
"""How long anything may take on a machine that is busy with other work."""


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Return the address of the page."""
    with serving(tmp_path_factory.mktemp("server") / "log.txt") as address:
        yield address


@contextlib.contextmanager
def serving(log, *options):
    """Yield the address of a page in a process of its own, opened with further options."""
    command = [sys.executable, "-u", "-c", MAIN, "app", "--port", "0", *options]
    models = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    with log.open("w") as out:
        process = subprocess.Popen(
            [*command, "--model", "efficientnet_lite0"],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": models},
        )
        try:
            yield _address(process, log)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(SECONDS)


def _address(process, log):
    until = time.monotonic() + SECONDS
    while " is open at " not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.1)
    return log.read_text().split(" is open at ")[1].split()[0]


@pytest.fixture(scope="module")  # not longer: while it is there, asyncio has a loop that runs
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"no browser is installed: none of {', '.join(names)} is on the PATH")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


class Visit:
    """One visitor's window.

    Attributes:
        page: the window.
        asked: the addresses of what it has requested from any host.
        messages: errors that its console has shown.
    """

    def __init__(self, context, address):
        self.page = context.new_page()
        self.page.set_default_timeout(1000 * SECONDS)
        self.address, self.asked, self.messages = address, [], []
        self.page.on("request", lambda request: self._note(request.url))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))

    def _note(self, url):
        if not url.startswith(("data:", "blob:", "about:")):
            self.asked.append(url)

    @property
    def other_hosts(self):
        own = urlsplit(self.address).netloc
        return [url for url in self.asked if urlsplit(url).netloc != own]

    def open(self, query=""):
        """Open the page, and wait for the sample that it opens with to be explained."""
        self.page.goto(self.address + query)
        self.page.wait_for_selector("#ul-explain")
        return self.settle()

    def find(self, selector):
        return self.page.locator(selector)

    def settle(self):
        """Wait until a photograph is explained, and the maps are those of the form."""
        self.find(".ul-maps, .toast-body.error").first.wait_for()
        if self.find(".toast-body.error").count():
            return self
        self.find("#ul-status .wrap.hide").wait_for(state="attached")
        self.find("#ul-outdated:not(:has(p))").wait_for(state="attached")
        return self

    def sample(self, name="chelsea"):
        self.find(f"#ul-sample [data-sample={name}]").click()
        self.find("#ul-predictions").get_by_text(f"{name}.png").wait_for()
        return self

    def choose(self, *names):
        """Choose methods instead of those that are chosen."""
        if not self.find("#ul-methods.ul-all").count():
            self.find(".ul-more").click()
        for box in self.find("#ul-methods input:checked").all():
            box.uncheck()
        for name in names:
            self.method(name).check()
        return self

    def method(self, name):
        """Return the box of a method."""
        return self.find(f"#ul-methods input[name='{name}']")

    def chosen(self):
        """Return the titles of the methods that are chosen."""
        return self.find("#ul-methods label:has(:checked)").all_inner_texts()

    def target(self, label):
        from playwright.sync_api import TimeoutError as Expired

        self.find("#ul-target input").click()
        self.page.get_by_role("option").first.wait_for()
        option = self.page.get_by_role("option", name=label, exact=True).first
        for _ in range(5):  # gradio filters when a key is pressed; a busy browser loses some
            self.page.keyboard.press("ControlOrMeta+a")
            self.page.keyboard.type(label, delay=20)
            with contextlib.suppress(Expired):
                option.wait_for(timeout=10_000)
                break
        option.click()
        return self

    def explain(self, maps=1):
        from playwright.sync_api import TimeoutError as Expired

        self.find("#ul-explain").click()
        with contextlib.suppress(Expired):  # maps of before, as many, are no answer; some are quick
            self.find("#ul-status .wrap:not(.hide)").wait_for(state="attached", timeout=5_000)
        self.find(f".ul-maps .ul-cards[data-count='{maps}']").wait_for()
        return self.settle()

    def enter(self, field, value):
        """Type a value and leave the field; again where the settings are drawn anew meanwhile."""
        for _ in range(5):
            field.fill(value)
            self.page.keyboard.press("Tab")
            self.page.wait_for_timeout(300)
            if field.input_value() == value:
                break
        return self

    def open_part(self, name):
        self.find(f"#{name} > button").click()
        return self


@pytest.fixture
def window(server, browser):
    """Return what opens a window with settings of its own; no window may ask another host."""
    with windows(server, browser) as new:
        yield new


@contextlib.contextmanager
def windows(server, browser):
    """Yield what opens windows, and check at the end what they have asked for."""
    contexts, visits = [], []

    def new(width=1400, height=1000, **settings):
        context = browser.new_context(viewport={"width": width, "height": height}, **settings)
        contexts.append(context)
        visits.append(Visit(context, server))
        return visits[-1]

    yield new
    for context in contexts:
        context.close()
    assert [visit.other_hosts for visit in visits] == [[] for _ in visits]
    assert [visit.messages for visit in visits] == [[] for _ in visits]
    assert all(visit.asked for visit in visits)


@pytest.fixture
def visit(window):
    return window().open()
