"""How fast the web page is, and what many visitors at once do to its server.

    python benchmarks/app.py speed [TIMES]
    python benchmarks/app.py load [CLIENTS] [SECONDS]
    python benchmarks/app.py small [REQUESTS]

`speed`: Chromium opens the page of a server that is warm, each time as somebody new: seconds until
it can be used, until its sample is explained, and from pressing another sample and from uploading a
photograph that it has not seen to their maps. `load`: so many clients ask for predictions and maps
of the samples without a pause, and cancel every fourth; which answers they get, and what memory the
server has then. `small`: so many requests that ask for little or are refused; what memory and files
the server has before and after.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil

from unilens.models import samples

if TYPE_CHECKING:
    from playwright.sync_api import Page

MODEL = "efficientnet_lite0"
MAIN = "from unilens.cli import main; main()"
ASKED: tuple[list[object], ...] = (
    ["gradient"],
    ["gradcam", "input_x_gradient"],
    [{"name": "ig", "settings": {"n_steps": 5}}],
    [{"name": "smoothgrad", "settings": {"n_samples": 4}}],
)


def main() -> None:
    """Measure what is asked for."""
    what, *rest = sys.argv[1:] or [""]
    if what == "speed":
        speed(*map(int, rest))
    elif what == "load":
        load(*map(int, rest))
    elif what == "small":
        small(*map(int, rest))
    else:
        sys.exit(__doc__)


@contextmanager
def server(folder: str | None = None) -> Iterator[tuple[str, psutil.Process]]:
    """Open the page in a process of its own; yield its address and the process.

    Args:
        folder: where its files are; None for the folder of temporary files.
    """
    with tempfile.NamedTemporaryFile("r") as log, Path(log.name).open("w") as out:
        command = [sys.executable, "-u", "-c", MAIN, "app", "--port", "0", "--model", MODEL]
        env = os.environ | ({"TMPDIR": folder} if folder else {})
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=env)
        try:
            while " is open at " not in (said := Path(log.name).read_text()):
                if process.poll() is not None:
                    sys.exit(said)
                time.sleep(0.1)
            yield said.split(" is open at ")[1].split()[0], psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def speed(times: int = 5) -> None:
    """Print medians of seconds in a browser."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None) or sys.exit("no browser is there")
    seconds: dict[str, list[float]] = {}
    with (
        server() as (address, _),
        tempfile.TemporaryDirectory() as folder,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        for number in range(times + 1):  # the first warms up
            # No two photographs are equal, so that no map was kept.
            own = Path(folder) / f"{number}.png"
            samples["chelsea"]().crop((number, 0, 400 + number, 300)).save(own)
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.set_default_timeout(120_000)
            steps: dict[str, Callable[[], object]] = {
                "until the page can be used": lambda page=page: (
                    page.goto(address),
                    page.wait_for_selector("#ul-explain"),
                ),
                "then until the sample is explained": lambda page=page: shown(page, "espresso"),
                "from pressing a sample to its map": lambda page=page: (
                    page.click("[data-sample=rocket]"),
                    shown(page, "missile"),
                ),
                "from an upload to its map": lambda page=page, own=own: (
                    page.set_input_files("#ul-photograph input[type=file]", own),
                    shown(page, "cat|tabby|lynx"),
                ),
            }
            for name, step in steps.items():
                began = time.perf_counter()
                step()
                if number:
                    seconds.setdefault(name, []).append(time.perf_counter() - began)
            page.close()
        browser.close()
    print(f"seconds, of {times}")
    for name, taken in seconds.items():
        median = statistics.median(taken)
        print(f"{name:36} median {median:5.2f}  {min(taken):.2f} to {max(taken):.2f}")


def shown(page: Page, name: str) -> None:
    """Wait for the maps of a class."""
    page.locator(".ul-maps h2").get_by_text(re.compile(name)).wait_for()


def load(clients: int = 20, seconds: int = 120) -> None:
    """Print what many clients at once are answered, and the server's memory."""
    with server() as (address, process), tempfile.TemporaryDirectory() as name:
        files = []
        for sample in samples:
            files.append(str(Path(name) / f"{sample}.png"))
            samples[sample]().save(files[-1])
        # The warm-up fills what is kept to be shown again; all others then take its place.
        warmed = crowd(address, Path(name), files, clients, seconds / 2)
        print(f"warm-up: {dict(warmed)}")
        before = memory(process)
        counts = crowd(address, Path(name), files, clients, seconds)
        after = memory(process)
        print(f"{clients} clients for {seconds} s: {dict(counts)}")
        print(f"memory: {before} MiB after the warm-up, {after} MiB at the end")
        print(f"ratio {after / before:.3f}")
        with urllib.request.urlopen(address, timeout=30) as answer:
            print(f"the page still answers: {answer.status}")


def crowd(
    address: str, folder: Path, files: list[str], clients: int, seconds: float
) -> Counter[str]:
    """Let many visitors ask at once, and return what they were answered."""
    counts: Counter[str] = Counter()
    until = time.monotonic() + seconds
    threads = [
        threading.Thread(target=visit, args=(address, folder, files, seed, until, counts))
        for seed in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts


def visit(
    address: str, folder: Path, files: list[str], seed: int, until: float, counts: Counter[str]
) -> None:
    """Ask without a pause, as one visitor."""
    drawn = random.Random(seed)
    while time.monotonic() < until:
        ask(address, folder, drawn.choice(files), drawn.randrange(1000), counts)


def ask(address: str, folder: Path, file: str, seed: int, counts: Counter[str]) -> None:
    """Ask once for predictions and maps, and count the answers."""
    from gradio_client import Client, handle_file

    calls = (
        ("/predict", {"image": handle_file(file), "model": ""}),
        (
            "/explain",
            {
                "image": handle_file(file),
                "methods": ASKED[seed % len(ASKED)],
                "model": "",
                "target": None,
                "seed": seed,
            },
        ),
    )
    try:
        client = Client(address, verbose=False, download_files=str(folder / "got"))
    except Exception as error:  # whatever is wrong is what is counted
        counts[f"no client: {type(error).__name__}"] += 1
        return
    for name, values in calls:
        try:
            job = client.submit(api_name=name, **values)
            if seed % 4 == 0:
                time.sleep(seed % 7 / 10)
                job.cancel()
                counts[f"{name} cancelled"] += 1
                continue
            job.result()
        except Exception as error:
            full = "full" in str(error).lower()
            counts["queue full" if full else f"{name}: {str(error)[:80]}"] += 1
        else:
            counts[f"{name} answered"] += 1
    client.close()


def small(requests: int = 10_000) -> None:
    """Print the server's memory and files before and after many small requests."""
    with tempfile.TemporaryDirectory() as name, server(name) as (address, process):
        folder = Path(name)
        ask_for_little(address, requests // 10)
        before, files = memory(process), held(folder)
        began = time.monotonic()
        counts = ask_for_little(address, requests)
        seconds = time.monotonic() - began
        after = memory(process)
        print(f"{requests} small requests in {seconds:.0f} s: {dict(counts)}")
        print(f"memory: {before} MiB before, {after} MiB after; ratio {after / before:.3f}")
        print(f"files: {files} before, {held(folder)} after")


def held(folder: Path) -> tuple[int, int]:
    """Return how many files are below a folder, and their bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


def ask_for_little(address: str, requests: int) -> Counter[str]:
    """Ask for pages, for nothing, and for work that is refused; return the answers."""
    counts: Counter[str] = Counter()
    paths = ("", "config", "gradio_api/app_id", "gradio_api/info", "nowhere", "monitoring")
    with httpx.Client(base_url=address, timeout=60) as client:
        events = client.get("config").json()["dependencies"]
        (event,) = [one["id"] for one in events if one["api_name"] == "predict"]
        for number in range(requests):
            if number % 4:
                answer = client.get(paths[number % len(paths)])
            else:  # the answer is never fetched
                body = {"fn_index": event, "data": [None, ""], "session_hash": f"nobody{number}"}
                answer = client.post("gradio_api/queue/join", json=body)
            counts[str(answer.status_code)] += 1
    return counts


def memory(process: psutil.Process) -> int:
    """Return the MiB that the server and its children have resident."""
    every = [process, *process.children(recursive=True)]
    return sum(one.memory_info().rss for one in every) // 2**20


if __name__ == "__main__":
    main()
