"""Addresses, both families of localhost, and TLS files, on real sockets."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from orbtrio.engine.listeners import listener_url, open_listeners, peer_address, tls_context
from orbtrio.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


async def close(listeners: list[trio.SocketListener]) -> None:
    for listener in listeners:
        await listener.aclose()


def without_ipv6(monkeypatch: pytest.MonkeyPatch, code: int) -> list[trio.SocketListener]:
    """Have the second family fail; returns what is opened nevertheless."""
    opened: list[trio.SocketListener] = []
    really_open = trio.open_tcp_listeners

    async def open_tcp_listeners(port: int, *, host: str) -> list[trio.SocketListener]:
        if host == "::1":
            raise OSError(code, "no")
        opened.extend(await really_open(port, host=host))
        return list(opened)

    monkeypatch.setattr(trio, "open_tcp_listeners", open_tcp_listeners)
    return opened


async def test_localhost_is_both_families_at_one_port() -> None:
    """F-46: a peer may resolve the name to either."""
    listeners = await open_listeners("localhost", 0)
    urls = [listener_url(listener, tls=False) for listener in listeners]
    port = urls[0].rpartition(":")[2]
    assert urls == [f"ws://127.0.0.1:{port}", f"ws://[::1]:{port}"][: len(urls)]
    await close(listeners)


@pytest.mark.parametrize("code", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
async def test_machine_without_ipv6_listens_on_the_other_family(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    without_ipv6(monkeypatch, code)
    listeners = await open_listeners("localhost", 0)
    assert len(listeners) == 1
    await close(listeners)


async def test_port_taken_in_one_family_only_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """F-42: and nothing is left open."""
    opened = without_ipv6(monkeypatch, errno.EADDRINUSE)
    with pytest.raises(OSError, match="no"):
        await open_listeners("localhost", 0)
    assert [listener.socket.fileno() for listener in opened] == [-1]


async def test_one_address_alone() -> None:
    listeners = await open_listeners("127.0.0.1", 0)
    assert len(listeners) == 1
    assert listener_url(listeners[0], tls=True).startswith("wss://127.0.0.1:")
    await close(listeners)


async def test_address_of_the_peer_is_read_while_there_is_one() -> None:
    """B-02: the system has none for a peer that is gone."""
    (listener,) = await open_listeners("127.0.0.1", 0)
    host, port = listener.socket.getsockname()
    stream = await trio.open_tcp_stream(host, port)
    accepted = await listener.accept()
    assert peer_address(accepted) == f"127.0.0.1:{stream.socket.getsockname()[1]}"
    await stream.aclose()
    await accepted.aclose()
    assert peer_address(accepted) is None
    await listener.aclose()


def test_tls_files(tmp_path: Path) -> None:
    assert tls_context(None, None) is None
    certificate = trustme.CA().issue_cert("localhost")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(chain)
    certificate.private_key_pem.write_to_path(key)
    assert tls_context(chain, key) is not None
    with pytest.raises(ConfigError, match="ORB_TLS_CERTIFICATE"):
        tls_context(tmp_path / "missing.pem", key)
    with pytest.raises(ConfigError, match="ORB_TLS_KEY"):
        tls_context(chain, chain)
