from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from orbtrio.errors import ConfigError
from tests.processes.harness import PATIENCE, SECRET, ended, running_engine, wait_until
from workers import _fleet
from workers._fleet import Fleet, Member, read_fleet, run_fleet

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]

# Ends in order at SIGTERM, as workers do.
OBEDIENT = """
import signal, sys, time
def end(*_):
    print("finishing", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("READY", flush=True)
time.sleep(60)
"""
STUBBORN = (
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('READY', flush=True); time.sleep(60)"
)


# --- The file --------------------------------------------------------------------------------------------


def test_a_file_asks_for_workers(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(
        """
        [environment]
        SERVER_URL = "ws://engine:5000/ws"
        OMP_NUM_THREADS = 1

        [[worker]]
        type = "embedding"
        count = 2
        env = { MODEL_ID = "builtin" }

        [[worker]]
        type = "shout"
        command = ["python", "shout.py"]
        """
    )
    fleet = read_fleet(path)
    assert fleet.environment == {"SERVER_URL": "ws://engine:5000/ws", "OMP_NUM_THREADS": "1"}
    embedding, shout = fleet.members
    assert (embedding.count, embedding.environment) == (2, {"MODEL_ID": "builtin"})
    assert embedding.start_command() == [sys.executable, "-m", "workers.embedding"]
    assert shout.start_command() == ["python", "shout.py"]
    assert str(fleet) == "3 workers: 2 embedding, 1 shout"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no workers"),
        ("worker = 3", "no workers"),
        ("worker = [3]", "worker 1: write \\[\\[worker\\]\\]"),
        ("[[worker]", "not TOML"),
        ("[[worker]]", "worker 1: type: expected the name"),
        ('[[worker]]\ntype = "embeding"', "worker 1: type: 'embeding' is none of embedding, llm"),
        ('[[worker]]\ntype = "llm"\ncount = 0', "worker 1: count: expected a whole number from 1, not 0"),
        ('[[worker]]\ntype = "llm"\ncount = true', "count"),
        ('[[worker]]\ntype = "llm"\ncount = 1001', "1001 workers are too many"),
        ('[[worker]]\ntype = "llm"\nnumber = 1', "worker 1: 'number' means nothing here; known are type"),
        ('[[worker]]\ntype = "x"\ncommand = "python x.py"', "command: expected a list"),
        ('[[worker]]\ntype = "llm"\nenv = 3', "worker 1: env: expected a table"),
        ('[[worker]]\ntype = "llm"\nenv = { MODEL_ID = true }', "env: MODEL_ID: expected text or a number"),
        ('[[worker]]\ntype = "llm"\nenv = { "A B" = "1" }', "'A B' is no name"),
        ('[[worker]]\ntype = "llm"\nenv = { A = "\\u0000" }', "NUL"),
        ('[environment]\nWORKER_SECRET = "hush"\n[[worker]]\ntype = "llm"', "WORKER_SECRET is a secret"),
        ('[[worker]]\ntype = "llm"\nenv = { HF_TOKEN = "hush" }', "HF_TOKEN is a secret"),
        ('environ = 1\n[[worker]]\ntype = "llm"', "'environ' means nothing here"),
    ],
)
def test_a_file_that_cannot_be_is_refused(text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=why) as caught:
        read_fleet(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "hush" not in str(caught.value)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fleet\.toml: No such file"):
        read_fleet(tmp_path / "fleet.toml")


# --- The processes ---------------------------------------------------------------------------------------


def member(program: str, *, name: str = "shout", **fields: Any) -> Member:
    return Member(worker_type=name, command=(sys.executable, "-c", program), **fields)


async def run_until(
    fleet: Fleet, said: Callable[[], str], words: str, *signals: signal.Signals, times: int = 1
) -> int:
    """Run it in this process, send these signals once it has said something so often; its exit status."""
    statuses: list[int] = []

    async def run() -> None:
        statuses.append(await run_fleet(fleet, dict(os.environ)))

    with trio.fail_after(50):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            while said().count(words) < times:  # noqa: ASYNC110  (processes tell nobody but their pipe)
                await trio.sleep(0.01)
            for number in signals:
                os.kill(os.getpid(), number)
                await trio.sleep(0.1)
    return statuses[0]


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    monkeypatch.setattr(_fleet, "_FIRST_WAIT", 0.05)
    heard = ""

    def hear() -> str:
        nonlocal heard
        heard += capfd.readouterr().out
        return heard

    return hear


async def test_workers_are_told_to_stop_and_waited_for(said: Callable[[], str]) -> None:
    fleet = Fleet(members=(member(OBEDIENT, count=2),))
    assert await run_until(fleet, said, "| READY", signal.SIGTERM, times=2) == 0
    lines = said().splitlines()
    assert (
        "fleet | SIGTERM: workers finish what they have in hand; killed after 35 s, or at once " in lines[2]
    )
    assert sorted(lines[-2:]) == ["shout-1 | finishing", "shout-2 | finishing"]


@pytest.mark.parametrize("again", [True, False])
async def test_workers_that_do_not_end_are_killed(
    said: Callable[[], str], again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_fleet, "_GRACE", 30.0 if again else 0.05)
    fleet = Fleet(members=(member(STUBBORN),))
    signals = [signal.SIGINT, signal.SIGINT] if again else [signal.SIGINT]
    assert await run_until(fleet, said, "READY", *signals) == 0
    assert "fleet | shout-1 has not ended: killing it" in said()


async def test_a_worker_that_ends_is_started_again_after_longer_and_longer(said: Callable[[], str]) -> None:
    fleet = Fleet(members=(member("print('here'); raise SystemExit(3)"),))
    assert await run_until(fleet, said, "again in 0.2 s", signal.SIGTERM) == 0
    waits = [line for line in said().splitlines() if "again" in line and "fleet" in line]
    assert waits[:3] == [
        f"fleet | shout-1 ended with status 3; starting it again in {wait} s" for wait in (0.05, 0.1, 0.2)
    ]


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (40, "signal 40")])
async def test_one_that_lived_long_is_started_again_soon(
    number: int, name: str, said: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_fleet, "_LIVED_LONG", 0.0)
    # The second, a real-time signal, has no name.
    killed = "import os, sys; os.kill(os.getpid(), {})"
    fleet = Fleet(members=(member(killed.format(number)),))
    again = f"fleet | shout-1 ended by {name}; starting it again in 0.05 s\n"
    assert await run_until(fleet, said, again, signal.SIGTERM, times=2) == 0


async def test_one_whose_settings_cannot_work_is_not_started_again(said: Callable[[], str]) -> None:
    wrong = "import sys; print('Error: WORKER_TYPE is odd\\n', file=sys.stderr); sys.exit(2)"
    nowhere = Member(worker_type="other", command=("/nowhere/at/all",))
    with trio.fail_after(50):
        assert await run_fleet(Fleet(members=(member(wrong), nowhere)), dict(os.environ)) == 2
    lines = said().splitlines()
    assert "shout-1 | Error: WORKER_TYPE is odd" in lines
    refusal = "is not started again, its settings cannot work"
    assert f"fleet | shout-1 {refusal}: Error: WORKER_TYPE is odd" in lines
    assert f"fleet | other-1 {refusal}: /nowhere/at/all: No such file or directory" in lines
    assert lines[-1] == "fleet | no worker is left that could run"


async def test_what_a_worker_says_comes_line_by_line_under_its_name(said: Callable[[], str]) -> None:
    program = (
        "import os; os.write(1, b'one\\ntw'); os.write(2, b'o\\r\\n\\xff' + 100_000 * b'x'); os._exit(2)"
    )
    with trio.fail_after(50):
        await run_fleet(Fleet(members=(member(program),)), dict(os.environ))
    lines = said().splitlines()
    assert lines[:2] == ["shout-1 | one", "shout-1 | two"]
    assert lines[2].startswith("shout-1 | \N{REPLACEMENT CHARACTER}xxx")
    assert sum(line.count("x") for line in lines[2:-2]) == 100_000


async def test_environments_add_up(said: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORB_TEST_A", "inherited")
    monkeypatch.setenv("ORB_TEST_B", "inherited")
    monkeypatch.setenv("WORKER_TYPE", "what somebody was trying out")
    program = (
        "import os, sys; print(*[os.environ['ORB_TEST_' + c] for c in 'ABC'], os.environ['WORKER_TYPE']);"
        "sys.exit(2)"
    )
    worker = member(program, environment={"ORB_TEST_C": "own"})
    fleet = Fleet(members=(worker,), environment={"ORB_TEST_B": "fleet's", "ORB_TEST_C": "fleet's"})
    with trio.fail_after(50):
        await run_fleet(fleet, dict(os.environ))
    assert "shout-1 | inherited fleet's own shout\n" in said()


async def test_a_worker_type_that_is_set_changes_no_worker(
    said: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A language model would get jobs of another type. Whoever wants that says so for that worker."""
    program = [sys.executable, "-c", "import os, sys; print(os.environ['WORKER_TYPE']); sys.exit(2)"]
    monkeypatch.setattr(Member, "start_command", lambda member: program)
    other = Member(worker_type="llm", environment={"WORKER_TYPE": "llm_fast"})
    with trio.fail_after(50):
        await run_fleet(
            Fleet(members=(Member(worker_type="embedding"), other)), {**os.environ, "WORKER_TYPE": "other"}
        )
    assert {"embedding-1 | embedding", "llm-1 | llm_fast"} <= set(said().splitlines())


async def test_a_process_that_a_worker_left_behind_holds_up_nothing(
    said: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_fleet, "LAST_WORDS", 0.05)
    program = "import subprocess, sys; subprocess.Popen(['sleep', '55']); sys.exit(2)"
    with trio.fail_after(50):
        assert await run_fleet(Fleet(members=(member(program),)), dict(os.environ)) == 2


@pytest.mark.processes
def test_a_fleet_serves_an_engine_and_drains(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    with running_engine(tmp_path) as engine:
        path.write_text(
            f'[environment]\nSERVER_URL = "{engine.url}"\n[[worker]]\ntype = "motion_energy"\ncount = 2\n'
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "workers", "run", str(path)],
            cwd=ROOT,
            env={**os.environ, "WORKER_SECRET": SECRET},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with ended(process):
            registered = 'orb_workers{type="motion_energy"}'
            wait_until(lambda: engine.metrics().get(registered) == 2)
            process.send_signal(signal.SIGTERM)
            output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert "killing it" not in output
    assert "motion_energy-2 | " in output
    assert SECRET not in output + errors
