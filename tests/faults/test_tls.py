"""TLS that stalls, is garbage, ends half-way, or that one side has no reason to trust: F-45."""

from __future__ import annotations

import datetime
import logging
import math
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

import orbtrio
from orbtrio.errors import ConnectionLost
from orbtrio.worker import run_worker
from orbtrio.worker.settings import WorkerSettings
from tests.faults.proxy import reset
from tests.processes.harness import SECRET, ended, read_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.report import Figures

pytestmark = [pytest.mark.processes, pytest.mark.timeout(60)]


def client_hello() -> bytes:
    """The first bytes of a TLS client that means it."""
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def certificates(
    tmp_path: Path, authority: trustme.CA, expires_at: datetime.datetime | None = None
) -> dict[str, str]:
    """Settings of an engine with a certificate for localhost."""
    issued = authority.issue_cert("localhost", "127.0.0.1", not_after=expires_at)
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(chain)
    issued.private_key_pem.write_to_path(key)
    return {"ORB_TLS_CERTIFICATE": str(chain), "ORB_TLS_KEY": str(key)}


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """What a client needs that trusts one authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@contextmanager
def secured_engine(
    tmp_path: Path, authority: trustme.CA, expires_at: datetime.datetime | None = None
) -> Iterator[tuple[int, str]]:
    """An engine that speaks TLS and gives a handshake one second: its port and its address. I7, I10."""
    process = subprocess.Popen(
        [sys.executable, "-m", "orbtrio.engine"],
        env={
            **os.environ,
            "XDG_DATA_HOME": str(tmp_path),
            "SERVER_PORT": "0",
            "WORKER_SECRET": SECRET,
            "WORKER_TYPES": "*",
            "ORB_HANDSHAKE_TIMEOUT": "1",
            "LOG_LEVEL": "warn",
            **certificates(tmp_path, authority, expires_at),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with ended(process):
        found = re.fullmatch(r"listening on wss://127.0.0.1:(\d+)/ws\n", read_line(process))
        assert found
        yield int(found[1]), f"wss://localhost:{found[1]}/ws"
        assert process.poll() is None
        process.terminate()
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 0
        assert errors == ""


async def one_job(url: str, context: ssl.SSLContext) -> None:
    """A worker and a client of ours, one job."""
    settings = WorkerSettings(worker_type="echo", worker_secret=SECRET, server_url=url, max_latency=0.01)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(run_worker, lambda job: {"echo": job}, settings, ssl_context=context))
        async with orbtrio.connect(url, ssl_context=context) as client:
            assert (await client.submit("echo", {"n": 1}, timeout=10))["echo"] == {"n": 1}
        nursery.cancel_scope.cancel()


async def test_f45_handshakes_that_stall_or_break_leave_the_others_alone(
    tmp_path: Path, figure: Figures
) -> None:
    authority = trustme.CA()
    hello = client_hello()
    with secured_engine(tmp_path, authority) as (port, url):
        stalled: list[socket.socket] = []
        for beginning in (b"", hello[:1], hello[: len(hello) // 2], hello):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.sendall(beginning)
            stalled.append(sock)
        began = time.monotonic()
        for garbage in (
            bytes(range(256)) * 8,
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"\x16\x03\x01\xff\xff",
        ):
            for _ in range(20):
                sock = socket.create_connection(("127.0.0.1", port))
                sock.sendall(garbage)
                reset(sock)
        for cut in range(0, len(hello), 16):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.sendall(hello[:cut])
            reset(sock)
        await one_job(url, trusting(authority))
        served = time.monotonic() - began
        for sock in stalled:
            sock.settimeout(5)
            while sock.recv(1 << 16):
                pass
            sock.close()
        dropped = time.monotonic() - began
        figure(
            "F-45",
            "I7 I10",
            f"{60 + math.ceil(len(hello) / 16)} broken handshakes: a job beside them {served:.2f} s; "
            f"stalled ones dropped after {dropped:.2f} s",
            "1 s (timeout)",
        )
        assert 0.9 < dropped < 2


async def complaint(
    caplog: pytest.LogCaptureFixture, url: str, context: ssl.SSLContext, word: str
) -> tuple[str, float]:
    """What a worker of ours logs that has no link, and after how many seconds."""
    settings = WorkerSettings(worker_type="echo", worker_secret=SECRET, server_url=url)
    caplog.clear()
    began = time.monotonic()
    async with trio.open_nursery() as attempts:
        attempts.start_soon(partial(run_worker, lambda job: job, settings, ssl_context=context))
        with trio.fail_after(20):
            while not (said := [text for text in caplog.messages if word in text]):  # noqa: ASYNC110  (a log has no event)
                await trio.sleep(0.01)
        took = time.monotonic() - began
        attempts.cancel_scope.cancel()
    return said[0].partition("/ws: ")[2], took


@pytest.mark.parametrize("what", ["unknown authority", "expired"])
async def test_f45_peers_that_cannot_trust_the_engine_say_why(
    tmp_path: Path, figure: Figures, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """A worker logs it and tries again; a client tries again until its time to connect is over."""
    authority = trustme.CA()
    expires_at, trusted, word = {
        "unknown authority": (None, trustme.CA(), "unable to get local issuer"),
        "expired": (
            datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1),
            authority,
            "certificate has expired",
        ),
    }[what]
    with secured_engine(tmp_path, authority, expires_at) as (_, url):
        _, took = await complaint(caplog, url, trusting(trusted), word)
        with pytest.raises(ConnectionLost, match=word):
            async with orbtrio.connect(
                url, ssl_context=trusting(trusted), limits=orbtrio.ClientLimits(connect_timeout=1)
            ):
                pytest.fail("connected")
    figure("F-45", "I7 I10", f"{what}: worker logs why after {took:.2f} s", "< 5 s")
    assert took < 5


async def test_f45_a_worker_without_a_client_certificate_is_told_to_check_that(
    tmp_path: Path, figure: Figures, caplog: pytest.LogCaptureFixture
) -> None:
    """An engine inside a program, behind a TLS listener of its own that asks for certificates."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    config = orbtrio.Config(worker_secret=SECRET, worker_types=("echo",), xdg_data_home=tmp_path)
    async with orbtrio.open_engine(config, listen=False) as engine, trio.open_nursery() as nursery:
        listeners = await trio.open_ssl_over_tcp_listeners(0, server, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, engine.handle, listeners)
        assert isinstance(listeners[0].transport_listener, trio.SocketListener)
        url = f"wss://localhost:{listeners[0].transport_listener.socket.getsockname()[1]}/ws"
        none = trusting(authority)
        _, took = await complaint(caplog, url, none, "client certificate")
        foreign = trusting(authority)
        trustme.CA().issue_cert("worker").configure_cert(foreign)
        _, took_foreign = await complaint(caplog, url, foreign, "client certificate")
        good = trusting(authority)
        authority.issue_cert("worker").configure_cert(good)
        caplog.clear()
        await one_job(url, good)
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
        nursery.cancel_scope.cancel()
    figure(
        "F-45",
        "I7 I10",
        f"no client certificate: hint in the log after {took:.2f} s; a foreign one: {took_foreign:.2f} s",
        "< 5 s",
    )
    assert max(took, took_foreign) < 5
