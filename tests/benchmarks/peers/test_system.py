"""What is not installed is named together with the command that installs it."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.peers.servers import ServerFailed, Servers
from benchmarks.peers.system import Asked, Setting, System, versions
from benchmarks.peers.systems import PEERS, REFERENCES, SYSTEMS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.peers.system import Ask


@contextlib.contextmanager
def serve(servers: Servers, setting: Setting) -> Iterator[Ask]:
    del servers, setting
    yield from ()


def made_of(packages: Sequence[str], programs: Mapping[str, str]) -> System:
    return System(
        name="some",
        serve=serve,
        asked=Asked.CLIENT,
        settings={Setting.THROUGHPUT: "some"},
        packages=packages,
        programs=programs,
    )


def test_missing_packages_are_told_first() -> None:
    system = made_of(["attrs", "no-such-thing"], {"no-such-program": "no-such-package"})
    assert str(system.missing()) == "no-such-thing not installed; pip install no-such-thing"


def test_missing_programs_are_told_by_their_package() -> None:
    system = made_of(["attrs"], {"no-such-program": "no-such-package"})
    assert str(system.missing()) == "no-such-package not installed; apt-get install no-such-package"


def test_versions_of_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "served"
    program.write_text("#!/bin/sh\necho Served server v=7.0.15 sha=0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    system = made_of(["attrs"], {"served": "served-package"})
    assert system.missing() is None
    assert versions(system)["served"] == "7.0.15"
    assert set(versions(system)) == {"attrs", "served"}


def test_every_peer_has_settings_for_throughput_and_something_to_be_compared_with() -> None:
    assert len(SYSTEMS) == len(PEERS) + len(REFERENCES)
    for peer in PEERS:
        assert next(iter(peer.settings)) is Setting.THROUGHPUT
        assert [reference.asked for reference in REFERENCES].count(peer.asked) == 1


def test_every_version_that_is_shown_is_pinned_or_comes_with_one_that_is() -> None:
    requirements = Path(__file__).parents[3] / "benchmarks" / "peers" / "requirements.txt"
    pinned = requirements.read_text()
    for peer in PEERS:
        first = peer.packages[0]
        assert f"\n{first}==" in pinned or f"\n{first}[" in pinned


def test_a_server_that_falls_is_told_with_its_last_words(tmp_path: Path) -> None:
    servers = Servers(tmp_path)
    servers.start((sys.executable, "-c", "import sys; sys.exit('no room for a server')"))
    with pytest.raises(ServerFailed, match="no room for a server"):
        servers.wait_until(lambda: False, lambda: "not ready")


def test_patience_with_a_server_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.peers.servers._START_TIMEOUT", 0.0)
    with pytest.raises(ServerFailed, match="not ready after 0 s"):
        Servers(tmp_path).wait_until(lambda: False, lambda: "not ready")
