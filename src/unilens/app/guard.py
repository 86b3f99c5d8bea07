"""What stands before the page: it refuses requests of other sites, and those without bounds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

from .hosts import Hosts
from .logins import Logins

MAX_JSON_BYTES = 2**20
UPLOAD, CANCEL = "/gradio_api/upload", "/gradio_api/cancel"
IDLE_SECONDS, BODY_SECONDS = 20.0, 180.0
"""Seconds within which the next bytes of a body must arrive, and the whole body."""
_LINK = re.compile(r".*/(proxy=|file[=/]\s*https?:).*", re.IGNORECASE | re.DOTALL)
_OFFERED = re.compile(
    r"/|/(config|login|logout|theme\.css|favicon\.ico|manifest\.json|robots\.txt|pwa_icon)/?"
    r"|/(assets|static|svelte)/.+"
    r"|/gradio_api/(info|upload|cancel|reset|startup-events|login_check|user|app_id|theme\.css"
    r"|queue/join|queue/data|heartbeat/[^/]+|(run|api|call)/.+|file=.+)/?",
    re.DOTALL,
)
"""Paths that the page and its programs use; gradio has others, which nobody needs."""
_log = logging.getLogger(__name__)
_METHODS = ("GET", "HEAD", "POST")
_HEADERS = [
    (b"content-security-policy", b"frame-ancestors 'self'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
]


class Guard:
    """The page behind its limits.

    Args:
        app: the page.
        hosts: the names under which it answers.
        max_upload_bytes: of the body of an upload.
        login: whether it asks for a password.
        on_join: called before work is put into the queue.
    """

    def __init__(
        self,
        app: Any,
        hosts: Hosts,
        *,
        max_upload_bytes: int,
        login: bool = False,
        on_join: Callable[[], object] = lambda: None,
    ) -> None:
        self._app, self._hosts, self._on_join = app, hosts, on_join
        self._max_upload_bytes = max_upload_bytes
        self._logins = Logins() if login else None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        if scope["type"] != "http":
            return
        headers, path = Headers(scope=scope), scope["path"]
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(scope, receive, send, *refusal)
            return
        if path.rstrip("/") == "/login" and scope["method"] == "POST" and self._logins is not None:
            await self._log_in(self._logins, scope, receive, send)
        else:
            if path.rstrip("/") == "/gradio_api/queue/join":
                self._on_join()
            await self._pass_on(scope, receive, send)

    def _refusal(self, scope: Any, headers: Headers) -> tuple[int, str] | None:
        """Return status and text of a refusal; None for a request that is passed on."""
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not self._hosts.know(hosts[0]):
            return 403, "this page does not answer under that name; see --allow-host"
        site = headers.get("sec-fetch-site", "same-origin")
        opened = headers.get("sec-fetch-mode") == "navigate" and scope["method"] == "GET"
        if not all(self._hosts.allow(origin, hosts[0]) for origin in origins):
            return 403, "this page answers no other site"
        if site not in ("same-origin", "none") and not opened:
            return 403, "this page answers no other site"
        if scope["method"] not in _METHODS:
            return 405, "expected GET or POST"
        if _LINK.fullmatch(scope["path"]):
            return 403, "this page fetches nothing from other hosts"
        if not _OFFERED.fullmatch(scope["path"]):
            return 404, "not found"
        length = headers.get("content-length", "0")
        short = length.isdecimal() and len(length) < 16
        if not short or int(length) > 2 * self._limit(scope):
            return 413, _too_large(self._limit(scope))
        return None

    def _limit(self, scope: Any) -> int:
        is_upload = scope["path"].rstrip("/") == UPLOAD
        return self._max_upload_bytes if is_upload else MAX_JSON_BYTES

    async def _log_in(self, logins: Logins, scope: Any, receive: Any, send: Any) -> None:
        """Pass a login on, unless the address has to wait after others that failed."""
        address = (scope.get("client") or ("",))[0]
        seconds = logins.wait(address)
        if seconds:
            text = f"too many failed logins; try again in {seconds:.0f} s"
            await _answer(scope, receive, send, 429, text, {"retry-after": f"{seconds + 1:.0f}"})
            return
        logins.begin(address)

        async def note(message: Any) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                logins.succeed(address)
            await send(message)

        await self._pass_on(scope, receive, note)

    async def _pass_on(self, scope: Any, receive: Any, send: Any) -> None:
        """Let the page answer, if the body keeps within its limits."""
        headers = Headers(scope=scope)
        has_body = "content-length" in headers or "transfer-encoding" in headers
        body, started, ended = _Body(receive, self._limit(scope), has_body), False, False
        secure = scope["scheme"] == "https"
        secure |= headers.get("x-forwarded-proto", "").lower() == "https"

        async def answer(message: Any) -> None:
            nonlocal started, ended
            if body.refusal is not None and not started:
                return  # what the page says of half a body; the refusal follows
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": _guarded(message["headers"], secure)}
            else:
                ended = not message.get("more_body", False)
            await send(message)

        refusal: tuple[int, str] | None = None
        try:
            await self._app(scope, body, answer)
        except Exception as error:  # in one line: whoever forges many requests fills no log
            if body.refusal is None:
                _log.warning("a request could not be answered: %r", type(error))
                _log.debug("where", exc_info=True)
                refusal = 500, "an unexpected error; see the server's log"
        refusal = body.refusal or refusal
        if refusal is not None and not started:
            await body.drain()
            await _answer(scope, receive, send, *refusal)
        elif started and not ended:
            await send({"type": "http.response.body", "body": b""})


class _CutError(Exception):
    """A body is too large or too slow."""


class _Body:
    """The body of a request, within a number of bytes and of seconds."""

    def __init__(self, receive: Any, limit: int, has_body: bool) -> None:
        self._receive, self._limit = receive, limit
        self._size, self._until = 0, time.monotonic() + BODY_SECONDS
        self._ended = not has_body
        self.refusal: tuple[int, str] | None = None

    async def __call__(self) -> Any:
        """Return the next message."""
        if self.refusal is not None:
            raise _CutError
        return await self._next()

    async def drain(self) -> None:
        """Read on for a while, since many clients read an answer only when they have sent all."""
        if self.refusal is not None and self.refusal[0] == 413:
            self._limit *= 2
            with contextlib.suppress(_CutError):
                while not self._ended:
                    await self._next()

    async def _next(self) -> Any:
        if self._ended:
            return await self._receive()  # for the end of the connection: that may take long
        seconds = min(IDLE_SECONDS, self._until - time.monotonic())
        try:
            message = await asyncio.wait_for(self._receive(), max(seconds, 0.0))
        except TimeoutError:
            self.refusal = 408, "expected the body of the request sooner"
            raise _CutError from None
        self._size += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        if self._size > self._limit:
            self.refusal = 413, _too_large(self._limit)
            raise _CutError
        return message


def _too_large(limit: int) -> str:
    return f"expected a request below the maximum allowed size of {limit // 2**20} MB"


async def _answer(
    scope: Any, receive: Any, send: Any, status: int, text: str, more: dict[str, str] | None = None
) -> None:
    """Answer by a line of text and end the connection, whatever else is still to come on it."""
    response = PlainTextResponse(text, status, {"connection": "close", **(more or {})})
    await response(scope, receive, send)


def _guarded(headers: Any, secure: bool) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer: no other site may read, frame or have it."""
    kept = [
        (name, _strict(value, secure) if name == b"set-cookie" else value)
        for name, value in headers
        if not name.startswith(b"access-control-")
    ]
    return kept + _HEADERS


def _strict(cookie: bytes, secure: bool) -> bytes:
    """Return a cookie that browsers send from this page alone, and only encrypted where it is."""
    name, *rest = (part.strip() for part in cookie.split(b";"))
    kept = [part for part in rest if not part.lower().startswith((b"samesite", b"secure"))]
    return b"; ".join([name, *kept, b"SameSite=Strict", *([b"Secure"] if secure else [])])
