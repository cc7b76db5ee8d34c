"""Workers that are wrong when something goes wrong: junk, lost links, missing files, pings in between."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from orbtrio.conformance.model import Role
from orbtrio.conformance.simulation import Crashed
from orbtrio.conformance.zoo.mutants import mutant
from orbtrio.conformance.zoo.worker import BadInput, ModelWorker, paths_in

if TYPE_CHECKING:
    from wsproto.events import Ping

__all__: list[str] = []


@mutant("worker-dies-on-junk", kills=("ORB-WRK-09",), role=Role.WORKER)
class DiesOnJunk(ModelWorker):
    """A message that is no CBOR ends the process."""

    def on_junk(self) -> None:
        raise Crashed("cannot decode")


@mutant("worker-deaf-after-junk", kills=("ORB-WRK-09",), role=Role.WORKER)
class DeafAfterJunk(ModelWorker):
    """Its reader ends with the first message that makes no sense; the link stays open."""

    deaf = False

    def on_junk(self) -> None:
        self.deaf = True

    def on_message(self, data: bytes) -> None:
        if not self.deaf:
            super().on_message(data)


@mutant("worker-hangs-up-on-junk", kills=("ORB-WRK-09",), role=Role.WORKER)
class HangsUpOnJunk(ModelWorker):
    """Drops its link, and every job in it, when a message makes no sense."""

    def on_junk(self) -> None:
        self.link.close()
        self.lose()


@mutant("worker-never-comes-back", kills=("ORB-WRK-10",), role=Role.WORKER)
class NeverComesBack(ModelWorker):
    """Stays away once its link is lost."""

    def lose(self) -> None:
        self.connected = False
        self.forget()


@mutant("worker-hot-loop", kills=("ORB-WRK-10",), role=Role.WORKER)
class HotLoop(ModelWorker):
    """Connects again at once, as often as it takes."""

    def wait_seconds(self, links: int) -> float:
        return 0.001


@mutant("worker-constant-wait", kills=("ORB-WRK-10",), role=Role.WORKER)
class ConstantWait(ModelWorker):
    """Waits for two seconds before each attempt, and for all its life."""

    def wait_seconds(self, links: int) -> float:
        return 2.0


@mutant("worker-waits-for-minutes", kills=("ORB-WRK-10",), role=Role.WORKER)
class WaitsForMinutes(ModelWorker):
    """Its waits grow tenfold, without a limit."""

    def wait_seconds(self, links: int) -> float:
        return float(self.first_wait * 10 ** (links - 1))


@mutant("worker-registers-anew", kills=("ORB-WRK-11",), role=Role.WORKER)
class RegistersAnew(ModelWorker):
    """Comes back with the default batch size."""

    def registration(self) -> dict[str, Any]:
        message = super().registration()
        if self.links > 1:
            message["worker_config"]["max_batch_size"] = 32
        return message


@mutant("worker-old-answers", kills=("ORB-WRK-12",), role=Role.WORKER)
class OldAnswers(ModelWorker):
    """Answers on the new link what it was asked on the old one."""

    def forget(self) -> None:
        if self.batches:
            self.host.call_at(self.host.now() + 1.0, self.repeat)

    def repeat(self) -> None:
        if self.connected and self.batches:
            self.finish()

    def finish(self) -> None:
        if self.connected and self.batches:
            super().finish()


@mutant("worker-dies-on-missing-file", kills=("ORB-WRK-13",), role=Role.WORKER)
class DiesOnMissingFile(ModelWorker):
    """A file that is not there ends the process."""

    def read(self, path: str) -> bytes:
        try:
            return super().read(path)
        except BadInput as bad:
            raise Crashed(str(bad)) from bad


@mutant("worker-makes-up-missing-file", kills=("ORB-WRK-13",), role=Role.WORKER)
class MakesUpMissingFile(ModelWorker):
    """Takes a file that is not there for an empty one, and answers by a result."""

    def read(self, path: str) -> bytes:
        return Path(path).read_bytes() if Path(path).is_file() else b""


@mutant("worker-deaf-to-pings", kills=("ORB-WRK-14",), role=Role.WORKER)
class DeafToPings(ModelWorker):
    """Computes where it should read: a ping is answered when the batch is done."""

    def on_ping(self, ping: Ping) -> None:
        if self.computing is None:
            super().on_ping(ping)
        else:
            self.host.call_at(self.host.now() + 0.1, lambda: self.on_ping(ping))


@mutant("worker-deletes-files", kills=("ORB-WRK-15",), role=Role.WORKER)
class DeletesFiles(ModelWorker):
    """Tidies up behind itself: deletes what it has read."""

    def answer(self, job: dict[str, Any]) -> dict[str, Any]:
        entry = super().answer(job)
        if isinstance(job.get("input"), dict):
            for path in paths_in(job["input"]):
                if Path(path).is_file():
                    Path(path).unlink()
        return entry


@mutant("worker-writes-files", kills=("ORB-WRK-15",), role=Role.WORKER)
class WritesFiles(ModelWorker):
    """Scales pictures in place."""

    def read(self, path: str) -> bytes:
        content = super().read(path)
        Path(path).write_bytes(content[: len(content) // 2])
        return content
