"""``python -m orbtrio.conformance``: point it at an engine, a worker or a client, in whatever language.

Exit status: 0 all that MUST be is so; 1 a MUST failed; 2 the target did not start or went away; 3 some cases
could not be judged; 4 the command was wrong.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

try:
    import hypothesis
except ModuleNotFoundError:
    sys.exit("the conformance suite needs more than an engine does: pip install 'orbtrio[conformance]'")

import attrs
import click

from orbtrio.conformance import report, spec, suite
from orbtrio.conformance.client_target import ClientTarget, calibrate_client
from orbtrio.conformance.inprocess import InProcessEngine
from orbtrio.conformance.model import Role, TargetGone, Verdict, Violation
from orbtrio.conformance.options import ENGINE_OPTIONS, RUN_OPTIONS, WORKER_OPTIONS
from orbtrio.conformance.profiles import load_profile
from orbtrio.conformance.selftest import Selftest
from orbtrio.conformance.stage import Conditions
from orbtrio.conformance.targets import EngineTarget, calibrate
from orbtrio.conformance.worker_target import WorkerTarget, read_inputs
from orbtrio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orbtrio.conformance.model import Case
    from orbtrio.conformance.runner import Environment

__all__ = ["main", "run"]

_NOT_STARTED: Final = 2
_USAGE: Final = 4

# What takes minutes.
_FAST_CLOCK_CASES: Final = ("ORB-TMO-*", "ORB-RES-09")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def main() -> None:
    """Test an engine, a worker or a client of the ORB Worker Protocol, whoever wrote it.

    Secrets come from the environment: WORKER_SECRET, and CLIENT_TOKEN if clients need one. A program that is
    started with --launch gets SERVER_PORT or SERVER_URL, WORKER_SECRET and a data directory of its own.
    """


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """The program: `main`, with exit statuses of our own, for click's 2 says something of the target here."""
    # Whoever ends us must not leave the target running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    hypothesis.configuration.set_hypothesis_home_dir(tempfile.gettempdir())
    try:
        sys.exit(main(arguments, prog_name="python -m orbtrio.conformance", standalone_mode=False) or 0)
    except (ConfigError, report.CounterexampleError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(_USAGE)
    except click.ClickException as error:
        error.show()
        sys.exit(_USAGE)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        sys.exit(130)


@main.command()
@ENGINE_OPTIONS
@RUN_OPTIONS
def engine(**options: Any) -> None:
    """Test an engine: the suite plays its workers and clients."""
    _judge(_engine_target(options), options)


@main.command(context_settings={"default_map": {"max_seconds": 30.0}})
@click.option("--launch", metavar="CMD", required=True, help="Start a worker; SERVER_URL says where to.")
@WORKER_OPTIONS
@RUN_OPTIONS
def worker(**options: Any) -> None:
    """Test a worker: the suite plays its engine.

    It is started with the variables of the spec's "Environment Variables (Worker)", and again when it has
    ended, or when a case needs one whose link has never been lost.
    """
    _judge(_worker_target(options), options)


@main.command()
@click.option(
    "--launch",
    metavar="CMD",
    help="Start a program that submits at least a few jobs, at best over and over; SERVER_URL says where.",
)
@click.option("--listen", metavar="HOST:PORT", help="Where the client connects to. Default: a free port.")
@click.option(
    "--max-wait",
    default=12.0,
    show_default=True,
    help="Longest wait for the client, in seconds, for example until it connects again.",
)
@RUN_OPTIONS
def client(**options: Any) -> None:
    """Test a client: the suite plays its engine.

    The jobs are those of the program, so it should have some that use resources, too. It may end when all its
    jobs have been answered: it is started again. Without --launch the client is started by somebody else.
    """
    _judge(_client_target(options), options)


@main.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@ENGINE_OPTIONS
@WORKER_OPTIONS
@click.option("--profile", help="Default: the one that it failed under.")
def replay(file: Path, **options: Any) -> None:
    """Play a stored counterexample again, against the target that is given now, or else that of then.

    Options of that run, as --job-timeout or --types, have to be given again.
    """
    stored = report.load_counterexample(file)
    case = _case(stored.case_id)
    makers = {Role.ENGINE: _engine_target, Role.WORKER: _worker_target, Role.CLIENT: _client_target}
    target = makers[stored.role](_same_target(stored, options))
    wanted = suite.Wanted(profile=options["profile"] or stored.profile, cases=(case.case_id,))
    try:
        _prepare(target)
        outcome = suite.make_runner(target, wanted, seed=stored.seed).play(case, stored.plan)
    except (TargetGone, Violation) as gone:
        _give_up(str(gone))
    finally:
        target.close()
    for event in outcome.events:
        click.echo(f"  {event}")
    click.echo(f"{outcome.verdict.value} {case.case_id}: {case.title}")
    if outcome.verdict is Verdict.FAIL:
        click.echo(f"  t={outcome.at:.3f} expected: {outcome.expected}; seen: {outcome.seen}")
    sys.exit({Verdict.FAIL: 1, Verdict.INCONCLUSIVE: 3}.get(outcome.verdict, 0))


@main.command("list")
@click.option("--spec-coverage", is_flag=True, help="Every normative sentence of the spec, and its cases.")
def list_cases(*, spec_coverage: bool) -> None:
    """Show all cases, or all sentences of the spec with the cases that pin them."""
    cases = suite.all_cases()
    if not spec_coverage:
        for case in cases.values():
            click.echo(f"{case.case_id}  {case.level.value:6}  {case.role.value:6}  {case.title}")
        return
    section = ""
    for sentence, case_ids in spec.coverage(cases):
        if sentence == spec.extensions()[0]:
            click.echo("\n--- Not in the spec: extensions, for those who ask ---")
        if sentence.section != section:
            section = sentence.section
            click.echo(f"\n{section}")
        click.echo(f"  {sentence.id:7} {sentence.text}")
        click.echo(f"          {' '.join(case_ids) or 'NO CASE'}")
    missing = spec.uncovered(cases)
    click.echo(
        f"\n{len(spec.sentences())} sentences of the spec, {len(spec.extensions())} about extensions, "
        f"{len(missing)} without a case"
    )
    sys.exit(1 if missing else 0)


@main.command()
@click.argument("case_id")
def explain(case_id: str) -> None:
    """Say what a case does, what it expects, and what of the spec it rests on."""
    case = _case(case_id)
    click.echo(f"{case.case_id} ({case.level.value}, {case.role.value} under test)\n{case.title}\n")
    click.echo(textwrap.fill(case.explanation, 100))
    click.echo("\nRests on")
    for sentence in case.sentences:
        click.echo(textwrap.fill(spec.cite(sentence), 100, initial_indent="  ", subsequent_indent="    "))
    if case.readings:
        click.echo("\nReadings, and what the profiles make of them")
    profiles = [load_profile(name) for name in ("spec", "orbtrio", "hardened")]
    for name, meaning in case.readings.items():
        verdicts = ", ".join(f"{known.name}: {known.judge(case, name).value}" for known in profiles)
        click.echo(f"  {name}: {meaning}\n    {verdicts}")


@main.command()
@click.option("--mutants", multiple=True, metavar="PATTERN", help="Only these of the zoo.")
@click.option("--matrix", type=click.Path(dir_okay=False, path_type=Path), help="Write who kills whom (CSV).")
def selftest(mutants: tuple[str, ...], matrix: Path | None) -> None:
    """Test the suite itself: a zoo of faulty engines and workers, each of which it must find."""
    sys.exit(Selftest(mutants, matrix).run(click.echo))


def _same_target(stored: report.StoredCounterexample, options: dict[str, Any]) -> dict[str, Any]:
    if any(options.get(name) for name in ("url", "launch", "in_process")):
        return options
    if stored.target.startswith("ws://"):
        return {**options, "url": stored.target}
    if stored.target == InProcessEngine.description:
        return {**options, "in_process": True}
    return {**options, "launch": stored.target}


def _judge(target: Environment, options: dict[str, Any]) -> NoReturn:
    fast = options.get("faketime", 1.0) != 1
    wanted = suite.Wanted(
        profile=options["profile"],
        # At another rate, times that cases know by heart are wrong.
        cases=options["cases"] or (_FAST_CLOCK_CASES if fast else ()),
        exclude=options["exclude"],
        examples=options["examples"],
        seconds=options["max_seconds"],
        report=options["folder"],
    )
    seed = suite.draw_seed() if options["seed"] is None else options["seed"]
    if wanted.report is not None:
        # Before anything is started, for later it would be too late.
        try:
            wanted.report.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise click.UsageError(f"--report: {error}") from error
    console = report.Console(seed=seed, quote=spec.quote, section=spec.section, directory=wanted.report)
    try:
        # Before the target is started: a wrong profile is no reason to start anything.
        suite.make_runner(target, wanted, seed=seed)
        click.echo(f"{target.description}: profile {wanted.profile}, seed {seed}", nl=False)
        click.echo(f", slack {_prepare(target):.3f} s")
        result = suite.run(target, wanted, console, seed=seed)
    except TargetGone as gone:
        click.echo("")
        _give_up(str(gone))
    except Violation as violation:
        click.echo("")
        _give_up(f"the target does not do the simplest job: {violation}")
    finally:
        target.close()
    console.summary(result)
    sys.exit(result.exit_code)


def _prepare(target: Environment) -> float:
    if isinstance(target, EngineTarget):
        calibrate(target)
    if isinstance(target, ClientTarget):
        calibrate_client(target)
    if isinstance(target, WorkerTarget):
        target.calibrate()
    return target.slack


def _engine_target(options: dict[str, Any]) -> Any:
    if sum(bool(options[name]) for name in ("url", "launch", "in_process")) != 1:
        raise click.UsageError("say which engine: one of --url, --launch and --in-process")
    if options["faketime"] <= 0 or (options["faketime"] != 1 and not options["launch"]):
        raise click.UsageError(
            "--faketime needs a rate above zero, and --launch: only our own child's clock can be set"
        )
    conditions = Conditions(
        secret=os.environ.get("WORKER_SECRET") or _new_secret(options),
        token=os.environ.get("CLIENT_TOKEN"),
        job_timeout=options["job_timeout"] / options["faketime"],
        max_job_timeout=max(options["max_job_timeout"], options["job_timeout"]) / options["faketime"],
        rate=options["faketime"],
        patience=options["max_wait"],
        files=not options["no_files"],
    )
    if options["types"]:
        types = tuple(name.strip() for name in options["types"].split(",") if name.strip())
        if len(set(types)) < max(len(types), 4):
            raise click.UsageError("--types needs at least four different worker types")
        conditions = attrs.evolve(conditions, types=types)
    if options["in_process"]:
        return InProcessEngine(conditions)
    if options["launch"]:
        return EngineTarget(conditions, command=options["launch"])
    host, port, path = suite.parse_address(options["url"])
    suite.check_host(host, own=options["i_own_this_host"])
    return EngineTarget(attrs.evolve(conditions, path=path), address=(host, port))


def _client_target(options: dict[str, Any]) -> ClientTarget:
    listen = _listen(options)
    if not options["launch"] and listen is None:
        raise click.UsageError("say which client: --launch a program, or --listen for one that you start")
    conditions = Conditions(token=os.environ.get("CLIENT_TOKEN"), patience=options["max_wait"])
    return ClientTarget(conditions, command=options["launch"], listen=listen)


def _worker_target(options: dict[str, Any]) -> WorkerTarget:
    if not options["launch"]:
        raise click.UsageError("say which worker: --launch a program")
    conditions = Conditions(secret=os.environ.get("WORKER_SECRET") or secrets.token_urlsafe(16))
    return WorkerTarget(
        conditions,
        command=options["launch"],
        listen=_listen(options),
        worker_type=options["worker_type"],
        inputs=read_inputs(options["inputs"]) if options["inputs"] else (),
    )


def _listen(options: dict[str, Any]) -> tuple[str, int] | None:
    if not options["listen"]:
        return None
    host, _, port = options["listen"].rpartition(":")
    if not host or not port.isdecimal():
        raise click.UsageError("--listen looks like 127.0.0.1:5000")
    if not 0 < int(port) < 1 << 16:
        raise click.UsageError(f"--listen: {port} is no port")
    return host, int(port)


def _new_secret(options: dict[str, Any]) -> str:
    if options["url"]:
        raise click.UsageError("set WORKER_SECRET to what the engine at that address demands of workers")
    return secrets.token_urlsafe(16)


def _case(case_id: str) -> Case:
    cases = suite.all_cases()
    if case_id not in cases:
        raise click.UsageError(
            f"there is no case {case_id!r}; `python -m orbtrio.conformance list` shows all"
        )
    return cases[case_id]


def _give_up(reason: str) -> NoReturn:
    click.echo(f"Error: {reason}", err=True)
    sys.exit(_NOT_STARTED)


if __name__ == "__main__":
    run()
