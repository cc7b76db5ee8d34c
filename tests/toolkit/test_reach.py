from __future__ import annotations

import ipaddress
import socket
from typing import Any

import httpcore2
import pytest
import trio
import trio.testing

from orbtrio.toolkit.reach import CONNECT, CheckedNetwork, NotAllowed, Reach

FORBIDDEN = [
    "169.254.169.254",
    "169.254.0.1",
    "fe80::1",
    "fe80::1%lo",
    "224.0.0.1",
    "ff02::1",
    "0.0.0.0",
    "0.1.2.3",
    "::",
    "255.255.255.255",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd20:ce::254",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
]
ALLOWED = ["127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "93.184.216.34", "2606:4700::1111", "fd00::1"]


class Names:
    """A name server of a test's own, and who was connected to."""

    def __init__(self, **names: list[str]) -> None:
        self._names = names
        self.connected: list[str] = []

    async def getaddrinfo(self, host: Any, port: Any, *rest: Any, **options: Any) -> list[Any]:
        if host not in self._names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(0, 0, 0, "", (address, port)) for address in self._names[host]]

    async def connect_tcp(self, host: str, port: int, *rest: Any) -> Any:
        self.connected.append(host)
        if host.startswith("10."):
            raise httpcore2.ConnectError(host)
        if host.startswith("11."):
            await trio.sleep_forever()
        return host


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names(
        good=["127.0.0.1"],
        evil=["169.254.169.254"],
        both=["93.184.216.34", "169.254.169.254"],
        second=["10.0.0.1", "10.0.0.2", "93.184.216.34"],
        dead=["10.0.0.1"],
        silent=["11.0.0.1"],
    )
    monkeypatch.setattr(trio.socket, "getaddrinfo", names.getaddrinfo)
    monkeypatch.setattr(
        httpcore2.TrioBackend, "connect_tcp", lambda self, *arguments: names.connect_tcp(*arguments)
    )
    return names


@pytest.mark.parametrize("address", FORBIDDEN)
def test_some_addresses_are_for_no_job(address: str) -> None:
    with pytest.raises(NotAllowed, match="which no job may reach"):
        Reach().check_host(address)
    for reach in (Reach(), Reach(["*.example.com"])):
        with pytest.raises(NotAllowed, match=r"a\.example\.com leads to"):
            reach.check_address(ipaddress.ip_address(address), "a.example.com")


@pytest.mark.parametrize("address", ALLOWED)
def test_without_a_list_other_addresses_may_be_reached(address: str) -> None:
    Reach().check_host(address)
    Reach().check_address(ipaddress.ip_address(address), "whatever")


@pytest.mark.parametrize(
    "host", ["a.example.com", "A.Example.COM", "a.b.example.com", "a.example.com.", "files"]
)
def test_listed_hosts_may_be_reached(host: str) -> None:
    Reach(["*.EXAMPLE.com", "files"]).check_host(host)


@pytest.mark.parametrize(
    "host", ["example.com", "aexample.com", "a.example.com.evil.org", "files.evil.org", "127.0.0.1", ""]
)
def test_with_a_list_nobody_else_may_be_reached(host: str) -> None:
    with pytest.raises(NotAllowed, match="not one of the allowed hosts"):
        Reach(["*.example.com", "files"]).check_host(host)


def test_an_address_that_is_listed_itself_is_meant() -> None:
    reach = Reach(["169.254.1.*", "*.local"])
    reach.check_host("169.254.1.2")
    reach.check_address(ipaddress.ip_address("169.254.1.2"), "169.254.1.2")
    with pytest.raises(NotAllowed):
        reach.check_address(ipaddress.ip_address("169.254.1.2"), "camera.local")


async def test_the_checked_address_is_connected_to_and_not_the_name(names: Names) -> None:
    assert str(await CheckedNetwork(Reach()).connect_tcp("good", 80)) == "127.0.0.1"
    assert names.connected == ["127.0.0.1"]


@pytest.mark.parametrize("host", ["evil", "both"])
@pytest.mark.parametrize("patterns", [[], ["*"]])
async def test_a_name_that_leads_to_a_forbidden_address_is_not_connected_to(
    names: Names, host: str, patterns: list[str]
) -> None:
    with pytest.raises(NotAllowed, match=f"{host} leads to 169.254.169.254"):
        await CheckedNetwork(Reach(patterns)).connect_tcp(host, 80)
    assert names.connected == []


async def test_addresses_are_tried_in_their_order(names: Names) -> None:
    assert str(await CheckedNetwork(Reach()).connect_tcp("second", 80)) == "93.184.216.34"
    assert names.connected == ["10.0.0.1", "10.0.0.2", "93.184.216.34"]


@pytest.mark.parametrize("host", ["dead", "unknown"])
async def test_who_is_not_there_is_a_connect_error(names: Names, host: str) -> None:
    with pytest.raises(httpcore2.ConnectError):
        await CheckedNetwork(Reach()).connect_tcp(host, 80)


@pytest.mark.parametrize(("given", "expected"), [(3.0, 3.0), (None, CONNECT)])
async def test_who_does_not_answer_is_given_up(
    names: Names, autojump_clock: trio.testing.MockClock, given: float | None, expected: float
) -> None:
    began = trio.current_time()
    with pytest.raises(httpcore2.ConnectTimeout):
        await CheckedNetwork(Reach()).connect_tcp("silent", 80, given)
    assert trio.current_time() - began == pytest.approx(expected)


@pytest.mark.parametrize(
    ("closed", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        ("127.0.0.1", "127.1.2.3"),
        ("127.0.0.1", "::1"),
        ("93.184.216.34", "93.184.216.34"),
    ],
)
async def test_ports_of_our_own_are_for_no_job(
    monkeypatch: pytest.MonkeyPatch, names: Names, closed: str, host: str
) -> None:
    addresses = {
        "localhost": ["127.0.0.1"],
        **{each: [each] for each in ("127.0.0.1", "::1", "127.1.2.3", "93.184.216.34")},
        "other": ["93.184.216.35"],
    }
    monkeypatch.setattr(trio.socket, "getaddrinfo", Names(**addresses).getaddrinfo)
    reach = Reach([host, "other"])
    reach.close_off(closed, 8889)
    with pytest.raises(NotAllowed, match="8889 is the toolkit or its ORB engine"):
        await CheckedNetwork(reach).connect_tcp(host, 8889)
    assert names.connected == []
    await CheckedNetwork(reach).connect_tcp(host, 8888)
    await CheckedNetwork(reach).connect_tcp("other", 8889)


async def test_a_port_that_is_listened_at_everywhere_is_closed_at_every_address_of_this_machine() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    reach = Reach()
    reach.close_off("0.0.0.0", port)
    async with listener:
        with pytest.raises(NotAllowed, match="which no job may reach"):
            await CheckedNetwork(reach).connect_tcp("127.0.0.1", port)
        # It was told nothing.
        async with await listener.accept() as accepted:
            assert await accepted.receive_some() == b""


async def test_a_port_that_is_listened_at_everywhere_is_open_elsewhere(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stream:
        def get_extra_info(self, name: str) -> tuple[str, int]:
            return {"client_addr": ("192.168.1.1", 1), "server_addr": ("93.184.216.34", 2)}[name]

    async def connect_tcp(*_: Any) -> Stream:
        return Stream()

    addresses = {"0.0.0.0": ["0.0.0.0"], "there": ["93.184.216.34"]}
    monkeypatch.setattr(trio.socket, "getaddrinfo", Names(**addresses).getaddrinfo)
    monkeypatch.setattr(names, "connect_tcp", connect_tcp)
    reach = Reach()
    reach.close_off("0.0.0.0", 2)
    assert isinstance(await CheckedNetwork(reach).connect_tcp("there", 2), Stream)
