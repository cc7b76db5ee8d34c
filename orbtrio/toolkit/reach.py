"""Whom a request may reach that somebody else's job makes us send.

We stand where the job's author may not: beside the engine, inside a network, on a machine of a cloud whose
metadata service gives away keys to whoever asks. So:

- where the operator lists hosts, these and no others;
- where not, any host, since engines work on what lies anywhere;
- in both cases no link-local, multicast or unspecified address and no metadata service, whatever name led
  there. Only an operator who lists such an address itself gets it;
- never what was named by `Reach.close_off`: our own webhooks, where engines keep keys, and the ORB engine.
  Those trust who calls from this machine more than a job's author.

Names are looked up here, and the address that was checked is the one that is connected to, so that a name
server that changes its mind in between gains nothing.

Rejected: forbidding private addresses. The engine, the work source and the files of most installations have
such; whoever must keep jobs away from some of them has the list.
"""

from __future__ import annotations

import ipaddress
import socket
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import httpcore2
import trio

from orbtrio.errors import OrbError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["CONNECT", "CheckedNetwork", "NotAllowed", "Reach"]

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

# A host that is there accepts at once. Seconds, for the name and all of its addresses.
CONNECT: Final = 10.0

# Metadata services that are not link-local: Alibaba, Azure, Oracle; AWS and Google by IPv6.
_METADATA: Final = frozenset(
    ipaddress.ip_address(address)
    for address in ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
)
# Linux takes all of the first for this machine; the second embeds IPv4 addresses.
_THIS_NETWORK: Final = ipaddress.ip_network("0.0.0.0/8")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_BROADCAST: Final = ipaddress.ip_address("255.255.255.255")


class NotAllowed(OrbError):
    """A request would reach what no job may reach; the text names the host."""


class Reach:
    """The rule.

    Args:
        allowed_hosts: Patterns such as ``*.example.com``, for names and addresses as URLs have them, without
            a port; none for the default rule.
    """

    def __init__(self, allowed_hosts: Sequence[str] = ()) -> None:
        self._patterns = tuple(pattern.lower() for pattern in allowed_hosts)
        self._closed: set[tuple[str, int]] = set()

    def close_off(self, host: str, port: int) -> None:
        """Let nobody reach a port, by whatever name or address its host has.

        Args:
            host: An address that is listened at, also one that stands for all, or a name.
            port: Its port.
        """
        self._closed.add((host, port))

    def closed_hosts(self, port: int) -> list[str]:
        """Hosts at which this port is closed off."""
        return [host for host, closed in self._closed if closed == port]

    def check_host(self, host: str) -> None:
        """Pass a host as a URL has it.

        Raises:
            NotAllowed: it may not be asked.
        """
        if self._patterns:
            name = host.lower().rstrip(".")
            if not any(fnmatchcase(name, pattern) for pattern in self._patterns):
                raise NotAllowed(f"{host} is not one of the allowed hosts")
        elif (address := _literal(host)) is not None:
            self.check_address(address, host)

    def check_address(self, address: _Address, host: str) -> None:
        """Pass an address that a host's name leads to.

        Raises:
            NotAllowed: it may not be connected to.
        """
        if _is_forbidden(address) and not (self._patterns and _literal(host)):
            raise NotAllowed(f"{host} leads to {address}, which no job may reach")


class CheckedNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that have been checked, and to no names."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._network = httpcore2.TrioBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  (httpcore2's)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address that accepts.

        Raises:
            NotAllowed: one of the name's addresses is forbidden; none has been tried.
            httpcore2.ConnectError: none accepts.
            httpcore2.ConnectTimeout: none accepts in time.
        """
        error: Exception = httpcore2.ConnectTimeout(host)
        with trio.move_on_after(CONNECT if timeout is None else timeout):
            addresses = await self._addresses(host, port)
            everywhere = await self._check_closed(host, addresses, port)
            for address in addresses:
                try:
                    stream = await self._network.connect_tcp(
                        address, port, None, local_address, socket_options
                    )
                except httpcore2.ConnectError as failed:
                    error = failed
                    continue
                if everywhere and _leads_here(stream):
                    await stream.aclose()
                    raise _closed_off(host, port)
                return stream
        raise error

    # Whether it is also closed at all addresses of this machine, which only a connection can tell.
    async def _check_closed(self, host: str, addresses: list[str], port: int) -> bool:
        everywhere = False
        wanted = {ipaddress.ip_address(address) for address in addresses}
        for closed in self._reach.closed_hosts(port):
            own = {ipaddress.ip_address(address) for address in await _lookup(closed, port)}
            here = any(address.is_loopback for address in own)
            if wanted & own or (here and any(address.is_loopback for address in wanted)):
                raise _closed_off(host, port)
            everywhere = everywhere or any(address.is_unspecified for address in own)
        return everywhere

    # All of them are checked: a name that leads to a forbidden one as well was not made in good faith.
    async def _addresses(self, host: str, port: int) -> list[str]:
        addresses = await _lookup(host, port)
        for address in addresses:
            self._reach.check_address(ipaddress.ip_address(address), host)
        return addresses


async def _lookup(host: str, port: int) -> list[str]:
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore2.ConnectError(error) from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _leads_here(stream: httpcore2.AsyncNetworkStream) -> bool:
    ours, theirs = (stream.get_extra_info(name) for name in ("client_addr", "server_addr"))
    return bool(ours[0] == theirs[0] or ipaddress.ip_address(theirs[0]).is_loopback)


def _closed_off(host: str, port: int) -> NotAllowed:
    return NotAllowed(f"{host}:{port} is the toolkit or its ORB engine, which no job may reach")


def _literal(host: str) -> _Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_forbidden(address: _Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        embedded = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            embedded = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if embedded is not None:
            return _is_forbidden(embedded)
    return (
        address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address in _METADATA
        or address in _THIS_NETWORK
        or address == _BROADCAST
    )
