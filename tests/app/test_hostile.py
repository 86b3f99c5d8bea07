"""A visitor who means harm, over HTTP: every answer is plain, and the server goes on."""

import base64
import contextlib
import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
import uuid
import zlib
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy
import pytest
from PIL import Image

from unilens.models import samples

CANARY = "canary-7f3a-that-nobody-may-read"
META = {"_type": "gradio.FileData"}


class Visitor:
    """Speaks with the page as a browser does, and as no browser would."""

    def __init__(self, process, address, folder):
        self.process, self.address, self.folder = process, address, folder
        self.http = httpx.Client(base_url=address, timeout=120)
        config = self.http.get("/config").json()
        names = {c["id"]: c["props"].get("elem_id") for c in config["components"]}
        self.events = {}
        chained = iter(("maps", "details"))
        for one in config["dependencies"]:
            first = one["targets"][0]
            if not one["backend_fn"]:
                continue
            if first[1] == "success":  # of what is connected to `asked`
                self.events[next(chained)] = one
                continue
            key = one["api_name"] if one["api_visibility"] == "public" else None
            self.events.setdefault(key or (names.get(first[0]), first[1]), one)
        self.session = uuid.uuid4().hex
        self.honest = self.upload(encoded(next(iter(samples.values()))()))

    def close(self):
        self.http.close()

    def upload(self, data, name="photo.png"):
        answer = self.http.post("/gradio_api/upload", files={"files": (name, data)})
        if answer.status_code != 200:
            return answer
        return {"path": answer.json()[0], "orig_name": name, "meta": META}

    def join(self, event, data, session=None, query="", event_data=None):
        """Forge what a browser sends for an event, and return its last message and all text."""
        session = session or self.session
        body = {"fn_index": self.events[event]["id"], "data": data, "session_hash": session}
        body["event_data"] = event_data
        return self.join_raw(json.dumps(body), session, query)

    def join_raw(self, body, session, query=""):
        answer = self.http.post(
            "/gradio_api/queue/join" + query,
            content=body,
            headers={"content-type": "application/json", "referer": f"{self.address}{query}"},
        )
        if answer.status_code != 200:
            return {"success": False, "output": {"error": answer.text}}
        event, path = answer.json()["event_id"], "/gradio_api/queue/data"
        with self.http.stream("GET", path, params={"session_hash": session}) as lines:
            for line in lines.iter_lines():
                message = json.loads(line[6:]) if line.startswith("data: ") else {}
                if message.get("msg") == "process_completed" and message["event_id"] == event:
                    return message
        raise AssertionError("no answer")


def start(folder):
    (folder / "cwd").mkdir()
    (folder / "tmp").mkdir()
    (folder / "cwd" / "canary.txt").write_text(CANARY)
    (folder / "tmp" / "canary.txt").write_text(CANARY)
    source = str(Path(__file__).parents[2] / "src")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", "from unilens.cli import main; main()"),
                *("app", "--port", "0", "--model", "efficientnet_lite0"),
            ],
            cwd=folder / "cwd",
            env=os.environ
            | {"TMPDIR": str(folder / "tmp"), "PYTHONPATH": source, "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    for line in process.stdout:
        if "unilens is open at" in line:
            return process, line.split(" at ")[1].split()[0]
    raise AssertionError((folder / "log").read_text())


def end(process, how):
    process.send_signal(how)
    code = process.wait(60)
    process.stdout.close()
    return code


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def visitor(folder):
    process, address = start(folder)
    with contextlib.closing(Visitor(process, address.rstrip("/"), folder)) as found:
        yield found
    end(process, signal.SIGINT)
    assert [path.name for path in (folder / "tmp").iterdir()] == ["canary.txt"]


@pytest.fixture(autouse=True)
def guarded(request):
    """Whatever a test does, the server lives, and nothing lies or is open elsewhere."""
    yield
    if "visitor" not in request.fixturenames:
        return
    visitor = request.getfixturevalue("visitor")
    assert visitor.process.poll() is None
    tmp = visitor.folder / "tmp"
    (own,) = tmp.glob("unilens-app-*")
    assert sorted(path.name for path in tmp.iterdir()) == ["canary.txt", own.name]
    assert [path.name for path in (visitor.folder / "cwd").iterdir()] == ["canary.txt"]
    assert all(path.resolve().is_relative_to(own) for path in own.rglob("*"))
    for link in Path(f"/proc/{visitor.process.pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            assert link.readlink().name not in ("canary.txt", "passwd")
    log = (visitor.folder / "log").read_text()
    assert "a request has failed" not in log
    assert visitor.join("predict", [visitor.honest, ""])["success"]


def refused(visitor, message, silent=False):
    """Check that an answer is one clear line; `silent` where gradio itself refuses, saying none."""
    text = json.dumps(message)
    assert CANARY not in text
    assert not message["success"]
    said = message["output"]["error"]
    if said is None:
        assert silent
        return ""
    assert 0 < len(said) <= 400
    assert len(said.splitlines()) == 1
    for bad in ("Traceback", "unexpected", " object at 0x", "<class", str(visitor.folder)):
        assert bad not in said
    return said


def answered(message):
    assert message["success"], message
    assert CANARY not in json.dumps(message)
    return message["output"]["data"]


def encoded(image, kind="PNG", **how):
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width, height, *more, data=b""):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def black_png(width, height):
    """A whole PNG of one bit a pixel, made row by row."""
    packer, row = zlib.compressobj(9), bytes(1 + (width + 7) // 8)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return png_of(width, height, data=packed)


def photo(size=(64, 48)):
    noise = numpy.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), numpy.uint8)
    return Image.fromarray(noise)


def with_giant_text():
    whole = encoded(photo())
    text = chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(80 * 2**20)))
    return whole[:33] + text + whole[33:]


def big_gif():
    whole = encoded(photo(), "GIF")
    return whole[:6] + struct.pack("<HH", 65535, 65535) + whole[10:]


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
ENTITY = (
    b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    b'<svg xmlns="http://www.w3.org/2000/svg"><text>&x;</text></svg>'
)
BAD_PICTURES = {
    "a PNG that says it is huge": (lambda: png_of(2**31 - 1, 2**31 - 1), "megapixels"),
    "a PNG just over Pillow's limit": (lambda: png_of(10_000, 10_000), "megapixels"),
    "a real PNG of 60 megapixels": (lambda: black_png(10_000, 6_000), "megapixels"),
    "a GIF that says it is huge": (big_gif, "megapixels"),
    "a TIFF of 60 megapixels": (
        lambda: encoded(Image.new("1", (10_000, 6_000)), "TIFF", compression="tiff_deflate"),
        "megapixels",
    ),
    "SVG with a script": (lambda: SVG, "none that can be read"),
    "SVG with an entity": (lambda: ENTITY, "none that can be read"),
    "half a JPEG": (lambda: encoded(photo((400, 300)), "JPEG")[:9000], "whole"),
    "half a PNG": (lambda: encoded(photo((400, 300)))[:9000], "whole"),
    "half a WebP": (lambda: encoded(photo((400, 300)), "WEBP")[:9000], ""),
    "a PNG of giant text": (with_giant_text, ""),
    "an empty file": (lambda: b"", "empty"),
    "one pixel": (lambda: encoded(photo((1, 1))), "at least 8 pixels"),
    "a thread": (lambda: encoded(photo((5000, 1))), "at least 8 pixels"),
    "a ribbon": (lambda: encoded(photo((5000, 10))), "50 times"),
    "too many bytes": (lambda: encoded(photo()) + bytes(20 * 2**20), "at most 20 MB"),
    "text": (lambda: b"hello", "none that can be read"),
    "a PPM, a format not offered": (lambda: encoded(photo(), "PPM"), "none that can be read"),
    "PostScript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n", "none that can be read"),
}


@pytest.mark.parametrize("kind", BAD_PICTURES)
def test_bad_pictures(visitor, kind):
    make, said = BAD_PICTURES[kind]
    began = time.monotonic()
    sent = visitor.upload(make())
    assert said in refused(visitor, visitor.join("predict", [sent, ""]))
    assert said in refused(visitor, visitor.join("explain", [sent, ["gradient"], "", None, 0]))
    assert time.monotonic() - began < 20


def test_memory_stays_small_under_bombs(visitor):
    def peak():
        status = Path(f"/proc/{visitor.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 2**10

    before = peak()
    sent = visitor.upload(black_png(30_000, 5_900))
    for _ in range(3):
        refused(visitor, visitor.join("predict", [sent, ""]))
    assert peak() - before < 100


def exif():
    data = Image.Exif()
    data[0x010E] = "x" * 60_000
    return encoded(photo(), "JPEG", exif=data)


ODD_PICTURES = {
    "JPEG and HTML": lambda: encoded(photo(), "JPEG") + b"<html><script>alert(1)</script>",
    "GIF and script": lambda: encoded(photo(), "GIF") + b"*/=1;alert(1)//",
    "ZIP appended": lambda: encoded(photo()) + b"PK\x03\x04" + bytes(100),
    "EXIF of 60 KB": exif,
    "the smallest": lambda: encoded(photo((8, 8))),
}


@pytest.mark.parametrize("kind", ODD_PICTURES)
@pytest.mark.parametrize("name", ["a.jpg", "a.html", "a.svg"])
def test_odd_pictures_are_pictures(visitor, kind, name):
    (found,) = answered(visitor.join("predict", [visitor.upload(ODD_PICTURES[kind](), name), ""]))
    assert len(found) == 5


@pytest.mark.parametrize("name", ["a.html", "a.svg", "a.png"])
def test_uploads_are_never_pages_of_the_server(visitor, name):
    sent = visitor.upload(ODD_PICTURES["JPEG and HTML"](), name)
    answer = visitor.http.get("/gradio_api/file=" + sent["path"])
    kind = answer.headers["content-type"]
    assert answer.headers["content-disposition"].startswith("attachment") or "image/png" in kind
    assert not kind.startswith(("text/html", "image/svg"))


@pytest.mark.parametrize(
    "name",
    [
        *("../../x.png", "..\\..\\x.png", "/etc/passwd", "a\0b.png", "a\nb.png", "ü–猫.png"),
        *("<script>alert(1)</script>.png", "x" * 250 + ".png", '"; rm -rf /.png', "%2e%2e%2fx.png"),
    ],
)
def test_file_names(visitor, name):
    sent = visitor.upload(encoded(photo()), name)
    assert "<script" not in json.dumps(answered(visitor.join("predict", [sent, ""])))
    found, files = answered(visitor.join("explain", [sent, ["gradient"], "", None, 0]))
    assert "/" not in found["source"]
    assert len(files) == 5


@pytest.mark.parametrize("name", ["x" * 5000 + ".png", "..", "", "."])
def test_file_names_that_are_none(visitor, name):
    with contextlib.suppress(httpx.TransportError):  # the server may hang up
        sent = httpx.post(
            visitor.address + "/gradio_api/upload", files={"files": (name, encoded(photo()))}
        )
        assert "Traceback" not in sent.text
        if sent.status_code == 200:
            (own,) = (visitor.folder / "tmp").glob("unilens-app-*")
            assert Path(sent.json()[0]).resolve().is_relative_to(own)


def test_uploads_over_the_limit_are_cut_off(visitor):
    sent = visitor.upload(bytes(41 * 2**20))
    assert sent.status_code == 413
    assert str(visitor.folder) not in sent.text


PATHS = [
    *("/etc/passwd", "../../etc/passwd", "{cwd}/canary.txt", "{tmp}/canary.txt", "canary.txt"),
    *("/proc/self/environ", "/dev/zero", "/dev/stdin", "a\0b", "", "{own}", "{own}/../canary.txt"),
    *("http://127.0.0.1:1/x", "HTTPS://127.0.0.1:1/x", "file:///etc/passwd", "ftp://127.0.0.1/x"),
    *("data:image/png;base64,iVBORw0KGgo=", "\\\\host\\share", "~", "x" * 5000),
]


def forged(visitor, path):
    (own,) = (visitor.folder / "tmp").glob("unilens-app-*")
    return path.format(cwd=visitor.folder / "cwd", tmp=visitor.folder / "tmp", own=own)


@pytest.mark.parametrize("mark", [{"meta": META}, {}, {"meta": META, "is_stream": True}])
@pytest.mark.parametrize("path", PATHS)
def test_forged_paths(visitor, path, mark):
    sent = {"path": forged(visitor, path), **mark}
    refused(visitor, visitor.join("predict", [sent, ""]), silent=True)
    refused(visitor, visitor.join(("ul-restore", "upload"), [sent]), silent=True)
    data = [sent, "efficientnet_lite0", ["gradient"], -1, 0, None]
    refused(visitor, visitor.join("maps", data), silent=True)
    refused(visitor, visitor.join(("ul-asked", "change"), [sent, "x", []]), silent=True)


def test_a_picture_elsewhere_on_the_server_is_not_explained(visitor, tmp_path):
    (tmp_path / "private.png").write_bytes(encoded(photo()))
    for mark in ({"meta": META}, {}):
        sent = {"path": str(tmp_path / "private.png"), **mark}
        refused(visitor, visitor.join("predict", [sent, ""]), silent=True)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://127.0.0.1:1/x", "data:,x"])
def test_forged_links(visitor, url):
    said = refused(visitor, visitor.join("predict", [{"url": url, "meta": META}, ""]))
    assert "got a link" in said
    both = visitor.honest | {"url": url}
    assert answered(visitor.join("predict", [both, ""]))


def test_the_server_fetches_nothing(visitor):
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.5)
        link = f"http://127.0.0.1:{listener.getsockname()[1]}/x.png"
        sent = {"path": link, "meta": META}
        assert "got a link" in refused(visitor, visitor.join("predict", [sent, ""]))
        assert "got a link" in refused(visitor, visitor.join("predict", [visitor.honest, sent]))
        answer = visitor.http.get("/gradio_api/file=" + link)
        assert "fetches nothing" in answer.text
        assert visitor.http.get("/gradio_api/proxy=" + link).status_code == 403
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("way", ["/gradio_api/file=", "/gradio_api/file/", "/static/", "/assets/"])
def test_files_of_the_server_are_not_served(visitor, path, way):
    with contextlib.suppress(httpx.TransportError, httpx.InvalidURL):
        answer = httpx.get(visitor.address + way + forged(visitor, path), timeout=20)
        assert answer.status_code >= 300
        assert "root:" not in answer.text
        assert CANARY not in answer.text


@pytest.mark.parametrize("path", ["/etc/passwd", "../canary.txt", "canary.txt"])
def test_files_of_the_server_are_not_served_to_raw_requests(visitor, path):
    """As curl --path-as-is sends them: a client must not tidy the path."""
    import http.client

    host, port = visitor.address.removeprefix("http://").split(":")
    (own,) = (visitor.folder / "tmp").glob("unilens-app-*")
    for before in ("", "../" * 20, f"{own}/gradio/../../", "..%2f" * 20):
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        with contextlib.closing(connection):
            connection.putrequest("GET", "/gradio_api/file=" + before + path)
            connection.endheaders()
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        assert answer.status >= 400
        assert "root:" not in text
        assert CANARY not in text


MODELS = ["py:os:getcwd", "hf:x", "../x", "x" * 10_000, 3, {"a": 1}, [1], True, "\0", "a\nb"]


@pytest.mark.parametrize("model", MODELS)
def test_models(visitor, model):
    refused(visitor, visitor.join("predict", [visitor.honest, model]))
    refused(visitor, visitor.join("explain", [visitor.honest, ["gradient"], model, None, 0]))
    refused(visitor, visitor.join(("ul-asked", "change"), [visitor.honest, model, []]))
    data = [visitor.honest, model, ["gradient"], -1, 0, None]
    refused(visitor, visitor.join("maps", data))


def test_no_model_is_the_first(visitor):
    assert answered(visitor.join("predict", [visitor.honest, ""]))


def ig(**settings):
    return [{"name": "ig", "settings": settings}]


METHODS = {
    "unknown": ["nobody"],
    "an address": ["py:os:getcwd"],
    "command line": ["ig:references=/etc/passwd"],
    "references": [{"name": "expected_gradients", "settings": {"references": "/etc"}}],
    "layer": [{"name": "gradcam", "settings": {"layer": "x.__class__"}}],
    "bounds": [{"name": "uni", "settings": {"bounds": 1}}],
    "class prior": [{"name": "agi", "settings": {"class_prior": "/etc/passwd"}}],
    "create_graph": [{"name": "gradient", "settings": {"create_graph": True}}],
    "many steps": ig(n_steps=10**9),
    "many steps, no limit of its own": ig(n_steps=10**9, rule="midpoint"),
    "endless steps": ig(n_steps=10**400, rule="midpoint"),
    "many steps of uni": [{"name": "uni", "settings": {"n_steps": 4000, "matching_steps": 4000}}],
    "many cells": [{"name": "rise", "settings": {"cells": 10**5}}],
    "endless": [{"name": "uni", "settings": {"budget": 1e300}}],
    "no steps": ig(n_steps=0),
    "negative": ig(n_steps=-1),
    "not a number": ig(n_steps=float("nan")),
    "infinity": [{"name": "uni", "settings": {"budget": float("inf")}}],
    "true for a number": ig(n_steps=True),
    "a number for a name": ig(baseline=3),
    "a path for a name": ig(baseline="/etc/passwd"),
    "code for a name": ig(baseline="py:os:getcwd"),
    "nested": ig(baseline={"name": "black"}),
    "a list": ig(baseline=["black"]),
    "a long value": ig(baseline="x" * 10_000),
    "a long setting": ig(**{"x" * 10_000: 1}),
    "a dunder": ig(__class__=1),
    "five": ["uni", "ig", "sig", "idg", "idgi"],
    "none": [],
    "twice": ["ig", "ig"],
    "a long name": ["x" * 10_000],
    "a number": [3],
    "null": None,
    "nested lists": [[["ig"]]],
    "other keys": [{"name": "ig", "code": "x"}],
    "settings no mapping": [{"name": "ig", "settings": "x"}],
}


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("endpoint", ["explain", "check"])
def test_methods(visitor, kind, endpoint):
    said = refused(visitor, visitor.join(endpoint, [visitor.honest, METHODS[kind], "", None, 0]))
    assert said.startswith(("expected", "unknown"))


@pytest.mark.parametrize("target", [-5, 10**12, 1000, "cat", 1.5, True, [1], {"a": 1}, "1"])
def test_targets(visitor, target):
    refused(visitor, visitor.join("explain", [visitor.honest, ["gradient"], "", target, 0]))
    data = [visitor.honest, "efficientnet_lite0", ["gradient"], target, 0, None]
    refused(visitor, visitor.join("maps", data))


@pytest.mark.parametrize(
    "seed", [-1, 2**70, "x", 1.5, True, [0], float("inf"), float("nan"), 1e300]
)
def test_seeds(visitor, seed):
    refused(visitor, visitor.join("explain", [visitor.honest, ["gradient"], "", None, seed]))
    data = [visitor.honest, "efficientnet_lite0", ["gradient"], -1, seed, None]
    refused(visitor, visitor.join("maps", data))


def page(**more):
    return {"unilens_page": 1, "request": {"model": "efficientnet_lite0"}, **more}


def picture(data, name="a.png"):
    return page(photograph={"name": name, "data": base64.b64encode(data).decode()})


def asking(**more):
    return page(request={"model": "efficientnet_lite0", **more})


PAGES = {
    "schema": lambda: page(unilens_page=2),
    "no schema": lambda: page(unilens_page="1"),
    "other keys": lambda: page(code="x"),
    "deep": lambda: b"[" * 100_000,
    "deep objects": lambda: b'{"a":' * 100_000,
    "deep inside": lambda: b'{"request":' + b"[" * 900 + b"]" * 900 + b"}",
    "bomb": lambda: picture(black_png(10_000, 6_000)),
    "SVG": lambda: picture(SVG),
    "base64": lambda: page(photograph={"data": "###"}),
    "sample": lambda: page(sample="../../etc/passwd"),
    "model": lambda: page(request={"model": "py:os:getcwd"}),
    "references": lambda: asking(
        methods=[{"name": "deeplift_shap", "settings": {"references": "/etc"}}]
    ),
    "NaN": lambda: asking(methods=ig(n_steps=float("nan"))),
    "steps": lambda: asking(methods=ig(n_steps=10**9, rule="midpoint")),
    "digits": lambda: b'{"unilens_page": ' + b"1" * 100_000 + b"}",
    "no JSON": lambda: b"hello",
    "binary": lambda: bytes(range(256)),
    "empty": lambda: b"",
    "a list": lambda: b"[]",
    "null": lambda: b"null",
    "names": lambda: picture(encoded(photo()), "x" * 301),
}


def sent_page(kind):
    made = PAGES[kind]()
    return made if isinstance(made, bytes) else json.dumps(made).encode()


@pytest.mark.parametrize("kind", PAGES)
def test_forged_pages(visitor, kind):
    sent = visitor.upload(sent_page(kind), "page.json")
    refused(visitor, visitor.join(("ul-restore", "upload"), [sent]))


def test_a_page_of_fifty_megabytes(visitor):
    assert visitor.upload(b" " * (50 * 2**20), "page.json").status_code == 413


@pytest.mark.parametrize("name", ["a.html", "a.svg", "a.p\0g", "../../a.exe", "a.<b>", "a\n", ""])
def test_restored_pictures_are_named_by_what_they_are(visitor, name):
    made = json.dumps(picture(encoded(photo(), "JPEG") + b"<script>", name)).encode()
    sent = visitor.upload(made, "page.json")
    restored = answered(visitor.join(("ul-restore", "upload"), [sent]))[0]
    assert restored["path"].endswith(".jpg")
    assert "<" not in restored["path"]


@pytest.mark.parametrize("kind", [kind for kind in PAGES if kind != "bomb"])
def test_forged_links_to_a_page(visitor, kind):
    link = base64.urlsafe_b64encode(sent_page(kind)).decode()[:30_000]
    answer = visitor.join((None, "load"), [], uuid.uuid4().hex, "?state=" + link)
    if link:
        refused(visitor, answer)
    else:
        answered(answer)


@pytest.mark.parametrize("link", ["!!!", "x", "%00", "é", "A" * 60_000])
def test_links_that_are_none(visitor, link):
    with contextlib.suppress(httpx.TransportError):  # the server may hang up on a long line
        assert httpx.get(visitor.address, params={"state": link}).status_code < 500
    with contextlib.suppress(httpx.TransportError):
        message = visitor.join((None, "load"), [], uuid.uuid4().hex, f"?state={quote(link)}")
        refused(visitor, message)


@pytest.mark.parametrize("data", [[["/etc/passwd", {}]], ["x"], [3], [None], [{"a": 1}]])
@pytest.mark.parametrize(
    "event",
    ["details", ("ul-check", "click"), ("ul-prepare", "click"), ("ul-second", "click")],
)
def test_what_is_on_a_page_cannot_be_forged(visitor, event, data):
    more = [["gradient"]] if event == "details" else []
    said = refused(visitor, visitor.join(event, [*data, *more], uuid.uuid4().hex))
    assert "press Explain first" in said


@pytest.mark.parametrize("name", ["../../etc/passwd", 3, [1], {"a": 1}, "x" * 10_000])
def test_samples(visitor, name):
    assert "unknown sample" in refused(visitor, visitor.join(("ul-sample", "select"), [name]))


@pytest.mark.parametrize(
    "body", ["", "[" * 100_000, "{}", '{"data": [NaN]}', '{"fn_index": 999, "data": []}', "\0"]
)
@pytest.mark.parametrize("way", ["queue/join", "run/predict", "call/predict", "cancel"])
def test_bodies_that_are_none(visitor, body, way):
    url, kind = f"{visitor.address}/gradio_api/{way}", {"content-type": "application/json"}
    answer = httpx.post(url, content=body, headers=kind, timeout=20)
    assert answer.status_code >= 400 or list(answer.json()) == ["event_id"]
    assert "Traceback" not in answer.text
    assert str(visitor.folder) not in answer.text


def test_private_events_are_not_offered(visitor):
    offered = visitor.http.get("/gradio_api/info").json()["named_endpoints"]
    assert sorted(offered) == ["/check", "/explain", "/predict"]


def test_a_visitor_cannot_cancel_anothers_work(visitor):
    assert visitor.http.post(
        "/gradio_api/cancel",
        json={"session_hash": "somebody", "fn_index": 3, "event_id": "x"},
    ).json() == {"success": True}
    cancelled = visitor.join(("ul-cancel", "click"), [], uuid.uuid4().hex)
    assert cancelled["success"]
    assert answered(visitor.join("explain", [visitor.honest, ["gradient"], "", None, 7]))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_the_server_leaves_nothing_behind(tmp_path, how):
    process, address = start(tmp_path)
    with contextlib.closing(Visitor(process, address.rstrip("/"), tmp_path)) as visitor:
        (own,) = (tmp_path / "tmp").glob("unilens-app-*")
        assert Path(visitor.honest["path"]).is_relative_to(own)
        assert Path(visitor.honest["path"]).exists()
        visitor.http.post(  # work that takes a minute
            "/gradio_api/queue/join",
            json={
                "fn_index": visitor.events["explain"]["id"],
                "data": [visitor.honest, ["rise"], "", None, 0],
                "session_hash": "x",
            },
        )
        time.sleep(2)
    code = end(process, how)
    assert code == 128 + how
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == ["canary.txt"]


@pytest.mark.parametrize("chosen", [None, "x", {"classes": [0]}, {"classes": [0, 10**30]}])
def test_classes_to_contrast_are_two_of_the_model(visitor, chosen):
    data = [visitor.honest, "efficientnet_lite0", 0]
    message = visitor.join(("ul-predictions", "select"), data, event_data=chosen)
    assert "expected" in refused(visitor, message)
