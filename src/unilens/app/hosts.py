"""Under which names the page answers, and which pages may call it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import require

_LOCAL = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(:\d{1,5})?")


@dataclass(frozen=True)
class Hosts:
    """The names of the page: a site whose name is made to point here (DNS rebinding) has none.

    Attributes:
        names: in lower case, without a port.
        public: names with their ports, as browsers see them before a proxy.
        any_address: whether every numeric address is a name: no site can be called by one.
    """

    names: frozenset[str]
    public: frozenset[str] = frozenset()
    any_address: bool = False

    @classmethod
    def of(cls, listening: str, more: Sequence[str] = ()) -> Hosts:
        """Return the names of a page.

        Args:
            listening: address on which it listens.
            more: further names, such as "page.example" or "page.example:8443".

        Raises:
            UnilensError: a name is none of a host.
        """
        public = [name.lower() for name in more]
        for name in public:
            require(
                _HOST.fullmatch(name) is not None,
                f"expected the name of a host, such as page.example, got {name!r}",
            )
        listening = listening.lower()
        own = f"[{listening}]" if ":" in listening and listening[0] != "[" else listening
        names = {*_LOCAL, own, *(_without_port(name) for name in public)}
        return cls(frozenset(names), frozenset(public), own in ("0.0.0.0", "[::]", ""))  # noqa: S104

    def know(self, host: str) -> bool:
        """Return whether the page answers under a name, as the header `Host` says it."""
        host = host.lower()
        if not _HOST.fullmatch(host):
            return False
        name = _without_port(host)
        return name in self.names or (self.any_address and _is_address(name))

    def allow(self, origin: str, host: str) -> bool:
        """Return whether a page may call this one.

        Args:
            origin: of the calling page, as the header `Origin` says it.
            host: under which it calls this one, as the header `Host` says it.
        """
        scheme, separator, name = origin.lower().partition("://")
        known = name == host.lower() or name in self.public
        return scheme in ("http", "https") and bool(separator) and known


def _without_port(host: str) -> str:
    return re.sub(r":\d+$", "", host)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
