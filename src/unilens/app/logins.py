"""A growing wait between failed logins."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds after the first failed login, and at most: each failure doubles them."""
MAX_CLIENTS = 1000
_FORGOTTEN_AFTER = 3600.0


class Logins:
    """Counts failed logins by the address that they come from.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait(self, address: str) -> float:
        """Return for how many seconds an address has to wait; 0 where it may try."""
        _, until = self._failures.get(_network(address), (0, 0.0))
        return max(until - self._clock(), 0.0)

    def begin(self, address: str) -> None:
        """Count a login as failed until it succeeds: several at once are several failures."""
        key, now = _network(address), self._clock()
        count, until = self._failures.pop(key, (0, now))
        count = 0 if now - until > _FORGOTTEN_AFTER else count
        wait = min(FIRST_WAIT * 2 ** min(count, 20), LONGEST_WAIT)
        self._failures[key] = (count + 1, now + wait)
        if len(self._failures) > MAX_CLIENTS:
            self._failures.popitem(last=False)

    def succeed(self, address: str) -> None:
        """Forget the failures of an address."""
        self._failures.pop(_network(address), None)


def _network(address: str) -> str:
    """Return what one visitor has: an IPv4 address, or an IPv6 network of 64 bits."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address
