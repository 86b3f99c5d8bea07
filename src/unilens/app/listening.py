"""The server of the page: where it listens, and how long it waits for a visitor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import UnilensError

HEAD_SECONDS = 15.0
"""Within which the head of a request must arrive, also on a connection that is kept open."""
MAX_CONNECTIONS = 400
"""At once; the page keeps two open for each visitor."""
_START_SECONDS, _CLOSE_SECONDS = 60.0, 3


class Listener:
    """An address of this machine that is listened on; `port` is 0 for a free one.

    Raises:
        UnilensError: the port is taken, or the address is none of this machine.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host.strip("[]")
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                self._host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self.socket = socket.socket(family, kind, protocol)
            if os.name == "posix":  # elsewhere it means that others may take the port
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind(address)
            self.socket.listen()
        except (OSError, UnicodeError):
            raise UnilensError(
                f"could not listen on {host}:{port}: it is taken, or no "
                "address of this machine; choose another --port or --host"
            ) from None

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    @property
    def address(self) -> str:
        """The address for a browser on this machine."""
        host = "localhost" if self._host in ("", "0.0.0.0", "::") else self._host  # noqa: S104
        name = f"[{host}]" if ":" in host else host
        return f"http://{name}:{self.socket.getsockname()[1]}/"


class Server(uvicorn.Server):
    """Serves an application in a thread; gradio closes it."""

    def __init__(self, app: Any) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_Impatient,
                ws="none",
                lifespan="on",
                log_level="warning",
                proxy_headers=False,  # whoever is beside the proxy could write them
                server_header=False,
                limit_concurrency=MAX_CONNECTIONS,
                timeout_graceful_shutdown=_CLOSE_SECONDS,
            )
        )
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup(sockets)
        self._ready.set()

    def start(self, listener: Listener) -> None:
        """Serve from now on.

        Raises:
            UnilensError: the application does not start; the log says why.
        """

        def serve() -> None:
            with contextlib.suppress(SystemExit):
                self.run([listener.socket])

        self._thread = threading.Thread(target=serve, name="unilens-server", daemon=True)
        self._thread.start()
        if not self._ready.wait(_START_SECONDS) or not self.started:
            raise UnilensError("could not start the server of the page; its log says why")

    def close(self) -> None:
        """End all connections."""
        self.should_exit = True
        if self._thread is not None:
            self._thread.join(_CLOSE_SECONDS + 2)


class _Impatient(H11Protocol):
    """Ends a connection on which no head of a request arrives in time."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        self._wait()
        super().on_response_complete()
        if not self.cycle.response_complete:  # the next request was there already
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
