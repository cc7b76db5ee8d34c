"""No process of a tree gets away with its CPU time, nor with its life.

Each test is a program of its own, for descendants of pytest are not all ours.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Final

from benchmarks.peers.servers import _ROOT

PROLOGUE: Final = """
import os, signal, subprocess, sys, time
from benchmarks.peers import cpu
from benchmarks.peers.cpu import Meter, adopt_orphans, descendants, end_descendants, tree_cpu

BURN = "import time\\nwhile time.process_time() < 0.3: pass\\n"

def python(program, **options):
    return subprocess.Popen([sys.executable, "-c", program], **options)

adopt_orphans()
"""


def run(program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROLOGUE + program], cwd=_ROOT, check=True, capture_output=True, text=True
    )
    return done.stdout.split()


def burnt(program: str) -> float:
    return float(run(program)[-1])


# The program burns 0.3 s, its start included; another Python that starts has 0.1 s or two.
LEAST: Final = 0.29
MOST: Final = 1.5


def test_a_child_that_has_ended_counts() -> None:
    assert LEAST < burnt("with Meter() as meter: python(BURN).wait()\nprint(meter.cpu)") < MOST


def test_a_child_that_lives_counts_from_the_start_of_the_measurement_only() -> None:
    program = """
loop = "import sys, time\\nfor line in sys.stdin:\\n end = time.process_time() + float(line)\\n" \
       " while time.process_time() < end: pass\\n print(flush=True)"
child = python(loop, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
def burn(seconds):
    print(seconds, file=child.stdin, flush=True)
    child.stdout.readline()
burn(0.5)
with Meter() as meter:
    burn(0.3)
child.communicate()
print(meter.cpu)
"""
    assert LEAST < burnt(program) < 0.5


def test_a_daemon_whose_parent_is_gone_counts() -> None:
    program = """
daemon = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {BURN!r}], start_new_session=True)"
with Meter() as meter:
    python(daemon).wait()
    try:
        while True: os.wait()
    except ChildProcessError:
        pass
print(meter.cpu)
"""
    assert LEAST < burnt(program) < MOST


def test_our_own_time_is_the_load_and_nobody_elses() -> None:
    measured = run("with Meter() as meter: exec(BURN)\nprint(meter.cpu, meter.load_cpu, meter.seconds)")
    cpu, load_cpu, seconds = map(float, measured)
    assert cpu == 0
    assert 0 < load_cpu <= seconds + 0.01


def test_all_descendants_are_ended_those_that_will_not_included() -> None:
    program = """
cpu._END_TIMEOUT = 0.1
deaf = "import os, signal, time; signal.signal(15, signal.SIG_IGN); os.write(1, b'x'); time.sleep(60)"
middle = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {deaf!r}]); time.sleep(60)"
process = python(middle, stdout=subprocess.PIPE)
process.stdout.read(1)
print(len(descendants()))
end_descendants()
print(len(descendants()))
"""
    assert run(program) == ["2", "0"]
