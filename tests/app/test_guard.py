"""What stands before the page: names, other sites, logins, bodies, and what is not offered."""

import asyncio

import pytest
from starlette.datastructures import Headers

from unilens.app import guard, logins
from unilens.app.guard import MAX_JSON_BYTES, Guard
from unilens.app.hosts import Hosts
from unilens.app.logins import FIRST_WAIT, LONGEST_WAIT, MAX_CLIENTS, Logins
from unilens.errors import UnilensError

HOST = "127.0.0.1:7860"
UPLOADED = 1000


class App:
    """An application that reads the whole body, and answers with headers of its own."""

    def __init__(self, status=200, headers=(), reads=True):
        self.status, self.headers, self.reads = status, list(headers), reads
        self.bodies = []

    async def __call__(self, scope, receive, send):
        body, more = b"", self.reads
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.bodies.append(body)
        start = {"type": "http.response.start", "status": self.status, "headers": self.headers}
        await send(start)
        await send({"type": "http.response.body", "body": b"from the page"})


class Answer:
    def __init__(self, messages):
        assert [message["type"] for message in messages] == [
            "http.response.start",
            "http.response.body",
        ]
        self.status, self.text = messages[0]["status"], messages[1]["body"].decode()
        self.headers = Headers(raw=messages[0]["headers"])


async def _ask(app, method, path, headers, chunks, client, scheme):
    sent, parts = [], list(chunks)

    async def receive():
        if not parts:
            await asyncio.sleep(3600)  # a client that sends no more, and does not go
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts) or len(chunks) > 1}

    async def send(message):
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers]
    scope = {"type": "http", "method": method, "path": path, "headers": raw, "scheme": scheme}
    await app({**scope, "client": (client, 1), "query_string": b""}, receive, send)
    return Answer(sent)


def ask(
    app, method="GET", path="/", headers=(), host=HOST, chunks=(b"",), client="::1", scheme="http"
):
    """Send one request; a body of several chunks never ends."""
    hosts = [] if host is None else [("host", host)]
    return asyncio.run(_ask(app, method, path, [*hosts, *headers], chunks, client, scheme))


def guarded(app=None, listening="127.0.0.1", more=(), **settings):
    hosts = Hosts.of(listening, more)
    return Guard(app or App(), hosts, max_upload_bytes=UPLOADED, **settings)


# names


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:7860", "127.0.0.1", "localhost", "LOCALHOST:1", "[::1]", "[::1]:7860"],
)
def test_local_names_are_answered(host):
    assert ask(guarded(), host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:7860", "localhost.evil.example", "127.0.0.1.evil.example"),
        *("localhost.", "localhost@evil.example", "evil.example#localhost", "localhost/", ""),
        *("localhost:", "localhost:7860:1", "127.1", "0x7f.1", "2130706433", "[::1", "::1"),
        *("0.0.0.0", "[::]", "10.0.0.1", "localhost evil.example", "[::ffff:127.0.0.1]"),
        *("xn--localhost", "127.0.0.1:7860,evil.example", "localhost\\evil.example"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/gradio_api/queue/join", "/login"])
def test_other_names_are_refused(host, path):
    app = App()
    answer = ask(guarded(app), host=host, path=path)
    assert (answer.status, app.bodies) == (403, [])
    assert "--allow-host" in answer.text


def test_a_request_has_one_name():
    assert ask(guarded(), host=None).status == 403
    assert ask(guarded(), headers=[("host", HOST)]).status == 403


@pytest.mark.parametrize(
    ("listening", "more", "host", "known"),
    [
        ("192.168.0.7", (), "192.168.0.7:7860", True),
        ("192.168.0.7", (), "192.168.0.8", False),
        ("fe80::1", (), "[fe80::1]:7860", True),
        ("[fe80::1]", (), "[fe80::1]", True),
        ("0.0.0.0", (), "192.168.0.7:80", True),
        ("0.0.0.0", (), "[2001:db8::1]", True),
        ("::", (), "10.1.2.3", True),
        ("0.0.0.0", (), "evil.example", False),
        ("::", (), "evil.example", False),
        ("0.0.0.0", (), "10.1.2.3.evil.example", False),
        ("127.0.0.1", ("Page.example",), "page.EXAMPLE:443", True),
        ("127.0.0.1", ("page.example:8443",), "page.example:8443", True),
        ("127.0.0.1", ("page.example",), "a.page.example", False),
        ("127.0.0.1", ("page.example",), "page.example.evil", False),
        ("my-machine", (), "my-machine:7860", True),
    ],
)
def test_names_by_where_the_page_listens(listening, more, host, known):
    assert Hosts.of(listening, more).know(host) == known
    assert (ask(guarded(None, listening, more), host=host).status == 200) == known


@pytest.mark.parametrize("name", ["*", "", "http://page.example", "a b", "page.example/", "a,b"])
def test_names_that_are_none(name):
    with pytest.raises(UnilensError, match="expected the name of a host"):
        Hosts.of("127.0.0.1", [name])


# other sites

JOIN = "/gradio_api/queue/join"
ELSEWHERE = [
    *("https://evil.example", "null", "http://localhost:7860", "http://127.0.0.1:8888", ""),
    *("file://", "http://127.0.0.1", "chrome-extension://abc", "http://127.0.0.1:7860.evil"),
    *(f"http://{HOST}/x", f"http://{HOST}#", f"http://{HOST}?", f"http:/\t/{HOST}"),
    *("http://evil.example#127.0.0.1:7860", "http://[", "ftp://127.0.0.1:7860", HOST),
]


def test_one_of_two_origins_is_not_enough():
    app = App()
    origins = [("origin", f"http://{HOST}"), ("origin", "https://evil.example")]
    answer = ask(guarded(app), "POST", JOIN, origins)
    assert (answer.status, app.bodies) == (403, [])


@pytest.mark.parametrize("origin", ELSEWHERE)
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", JOIN), ("POST", "/gradio_api/upload"), ("POST", "/login"), ("GET", "/config")],
)
def test_other_origins_are_refused(origin, method, path):
    app = App(headers=[(b"access-control-allow-origin", origin.encode())])
    answer = ask(guarded(app), method, path, [("origin", origin)])
    assert (answer.status, app.bodies) == (403, [])
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    ("more", "origin", "host"),
    [
        ((), "http://127.0.0.1:7860", "127.0.0.1:7860"),
        ((), "HTTP://Localhost:7860", "localhost:7860"),
        (("page.example",), "https://page.example", "127.0.0.1:7860"),
        (("page.example",), "https://page.example", "page.example"),
        (("page.example:8443",), "https://page.example:8443", "127.0.0.1:7860"),
    ],
)
def test_the_page_itself_is_answered(more, origin, host):
    answer = ask(guarded(None, "127.0.0.1", more), "POST", JOIN, [("origin", origin)], host)
    assert answer.status == 200


@pytest.mark.parametrize("origin", ["https://page.example:1", "https://a.page.example"])
def test_a_public_name_is_one_origin(origin):
    app = guarded(None, "127.0.0.1", ["page.example"])
    assert ask(app, "POST", JOIN, [("origin", origin)]).status == 403


@pytest.mark.parametrize(
    ("site", "mode", "method", "status"),
    [
        ("cross-site", "no-cors", "GET", 403),
        ("cross-site", "cors", "GET", 403),
        ("same-site", "no-cors", "GET", 403),
        ("cross-site", "navigate", "POST", 403),
        ("cross-site", "navigate", "GET", 200),
        ("same-origin", "cors", "POST", 200),
        ("none", "navigate", "GET", 200),
    ],
)
def test_a_link_from_elsewhere_opens_the_page_and_nothing_else(site, mode, method, status):
    headers = [("sec-fetch-site", site), ("sec-fetch-mode", mode)]
    assert ask(guarded(), method, "/", headers).status == status


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "TRACE", "PATCH", "CONNECT", "X"])
def test_other_verbs_are_refused(method):
    app = App()
    assert ask(guarded(app), method).status == 405
    assert not app.bodies


def test_nothing_is_shared_with_other_sites():
    app = App(
        headers=[
            (b"access-control-allow-origin", b"*"),
            (b"access-control-allow-credentials", b"true"),
            (b"x-own", b"kept"),
        ]
    )
    headers = ask(guarded(app)).headers
    assert headers["x-own"] == "kept"
    assert not any(name.startswith("access-control") for name in headers)
    assert headers["content-security-policy"] == "frame-ancestors 'self'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize(
    ("scheme", "forwarded", "secure"),
    [("http", None, False), ("https", None, True), ("http", "https", True), ("http", "x", False)],
)
@pytest.mark.parametrize(
    "given",
    [
        "access-token-a=b; HttpOnly; Path=/; SameSite=none; Secure",
        "access-token-a=b; HttpOnly; Path=/; SameSite=lax",
        "access-token-a=b; HttpOnly; Path=/",
    ],
)
def test_cookies_are_for_this_site_alone(scheme, forwarded, secure, given):
    app = App(headers=[(b"set-cookie", given.encode())])
    headers = [] if forwarded is None else [("x-forwarded-proto", forwarded)]
    cookie = ask(guarded(app), headers=headers, scheme=scheme).headers["set-cookie"]
    expected = "access-token-a=b; HttpOnly; Path=/; SameSite=Strict"
    assert cookie == expected + ("; Secure" if secure else "")


# paths


@pytest.mark.parametrize(
    "path",
    [
        *("/monitoring", "/monitoring/summary", "/monitoring/x", "/gradio_api/runs", "/docs"),
        *("/gradio_api/run-history/connect", "/gradio_api/run-history/records", "/openapi.json"),
        *("/gradio_api/vibe-edit", "/gradio_api/vibe-code", "/gradio_api/dev/reload", "/redoc"),
        *("/gradio_api/component_server", "/gradio_api/process_recording", "/gradio_api/mcp/sse"),
        *("/gradio_api/deep_link", "/gradio_api/token", "/gradio_api/stream/x", "/pwa_icon/1"),
        *("/gradio_api/custom_component/a/client/b/c", "/gradio_api/profiling/traces", "/x"),
        *("/gradio_api/openapi.json", "/gradio_api/stream/a/b/1/playlist.m3u8", "//", "/../"),
        *("/gradio_api/upload_progress", "/gradio_api/queue/status", "", "/gradio_api/file/etc"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_the_page_does_not_need_is_not_there(path, method):
    app = App()
    assert ask(guarded(app), method, path).status == 404
    assert not app.bodies


@pytest.mark.parametrize(
    "path",
    [
        *("/gradio_api/file=http://a.example/x", "/gradio_api/file=HTTPS://a.example", "/proxy=x"),
        *("/gradio_api/proxy=http://a.example", "/gradio_api/file/http://a", "/file=https:a"),
        *("/gradio_api/proxy=x", "/gradio_api/file= http://a.example", "/gradio_api/proxy="),
    ],
)
def test_links_in_paths_are_refused(path):
    app = App()
    answer = ask(guarded(app), path=path)
    assert (answer.status, app.bodies) == (403, [])
    assert "fetches nothing" in answer.text


# bodies


@pytest.mark.parametrize("length", ["99999999", "1" * 9000, "-1", "1e9", "0x10", "", "x", "5, 5"])
def test_declared_lengths_beyond_the_limit_are_not_read(length):
    app = App()
    answer = ask(guarded(app), "POST", JOIN, [("content-length", length)])
    assert (answer.status, app.bodies) == (413, [])
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(("path", "limit"), [(JOIN, MAX_JSON_BYTES), (guard.UPLOAD, UPLOADED)])
def test_bodies_without_end_are_cut(path, limit):
    app = App()
    chunk = bytes(limit // 4)
    headers = [("transfer-encoding", "chunked")]
    answer = ask(guarded(app), "POST", path, headers, chunks=[chunk] * 40)
    assert (answer.status, app.bodies) == (413, [])
    assert answer.headers["connection"] == "close"
    assert "maximum allowed size" in answer.text


def test_a_body_within_the_limit_is_read():
    app = App()
    body = bytes(MAX_JSON_BYTES)
    headers = [("content-length", str(len(body)))]
    assert ask(guarded(app), "POST", JOIN, headers, chunks=[body]).status == 200
    assert app.bodies == [body]


@pytest.mark.parametrize("limit", ["IDLE_SECONDS", "BODY_SECONDS"])
def test_slow_bodies_are_cut(limit, monkeypatch):
    monkeypatch.setattr(guard, limit, 0.01)
    headers = [("transfer-encoding", "chunked")]
    answer = ask(guarded(), "POST", JOIN, headers, chunks=[b"a", b"b"])
    assert answer.status == 408
    assert answer.headers["connection"] == "close"


def test_a_page_that_swallows_the_cut_does_not_answer_it():
    class Swallows(App):
        async def __call__(self, scope, receive, send):
            try:
                await super().__call__(scope, receive, send)
            except Exception:
                self.reads = False
                await super().__call__(scope, receive, send)

    headers = [("transfer-encoding", "chunked")]
    answer = ask(guarded(Swallows()), "POST", JOIN, headers, chunks=[bytes(MAX_JSON_BYTES)] * 3)
    assert answer.status == 413


@pytest.mark.parametrize("started", [False, True])
def test_errors_of_the_page_are_one_line(started, caplog):
    async def broken(scope, receive, send):
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("a secret")

    answer = ask(guarded(broken))
    assert answer.status == (200 if started else 500)
    assert "secret" not in answer.text + caplog.text
    assert len(caplog.text.splitlines()) == 1


@pytest.mark.parametrize("kind", ["websocket", "x"])
def test_other_protocols_are_not_answered(kind):
    app = App()

    async def nothing(*_):
        raise AssertionError

    asyncio.run(guarded(app)({"type": kind}, nothing, nothing))
    assert not app.bodies


def test_work_is_announced_before_it_waits():
    joined = []
    app = guarded(on_join=lambda: joined.append(1))
    for path in (JOIN, JOIN + "/", "/config"):
        ask(app, "POST", path)
    assert joined == [1, 1]


# logins


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_waits_double_up_to_the_longest():
    clock = Clock()
    kept = Logins(clock)
    waits = []
    for _ in range(12):
        kept.begin("10.0.0.1")
        waits.append(kept.wait("10.0.0.1"))
        clock.now += waits[-1]
        assert kept.wait("10.0.0.1") == 0
    assert waits[:4] == [FIRST_WAIT, 2 * FIRST_WAIT, 4 * FIRST_WAIT, 8 * FIRST_WAIT]
    assert waits[-1] == LONGEST_WAIT
    clock.now += 4000
    kept.begin("10.0.0.1")
    assert kept.wait("10.0.0.1") == FIRST_WAIT


def test_a_login_that_succeeds_and_another_address_do_not_wait():
    kept = Logins(Clock())
    kept.begin("10.0.0.1")
    assert kept.wait("10.0.0.2") == 0
    kept.succeed("10.0.0.1")
    assert kept.wait("10.0.0.1") == 0
    kept.succeed("nobody")


def test_a_network_of_one_visitor_is_one_address():
    kept = Logins(Clock())
    kept.begin("2001:db8::1")
    assert kept.wait("2001:db8::ffff:2") > 0
    assert kept.wait("2001:db8:0:1::1") == 0


def test_the_table_of_failures_is_bounded():
    kept = Logins(Clock())
    for number in range(3 * MAX_CLIENTS):
        kept.begin(f"client {number}")
    assert len(kept._failures) == MAX_CLIENTS
    assert kept.wait(f"client {3 * MAX_CLIENTS - 1}") > 0


def test_guesses_are_slowed_down(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(guard, "Logins", lambda: Logins(clock))
    app = App(status=400)
    page = guarded(app, login=True)
    statuses = []
    for _ in range(300):  # in 30 s
        statuses.append(ask(page, "POST", "/login").status)
        clock.now += 0.1
    assert statuses.count(400) == len(app.bodies) <= 7
    assert set(statuses) == {400, 429}
    answer = ask(page, "POST", "/login/")
    assert "too many failed logins" in answer.text
    assert int(answer.headers["retry-after"]) > 0
    clock.now += logins.LONGEST_WAIT
    app.status = 200
    assert ask(page, "POST", "/login").status == 200
    assert ask(page, "POST", "/login").status == 200


def test_guesses_at_once_are_several():
    class Waits(App):
        async def __call__(self, scope, receive, send):
            await asyncio.sleep(0)
            await super().__call__(scope, receive, send)

    page = guarded(Waits(status=400), login=True)
    guess = (page, "POST", "/login", [("host", HOST)], [b""], "::1", "http")

    async def many():
        return await asyncio.gather(*(_ask(*guess) for _ in range(21)))

    assert sorted(answer.status for answer in asyncio.run(many())) == [400] + [429] * 20


def test_a_page_without_login_counts_none():
    page = guarded(App(status=302))
    assert [ask(page, "POST", "/login").status for _ in range(3)] == [302] * 3
