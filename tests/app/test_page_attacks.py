"""Forged calls to a page that runs in this process: nothing leaves it, and nobody sees another."""

import asyncio
import base64
import contextlib
import gc
import json
import math
import os
import re
import socket
import struct
import threading
import time
import types
import uuid
import warnings
from pathlib import Path

import httpx
import pytest
import torch
from torch import nn

from unilens.app import files as files_module
from unilens.app import listening, queueing
from unilens.app.server import open_page
from unilens.models import PixelClassifier
from unilens.models.classifier import Preprocessing

from .test_hostile import META, Visitor, black_png, encoded, photo, png_of, refused

# gradio's and starlette's own; this process runs the server beside the tests
pytestmark = pytest.mark.filterwarnings("default")
CANARY = "canary-91b2"


def tiny_classifier():
    plain = Preprocessing(size=(16, 16), resize=16, mean=(0.0,) * 3, std=(1.0,) * 3)
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 3)).eval()
    with torch.no_grad():
        for value in network.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
    return PixelClassifier(network, plain, labels=["cat", "dog", "bird"], name="tiny")


class Watch:
    """What this process connects to, and what it looks up, while it is watched."""

    def __init__(self, port):
        self.port, self.seen = port, []

    @contextlib.contextmanager
    def watching(self, monkeypatch):
        looked_up, connect = socket.getaddrinfo, socket.socket.connect
        create, owner = socket.create_connection, self

        def getaddrinfo(host, *more, **settings):
            owner.note(host)
            return looked_up(host, *more, **settings)

        def connecting(self, address):
            if self.family in (socket.AF_INET, socket.AF_INET6):
                owner.note(*address[:2])
            return connect(self, address)

        def creating(address, *more, **settings):
            owner.note(*address[:2])
            return create(address, *more, **settings)

        with monkeypatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", getaddrinfo)
            patch.setattr(socket.socket, "connect", connecting)
            patch.setattr(socket, "create_connection", creating)
            yield

    def note(self, host, port=None):
        if host != "127.0.0.1" or port not in (None, self.port):
            self.seen.append((host, port))


@contextlib.contextmanager
def opened(root, **settings):
    """Open a page with a tiny model in this process, and yield its address."""
    loop = asyncio.new_event_loop()  # gradio would make one, and leave it open
    asyncio.set_event_loop(loop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(root))
        patch.setattr("unilens.app.service.load_model", lambda name, **_: tiny_classifier())
        patch.setattr("unilens.app.opening.Opening.start", lambda self: None)
        patch.setattr("unilens.app.opening.Opening._find", lambda self, model: None)
        with open_page(port=0, models=["tiny"], **settings) as address:
            yield address.rstrip("/")
    loop.close()
    asyncio.set_event_loop(None)
    with warnings.catch_warnings():  # of the loops of gradio's threads
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Yield a visitor of a page in this process, whose model is tiny."""
    root = tmp_path_factory.mktemp("attacks")
    (root / "outside").mkdir()
    (root / "outside" / "private.png").write_bytes(encoded(photo((40, 40))))
    (root / "outside" / "canary.txt").write_text(CANARY)
    with opened(root) as address:
        process = types.SimpleNamespace(poll=lambda: None, pid=os.getpid())
        visitor = Visitor(process, address, root)
        (visitor.own,) = root.glob("unilens-app-*")
        visitor.port = int(address.rpartition(":")[2])
        yield visitor
        visitor.close()
    assert [path.name for path in root.iterdir()] == ["outside"]


def dependencies(page):
    return [one for one in page.http.get("/config").json()["dependencies"] if one["backend_fn"]]


def asking(page):
    """Return the dependencies that read what is sent."""
    return [one for one in dependencies(page) if one["inputs"]]


def call(page, calls, session):
    """Call dependencies as a browser would, and return the text of all that comes back to each."""
    texts, events = {}, {}
    for number, (one, data) in enumerate(calls):
        body = {"fn_index": one["id"], "data": data, "session_hash": session, "event_data": None}
        way = "queue/join" if one["queue"] else "run/predict"
        answer = page.http.post(f"/gradio_api/{way}", content=json.dumps(body), headers=JSON)
        texts[number] = answer.text
        if one["queue"] and answer.status_code == 200:
            events[answer.json()["event_id"]] = number
    if events:
        with page.http.stream(
            "GET", "/gradio_api/queue/data", params={"session_hash": session}
        ) as (lines):
            for line in lines.iter_lines():
                if line.startswith("data: "):
                    texts[events.get(json.loads(line[6:]).get("event_id"), -1)] = line
    texts.pop(-1, None)
    assert not events or "process_completed" in "".join(texts.values())
    return [texts[number] for number in range(len(calls))]


JSON = {"content-type": "application/json"}
LINK = "http://nobody.invalid/x.png"
FORGED = {
    "a link": {"path": LINK, "meta": META},
    "a link in capitals": {"path": "HTTPS://nobody.invalid/x", "meta": META},
    "a link to this machine": {"path": "http://127.0.0.1:1/x", "meta": META},
    "a link beside a path": {"path": LINK, "url": LINK, "meta": META, "orig_name": "a.png"},
    "a link alone": {"url": LINK, "meta": META},
    "a link without a mark": {"path": LINK},
    "a link in a list": [{"path": LINK, "meta": META}],
    "a link deep inside": {"a": [{"b": ({"path": LINK, "meta": META})}]},
    "a link as an update": {"__type__": "update", "value": {"path": LINK, "meta": META}},
    "text": LINK,
    "file:": {"path": "file:///etc/passwd", "meta": META},
    "data:": {"path": "data:image/png;base64,iVBORw0KGgo=", "meta": META},
    "ftp:": {"path": "ftp://nobody.invalid/x", "meta": META},
    "a share": {"path": "\\\\nobody.invalid\\x", "meta": META},
    "a stream": {"path": LINK, "meta": META, "is_stream": True},
    "passwd": {"path": "/etc/passwd", "meta": META},
    "a device": {"path": "/dev/zero", "meta": META},
    "the environment": {"path": "/proc/self/environ", "meta": META},
    "outside": {"path": "{root}/outside/private.png", "meta": META},
    "traversal": {"path": "{own}/gradio/../../outside/private.png", "meta": META},
    "the lock": {"path": "{own}/lock", "meta": META},
    "a folder": {"path": "{own}", "meta": META},
    "NUL": {"path": "a\0b", "meta": META},
    "a long path": {"path": "x" * 5000, "meta": META},
    "a mark that is none": {"path": "/etc/passwd", "meta": 3},
    "no path": {"path": None, "meta": META},
    "a number": {"path": 3, "meta": META},
    "a list for a path": {"path": [LINK], "meta": META},
    "huge numbers": 10**300,
    "not a number": math.nan,
    "infinity": math.inf,
    "nested": [[[[[[[[[[]]]]]]]]]],
    "an object": {"a": {"b": {"c": 1}}},
    "true": True,
    "long text": "x" * 50_000,
}


def filled(page, forged):
    text = json.dumps(forged).replace("{root}", str(page.folder)).replace("{own}", str(page.own))
    return json.loads(text)


@pytest.mark.parametrize("kind", FORGED)
def test_forged_values_at_every_endpoint(page, kind, monkeypatch):
    """In each place of each event, in the queue and beside it; the page has been used before."""
    session, watch = uuid.uuid4().hex, Watch(page.port)
    asked = [page.honest, "tiny", ["gradient"]]
    assert page.join(("ul-asked", "change"), asked, session)["success"]
    forged = filled(page, FORGED[kind])
    with watch.watching(monkeypatch):
        texts = call(page, [(one, [forged] * len(one["inputs"])) for one in asking(page)], session)
    for text in texts:
        for bad in ("root:", CANARY, "Traceback", str(page.folder / "outside"), "<class"):
            assert bad not in text
    assert watch.seen == []
    again = page.join(("ul-asked", "change"), asked, session)
    assert again["success"], again


def test_forged_links_in_one_place_at_a_time(page, monkeypatch):
    """Also in components that an event has made anew, and in those that are drawn by an event."""
    session, watch = uuid.uuid4().hex, Watch(page.port)
    honest = {"image": page.honest, "dropdown": "tiny", "checkboxgroup": ["ig"], "number": 0}
    asked = [page.honest, "tiny", ["ig"]]
    assert page.join(("ul-asked", "change"), asked, session)["success"]
    config = page.http.get("/config").json()
    kinds = {one["id"]: one["type"] for one in config["components"]}
    drawn = page.join((None, "load"), [], session)
    assert drawn["success"], drawn
    calls = []
    for one in asking(page):
        data = [honest.get(kinds[place]) for place in one["inputs"]]
        for place in range(len(data)):
            calls.append((one, [*data[:place], FORGED["a link"], *data[place + 1 :]]))
    assert len(calls) > 40
    with watch.watching(monkeypatch):
        for number in range(0, len(calls), 20):
            for text in call(page, calls[number : number + 20], session):
                assert "got a link" in text
    assert watch.seen == []


def test_forged_links_in_settings_that_are_drawn(page, monkeypatch):
    session, watch = uuid.uuid4().hex, Watch(page.port)
    (drawing,) = [one for one in dependencies(page) if one["render_id"] is not None]
    body = {"fn_index": drawing["id"], "data": [["uni", "ig"], None], "session_hash": session}
    output = page.http.post("/gradio_api/run/predict", json=body).json()
    drawn = output["render_config"]["dependencies"]
    assert len(drawn) > 10
    with watch.watching(monkeypatch):
        texts = call(page, [(one, [None, None, FORGED["a link"]]) for one in drawn], session)
    assert all("got a link" in text for text in texts)
    assert watch.seen == []


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
def test_too_few_values(page, count):
    calls = [
        (one, [page.honest] * count) for one in dependencies(page) if count < len(one["inputs"])
    ]
    for text in call(page, calls, uuid.uuid4().hex) if calls else ():
        assert "Traceback" not in text
        assert '"success":true' not in text


@pytest.mark.parametrize("index", [-1, 10**6, 10**30, "1", None, 1.5, [1], {"a": 1}, True, "x"])
@pytest.mark.parametrize("way", ["queue/join", "run/predict", "cancel"])
def test_events_that_are_none(page, index, way):
    body = {"fn_index": index, "data": [], "session_hash": "s", "event_id": "x"}
    answer = page.http.post(f"/gradio_api/{way}", json=body)
    assert "Traceback" not in answer.text
    assert answer.status_code < 600


# sessions


def explained(page, session, sent=None):
    """Explain a photograph for a session, and return the paths of its downloads."""
    sent = sent or page.upload(encoded(photo((33, 21))))
    data = [sent, ["gradient"], "", None, 0]
    message = page.join("explain", data, session)
    assert message["success"], message
    return sent, [file["path"] for file in message["output"]["data"][1]]


def test_paths_cannot_be_guessed(page):
    """Not from the content, nor from its digest, nor from the paths of others."""
    data = encoded(photo((33, 22)))
    sent, again = page.upload(data), page.upload(data)
    assert sent["path"] != again["path"]
    _, first = explained(page, "one", sent)
    _, second = explained(page, "two", again)
    assert not set(first) & set(second)
    secrets = [re.findall(r"[0-9a-f]{32}", path) for path in (*first, sent["path"], again["path"])]
    assert all(secrets)


@pytest.mark.parametrize("event", [("ul-prepare", "click"), ("ul-check", "click"), "details"])
def test_what_a_session_sees_is_its_own(page, event):
    mine, other = uuid.uuid4().hex, uuid.uuid4().hex
    sent = page.upload(encoded(photo((33, 23))))
    form = [sent, "tiny", ["gradient"], -1, 0, None]
    assert page.join("maps", form, mine)["success"]
    more = [["gradient"]] if event == "details" else []
    forged = [sent["path"], {"model": "tiny"}]
    assert "press Explain first" in refused(page, page.join(event, [forged, *more], other))
    assert page.join(event, [None, *more], mine)["success"]


def test_events_of_another_session_are_not_told(page):
    """Its stream needs the name of the session, which nobody else knows."""
    mine = uuid.uuid4().hex
    body = {"fn_index": page.events["predict"]["id"], "data": [page.honest, ""]}
    event = page.http.post("/gradio_api/queue/join", json={**body, "session_hash": mine}).json()
    for guess in (uuid.uuid4().hex, "", "*", mine[:-1], mine.upper() + "x"):
        text = page.http.get("/gradio_api/queue/data", params={"session_hash": guess}).text
        assert event["event_id"] not in text
        assert "process_completed" not in text
    text = page.http.get("/gradio_api/queue/data", params={"session_hash": mine}).text
    assert "process_completed" in text


def test_a_session_cannot_cancel_anothers_event(page):
    mine = uuid.uuid4().hex
    one = page.events["explain"]
    data = [page.honest, [{"name": "ig", "settings": {"n_steps": 300}}], "", None, 5]
    body = {"fn_index": one["id"], "data": data, "session_hash": mine}
    event = page.http.post("/gradio_api/queue/join", json=body).json()["event_id"]
    for session in ("somebody", "", mine[:-1]):
        forged = {"session_hash": session, "fn_index": one["id"], "event_id": "x"}
        page.http.post("/gradio_api/cancel", json=forged)
    assert page.join(("ul-cancel", "click"), [], uuid.uuid4().hex)["success"]
    with page.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": mine}) as lines:
        messages = [json.loads(line[6:]) for line in lines.iter_lines() if line.startswith("data")]
    (done,) = [one for one in messages if one["msg"] == "process_completed"]
    assert done["event_id"] == event
    assert done["success"]


@pytest.mark.parametrize(
    "way",
    [
        *("{path}/../../../../lock", "{own}/lock", "{own}", "{own}/gradio/sent", "{own}/gradio"),
        *("{own}/gradio/made", "{root}/outside/private.png", "{own}/../outside/canary.txt"),
        *("file://{path}", "{own}/gradio/sent/%2e%2e/%2e%2e/lock", "data:,x", "~/x", "."),
        *("http://127.0.0.1:1/x", "{path}%00.png", "{path}/", "//{path}/../..", "/proc/self/mem"),
    ],
)
def test_files_that_are_not_served(page, way):
    path = page.honest["path"]
    asked = way.format(path=path, own=page.own, root=page.folder)
    answer = page.http.get("/gradio_api/file=" + asked)
    if answer.status_code == 200:  # a path that is tidied before it is looked at
        assert asked.startswith(path)
        assert answer.content == Path(path).read_bytes()
    else:
        assert answer.status_code in (403, 404)
    assert CANARY not in answer.text
    assert "root:" not in answer.text


def test_links_inside_the_folder_lead_nowhere(page):
    folder = page.own / "gradio" / "sent" / "forged"
    folder.mkdir()
    link = folder / "a.png"
    link.symlink_to(page.folder / "outside" / "private.png")
    try:
        sent = {"path": str(link), "meta": META}
        assert "no longer here" in refused(page, page.join("predict", [sent, ""]))
    finally:
        link.unlink()
        folder.rmdir()


# uploads


def part(named):
    return f"--x\r\nContent-Disposition: form-data; {named}\r\n\r\na\r\n--x--".encode()


def test_an_upload_is_one_file(page):
    many = [("files", (f"{number}.png", b"x")) for number in range(1000)]
    before = sorted(page.own.rglob("*"))
    answer = page.http.post("/gradio_api/upload", files=many)
    assert answer.status_code == 400
    assert "Too many files" in answer.text
    assert sorted(page.own.rglob("*")) == before


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "multipart/form-data; boundary=x"),
        (b"--x\r\n\r\n\r\n--x--", "multipart/form-data; boundary=x"),
        (b"--x", "multipart/form-data; boundary=x"),
        (b"junk" * 1000, "multipart/form-data; boundary=x"),
        (b"x", "multipart/form-data"),
        (b"{}", "application/json"),
        (b"x", ""),
        (part('name="files"'), "multipart/form-data; boundary=x"),
        (part('name="other"; filename="a"'), "multipart/form-data; boundary=x"),
        (part("filename=a"), "multipart/form-data; boundary=x"),
        (b"--x\r\nX: " + b"y" * 20_000, "multipart/form-data; boundary=x"),
    ],
)
def test_uploads_that_are_none_leave_nothing(page, body, kind):
    before = sorted(page.own.rglob("*"))
    headers = {"content-type": kind} if kind else {}
    answer = page.http.post("/gradio_api/upload", content=body, headers=headers)
    assert 400 <= answer.status_code < 500
    assert sorted(page.own.rglob("*")) == before


def test_an_upload_that_breaks_off_leaves_nothing(page):
    before = sorted(page.own.rglob("*"))
    head = (
        f"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 100000\r\n\r\n"
        '--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nabc'
    )
    with socket.create_connection(("127.0.0.1", page.port)) as connection:
        connection.sendall(head.encode())
        until(lambda: sorted(page.own.rglob("*")) != before)
    until(lambda: sorted(page.own.rglob("*")) == before)


def until(true, seconds=10):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


# time


def test_half_open_connections_are_ended(page, monkeypatch):
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.1)
    for sent in (b"", b"G", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "):
        with socket.create_connection(("127.0.0.1", page.port)) as connection:
            connection.settimeout(5)
            connection.sendall(sent)
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(100) == b""


def test_connections_that_are_kept_open_are_ended(page, monkeypatch):
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.1)
    ask = f"GET /gradio_api/app_id HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", page.port)) as connection:
        connection.settimeout(5)
        connection.sendall(ask * 3)  # all at once, and the beginning of a fourth
        connection.sendall(ask[:20])
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(9000):
                got += part
    assert got.count(b"200 OK") == 3


def test_slow_answers_outlive_the_wait_for_a_request(page, monkeypatch):
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.1)
    with page.http.stream("GET", "/gradio_api/heartbeat/x") as lines:
        told = lines.iter_lines()
        assert next(told) == "data: ALIVE"
        time.sleep(0.3)
        assert not lines.is_closed
        connection = lines.extensions["network_stream"].get_extra_info("socket")
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(1, socket.MSG_PEEK)


# bounds


def restored(page, data):
    state = {"unilens_page": 1, "request": {"model": "tiny"}}
    state["photograph"] = {"name": "a.png", "data": base64.b64encode(data).decode()}
    return json.dumps(state).encode()


def test_one_photograph_is_restored_at_a_time(page, monkeypatch):
    """Twenty small files that are 40 megapixels each when they are opened."""
    running, most, lock = [0], [0], threading.Lock()

    def reading(data, name):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.02)
        with lock:
            running[0] -= 1
        return files_module.read_photograph(data, name)

    monkeypatch.setattr("unilens.app.page.read_photograph", reading)
    sent = page.upload(restored(page, encoded(photo((9, 9)))), "page.json")
    small = base64.urlsafe_b64encode(restored(page, encoded(photo((9, 8))))).decode().rstrip("=")

    def restore(way):
        if way % 2:
            page.join((None, "load"), [], uuid.uuid4().hex, f"?state={small}")
        else:
            page.join(("ul-restore", "upload"), [sent], uuid.uuid4().hex)

    threads = [threading.Thread(target=restore, args=(way,)) for way in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


@pytest.mark.parametrize("way", ["/gradio_api/run/predict", "/gradio_api/api/predict"])
def test_queued_work_is_not_done_beside_the_queue(page, way):
    for one in dependencies(page):
        if one["queue"]:
            body = {"fn_index": one["id"], "data": [None] * len(one["inputs"])}
            answer = page.http.post(way, json={**body, "session_hash": "x"})
            assert answer.status_code == 404
            assert "join the queue" in answer.text
    answer = page.http.post("/gradio_api/run/explain", json={"data": [page.honest, ["ig"]]})
    assert answer.status_code == 404


def test_files_of_a_session_are_bounded(page, monkeypatch):
    monkeypatch.setattr(files_module, "MAX_FILES_OF_ONE", 12)
    sent = page.upload(encoded(photo((33, 24))))
    mine, paths = uuid.uuid4().hex, []
    _, others = explained(page, "another", sent)
    for seed in range(5):
        message = page.join("explain", [sent, ["gradient"], "", None, seed], mine)
        paths.append([Path(file["path"]) for file in message["output"]["data"][1]])
    left = [path for made in paths for path in made if path.exists()]
    assert len(left) <= 12
    assert set(paths[-1]) <= set(left)
    assert all(Path(path).exists() for path in others)


def test_uploads_are_bounded(page, monkeypatch):
    for name, value in (("MAX_BYTES_OF_ALL", 20_000), ("MAX_FILES_OF_ALL", 10**6)):
        monkeypatch.setattr(files_module, name, value)
    sent = [page.upload(bytes(4000) + bytes([number])) for number in range(10)]
    there = [Path(one["path"]).exists() for one in sent]
    assert sum(there) <= 5
    assert there[-1]
    monkeypatch.undo()
    page.honest = page.upload(encoded(photo()))


def test_answers_that_nobody_fetches_are_forgotten(page, monkeypatch):
    monkeypatch.setattr(queueing, "MAX_UNREAD", 10)
    body = {"fn_index": page.events["predict"]["id"], "data": [page.honest, ""]}
    sessions = [uuid.uuid4().hex for _ in range(60)]
    for session in sessions:
        answer = page.http.post("/gradio_api/queue/join", json={**body, "session_hash": session})
        while answer.status_code == 503:
            time.sleep(0.05)
            answer = page.http.post(
                "/gradio_api/queue/join", json={**body, "session_hash": session}
            )
    kept = 0
    for session in sessions:
        text = page.http.get("/gradio_api/queue/data", params={"session_hash": session}).text
        kept += "process_completed" in text
    assert kept < 60
    assert page.join("predict", [page.honest, ""], sessions[0])["success"]


def test_cancel_storms(page):
    mine = uuid.uuid4().hex
    data = [page.honest, [{"name": "ig", "settings": {"n_steps": 900}}], "", None, 9]
    body = {"fn_index": page.events["explain"]["id"], "data": data, "session_hash": mine}
    for _ in range(20):
        event = page.http.post("/gradio_api/queue/join", json=body).json()["event_id"]
        cancel = {"session_hash": mine, "fn_index": body["fn_index"], "event_id": event}
        for forged in (cancel, cancel, {**cancel, "event_id": "x"}):
            assert page.http.post("/gradio_api/cancel", json=forged).json() == {"success": True}
        page.http.post("/gradio_api/cancel", json={**cancel, "event_id": event * 1000})
    assert page.join("predict", [page.honest, ""])["success"]


def test_many_small_requests_leave_nothing(page):
    """Scaled down; benchmarks/app.py has ten thousand."""
    paths = ["/", "/config", "/gradio_api/info", "/gradio_api/app_id", "/nowhere", "/theme.css"]

    def files():
        return sorted(page.own.rglob("*"))

    def threads():
        return threading.active_count()

    for path in paths:
        page.http.get(path)
    before, running = files(), threads()
    for number in range(300):
        answer = page.http.get(paths[number % len(paths)])
        assert answer.status_code == (404 if "nowhere" in paths[number % len(paths)] else 200)
    for number in range(100):
        answer = page.join("predict", [page.honest, "nobody"], f"small-{number}")
        assert not answer["success"]
    assert files() == before
    assert threads() <= running + 5


@pytest.mark.parametrize(
    "picture",
    [
        lambda: black_png(10_000, 6_000),
        lambda: png_of(2**31 - 1, 2**31 - 1),
        lambda: encoded(photo()) + bytes(100),
        lambda: b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**31) + b"IHDR",
    ],
)
def test_restored_pictures_are_within_limits(page, picture):
    sent = page.upload(restored(page, picture()), "page.json")
    message = page.join(("ul-restore", "upload"), [sent], uuid.uuid4().hex)
    if message["success"]:
        assert Path(message["output"]["data"][0]["path"]).is_relative_to(page.own)
    else:
        refused(page, message)


# logins


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """Return the address of a page with a password."""
    root = tmp_path_factory.mktemp("locked")
    with opened(root, login=("me", "secret"), hosts=["a.b"]) as address:
        yield address


def test_login_is_slow_after_failures_and_its_cookie_is_strict(locked):
    with httpx.Client(base_url=locked) as client:
        guesses = [
            client.post("/login", data={"username": "me", "password": str(guess)}).status_code
            for guess in range(30)
        ]
        assert guesses.count(400) <= 2
        assert set(guesses) == {400, 429}
        for path in ("/config", "/gradio_api/info", "/gradio_api/file=x"):
            assert client.get(path).status_code == 401
        files = {"files": ("a.png", encoded(photo()))}
        assert client.post("/gradio_api/upload", files=files).status_code == 401
        right = {"username": "me", "password": "secret"}
        until(lambda: client.post("/login", data=right).status_code == 200)
        client.cookies.clear()
        answer = client.post("/login", data=right)
        cookies = answer.headers.get_list("set-cookie")
        assert cookies
        for cookie in cookies:
            assert "SameSite=Strict" in cookie
            assert "HttpOnly" in cookie
        assert client.get("/config").status_code == 200
        assert client.post("/gradio_api/upload", files=files).status_code == 200


def test_a_public_name_is_answered(locked):
    assert httpx.get(locked, headers={"host": "a.b"}).status_code == 200
    assert httpx.get(locked, headers={"host": "b.a"}).status_code == 403
