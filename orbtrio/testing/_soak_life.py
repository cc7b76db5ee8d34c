"""The life of an engine in a soak: epochs of work and faults, of healing, of rest."""

from __future__ import annotations

import gc
import random
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio

from orbtrio.testing._soak_faults import Faults
from orbtrio.testing._soak_machine import files_below
from orbtrio.testing._soak_stage import RARE, TYPES, SoakStage
from orbtrio.testing.clock import wait_until_idle

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.testing._soak_books import EventLog

__all__ = ["STATES", "Life", "Plan"]

# What a run of full size must have seen.
STATES: Final = (
    *("redelivery", "answered after redelivery", "late answer", "full batch", "partial batch by timer"),
    *("two open batches", "credit spent", "suspect sent alone", "key moved", "latency checked", "file read"),
    *("client lost with files", "client lost with jobs open", "timeout while a worker holds the job"),
    *(
        "poison job ended with worker_lost",
        "half-open found by ping",
        "stall outlived",
        "file with a large job",
    ),
    *("ended: timeout", "ended: queue_full", "ended: worker_lost", "ended: result_too_large"),
    *("ended: engine_stopped", "refused: invalid_job", "refused: unknown_worker_type"),
    *("engine drained", "engine crashed", "answered while the engine drained", "files checked", "silence"),
)

_FAULTS_PER_EPOCH: Final = 70
_PATIENCE: Final = 100.0
_TICK: Final = 10.0
_TELL: Final = 5.0  # seconds of real time between two lines of progress
_HOUR: Final = 3600.0
_COUNTED: Final = ("Job", "Batch", "Transport", "WorkerQueue", "RemoteClient", "HeldFile")


@attrs.frozen(kw_only=True)
class Plan:
    """How much of what."""

    seed: int
    jobs: int = 100_000
    faults: int = 10_000
    hours: float = 500.0
    seconds: float = 3600.0

    @property
    def epochs(self) -> int:
        return max(3, round(self.faults / _FAULTS_PER_EPOCH))

    @property
    def command(self) -> str:
        return (
            f"python -m orbtrio.testing.soak --jobs {self.jobs} --faults {self.faults} "
            f"--hours {self.hours:g} --seed {self.seed}"
        )


class Life:
    """One engine's life, epoch by epoch; see `soak`."""

    def __init__(self, plan: Plan, log: EventLog, directory: Path, nursery: trio.Nursery) -> None:
        self.plan = plan
        self.log = log
        self.rng = random.Random(plan.seed)
        self.stage = SoakStage(self.rng, log, directory, nursery)
        self.oracle = self.stage.oracle
        self.faults = Faults(self.stage)
        self.epoch = 0
        self.errors: list[str] = []
        self._baseline = 0
        self._is_left_to_sweep = False
        # Of other engines in this process, whatever keeps them alive.
        self._foreign = _count_objects()
        self._begun = time.monotonic()
        self._told = self._begun

    async def run(self) -> None:
        await self._start_engine()
        for epoch in range(self.plan.epochs):
            self.epoch = epoch
            gentle, rough = self.epoch % 10 == 2, self.epoch % 10 == 6
            await self._live_through()
            if gentle or rough:
                await self._stop_engine(gentle=gentle)
            else:
                await self._heal()
                await self._send_home()
            await self._check_rest()
            if gentle or rough:
                await self._start_engine()
            await self._rest()
        await self.stage.engine.stop(grace=0)

    async def _start_engine(self) -> None:
        await self.stage.start_engine()
        if left := files_below(self.stage.config.store_root):
            self.oracle.fail(f"a new engine listens, and has not swept {left}")
        self._baseline = trio.lowlevel.current_statistics().tasks_living

    # -------------------------------------------------------------------------------------- work and faults

    async def _live_through(self) -> None:
        rng, stage, left = self.rng, self.stage, self.plan.epochs - self.epoch
        self.oracle.note(f"epoch {self.epoch}")
        stage.active, stage.healing = True, False
        # In every third epoch the stock workers are left in peace: then their latency can be checked.
        stage.spared = frozenset({"stock"} if self.epoch % 3 == 1 else ())
        for place in range(rng.randint(2, 5)):
            stage.connect_client(engine_errors=place == 0 or rng.random() < 0.6)
        for place in range(rng.randint(8, 26)):
            stage.connect_worker(TYPES[place] if place < len(TYPES) else stage.draw_type())
        await trio.sleep(1)
        # Some epochs are longer than a job lives.
        length = rng.uniform(400, 700) if self.epoch % 4 == 3 else rng.uniform(60, 360)
        self._plan_jobs(length, max(1, -(-(self.plan.jobs - stage.jobs) // left)))
        for _ in range(max(1, -(-(self.plan.faults - stage.faults) // left))):
            stage.later(rng.uniform(0, length), self.faults.strike)
        end = trio.current_time() + length
        while trio.current_time() < end:
            await trio.sleep(min(_TICK, end - trio.current_time()))
            await self._look()

    def _plan_jobs(self, length: float, jobs: int) -> None:
        rng, stage = self.rng, self.stage
        if self.epoch % 10 == 8 and jobs >= 500:
            crowd = 1000 + rng.randint(1, 60)
            stage.later(rng.uniform(0, length), partial(self._submit, RARE, crowd))
            jobs -= crowd
        while jobs > 0:
            burst = min(jobs, rng.choice((1, 5, 20, 60, 150)))
            jobs -= burst
            at = rng.uniform(0, length)
            while burst > 0:
                count = min(burst, rng.choice((1, 1, 4, 10, 40)))
                burst -= count
                worker_type = RARE if rng.random() < 0.02 else stage.draw_type()
                stage.later(at, partial(self._submit, worker_type, count))
                at += rng.choice((0.0, 0.0, 0.01, 0.5))

    def _submit(self, worker_type: str, count: int) -> None:
        here = [client for client in self.stage.clients if client.usable and client.book.sound]
        if here:
            large = self.rng.random() < 0.03
            if large:
                self.oracle.count("file with a large job")
            self.stage.submit(self.rng.choice(here), worker_type, count, large=large)

    # ---------------------------------------------------------------------------------------- what must hold

    async def _look(self) -> None:
        await wait_until_idle()
        self.oracle.look()
        now = self.stage.engine.statistics()
        ends = now.answered + now.abandoned + sum(now.ended.values()) + now.open_jobs
        if now.accepted != ends:
            self.oracle.fail(f"{now.accepted} jobs were accepted, and {ends} are accounted for")
        self._check_files()
        self._check_errors()
        if time.monotonic() - self._told > _TELL:
            self._tell(now.open_jobs)

    def _check_files(self) -> None:
        if self.oracle.disk_trouble_at + 120 > self.oracle.now or self.stage.disk.stuck:
            return  # what could not be deleted is tried again after a minute at the latest
        must, may = self.oracle.files_wanted()
        there = {name.rpartition("-")[0] for name in files_below(self.stage.config.store_root)}
        if must - there:
            self.oracle.fail(f"files of open jobs are missing: {sorted(must - there)}")
        if there - may:
            self.oracle.fail(f"files are left of jobs that have ended: {sorted(there - may)}")
        self.oracle.count("files checked")

    def _check_errors(self) -> None:
        if self.errors:
            self.oracle.fail(f"the engine has logged an error:\n{self.errors[0]}")

    def _tell(self, open_jobs: int) -> None:
        self._told = time.monotonic()
        spent = self._told - self._begun
        if spent > self.plan.seconds:
            self.oracle.fail(f"it takes longer than {self.plan.seconds:g} s")
        jobs = self.stage.jobs
        print(
            f"{spent:5.0f} s: {trio.current_time() / _HOUR:6.1f} h, {jobs} jobs, {self.stage.faults} faults, "
            f"{jobs / spent:.0f} jobs/s, {open_jobs} open",
            flush=True,
        )

    # ----------------------------------------------------------------------------------------------- all well

    async def _heal(self) -> None:
        stage, oracle = self.stage, self.oracle
        oracle.note("all heals")
        stage.healing = True
        oracle.healed_at = trio.current_time()
        self.faults.repair_disk()
        for worker_type in (*TYPES, RARE):
            stage.connect_worker(worker_type)
        for peer in stage.peers:
            peer.link.heal()
        await trio.sleep(3)
        for peer in stage.peers:
            if peer.book.suspect:
                oracle.trust(peer.book)
        for worker in stage.workers:
            worker.answer_all()
        while True:
            await self._look()
            left = oracle.demand_progress(_PATIENCE)
            if not left and not stage.engine.statistics().open_jobs:
                break
            if trio.current_time() > oracle.healed_at + _PATIENCE:
                open_jobs = stage.engine.statistics().open_jobs
                oracle.fail(f"all is well, and {open_jobs} jobs are open still", left[0] if left else None)
            await trio.sleep(5)

    async def _send_home(self) -> None:
        self.stage.active = False
        for peer in self.stage.peers:
            self.oracle.doom(peer.book)
            self.stage.start(peer.close)
        await trio.sleep(5)

    async def _stop_engine(self, *, gentle: bool) -> None:
        stage, oracle = self.stage, self.oracle
        oracle.note("the engine is told to stop" if gentle else "the engine crashes")
        before = stage.engine.statistics().answered
        oracle.stopping_at = trio.current_time()
        stage.active = False
        if gentle:
            stage.later(1, lambda: self._submit(stage.draw_type(), 3))
            await stage.engine.stop()
        else:
            for peer in stage.peers:
                peer.cut()
            await stage.engine.stop(grace=0)
        oracle.count("engine drained" if gentle else "engine crashed")
        if gentle and stage.engine.statistics().answered > before:
            oracle.count("answered while the engine drained")
        for peer in stage.peers:
            peer.link.heal()
        # What a disk does not let go of while the engine stops, the next one sweeps.
        self._is_left_to_sweep = stage.disk.stuck
        self.faults.repair_disk()
        await trio.sleep(5)

    async def _check_rest(self) -> None:
        stage, oracle = self.stage, self.oracle
        stage.cancel_actions()
        await trio.sleep(70 if oracle.disk_trouble_at > trio.current_time() - 700 else 10)
        await wait_until_idle()
        self._check_errors()
        left = files_below(stage.config.store_root)
        if left and not self._is_left_to_sweep:
            oracle.fail(f"everybody has gone, and files are left: {left}")
        if stage.peers:
            oracle.fail(f"everybody was sent home, and some are left: {stage.peers}")
        for job in oracle.jobs.values():
            if not job.end:
                oracle.fail("everybody has gone, and it has no end", job)
            oracle.count("silence") if job.end == "silence" else None
        stopped = oracle.stopping
        tasks = trio.lowlevel.current_statistics().tasks_living
        if not stopped and tasks != self._baseline:
            oracle.fail(f"{tasks} tasks live, and {self._baseline} did when the engine was new")
        oracle.forget()
        stage.outages.clear()
        oracle.disk_slack = 0.0
        self._is_left_to_sweep = False
        if self.epoch % 10 == 0:
            self._check_objects()

    def _check_objects(self) -> None:
        if kept := _count_objects() - self._foreign:
            self.oracle.fail(f"everybody has gone, and the engine keeps {dict(kept)}")

    # -------------------------------------------------------------------------------------------------- quiet

    async def _rest(self) -> None:
        stage, rng = self.stage, self.rng
        left = self.plan.hours * _HOUR - trio.current_time()
        length = max(1.0, left / (self.plan.epochs - self.epoch))
        end = trio.current_time() + length
        if rng.random() < 0.25:
            stage.active = True
            stage.healing = True
            for _ in range(rng.randint(1, 2)):
                stage.connect_worker(stage.draw_type())
            client = stage.connect_client(engine_errors=True)
            while trio.current_time() < end:
                await trio.sleep(min(rng.uniform(600, 4000), max(end - trio.current_time(), 0.1)))
                await self._look()
                stage.submit(client, rng.choice(stage.workers).book.worker_type, rng.randint(1, 3))
                await trio.sleep(40)
            await self._look()
            await self._send_home()
            stage.cancel_actions()
            self.oracle.forget()
        else:
            await trio.sleep(length)


def _count_objects() -> Counter[str]:
    gc.collect()
    names = Counter(type(thing).__name__ for thing in gc.get_objects())
    return Counter({name: names[name] for name in _COUNTED if names[name]})
