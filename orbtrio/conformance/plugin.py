"""A pytest plugin: one test for each case, against an engine that is given on the command line.

    pytest -p orbtrio.conformance.plugin --orb-engine ws://127.0.0.1:5000/ws
    pytest -p orbtrio.conformance.plugin --orb-launch './my-engine --quiet' --orb-profile orbtrio -k BAT

The tests join whatever else is collected, and can be selected by ``-k`` like others. The engine is started,
and the slack measured, when the first of them runs.

| verdict | of the test | |
|---|---|---|
| PASS, INFO | passed | |
| NON-STRICT | passed | and named at the end of the run |
| FAIL, FLAKY | failed | with the conversation; a requirement that breaks now and then is broken |
| the same of what is no MUST | xfailed | as on the command line, recommendations fail no run |
| INCONCLUSIVE | xfailed | this machine was too slow to tell |
| SKIP | skipped | with what the case needs |

Failures are kept in pytest's cache, or below ``--orb-report``, to be replayed, and are tried first next time.

Without one of these options nothing is done and nothing but pytest is imported here.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orbtrio.conformance.model import Case, CaseResult
    from orbtrio.conformance.runner import Runner
    from orbtrio.conformance.targets import EngineTarget

__all__ = ["OrbCase", "OrbCases", "pytest_addoption", "pytest_configure"]

_NAME: Final = "orb-conformance"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("orb", "ORB Worker Protocol: conformance of an engine")
    group.addoption(
        "--orb-engine", metavar="URL", help="where an engine listens, e.g. ws://127.0.0.1:5000/ws"
    )
    group.addoption(
        "--orb-launch", metavar="CMD", help="start an engine, with SERVER_PORT set to a free port"
    )
    group.addoption("--orb-profile", default="spec", help="spec (default), orbtrio, hardened; or a file")
    group.addoption(
        "--orb-cases", action="append", default=[], metavar="PATTERN", help="only these, e.g. 'ORB-BAT-*'"
    )
    group.addoption("--orb-seed", type=int, help="for the same plans once more; printed by each run")
    group.addoption("--orb-seconds", type=float, default=90.0, help="for all cases together, about (90)")
    group.addoption("--orb-report", metavar="DIR", help="write index.html, report.json and the others there")
    group.addoption("--orb-i-own-this-host", action="store_true", help="allow an engine on another machine")


def pytest_configure(config: pytest.Config) -> None:
    """Take part, if there is an engine to test."""
    url, command = config.getoption("--orb-engine"), config.getoption("--orb-launch")
    if not url and not command:
        return
    if url and command:
        raise pytest.UsageError("say which engine: --orb-engine or --orb-launch, not both")
    config.pluginmanager.register(_Run(config), _NAME)


class _Run:
    """The tests of one session, and the engine that they share."""

    def __init__(self, config: pytest.Config) -> None:
        from orbtrio.conformance import suite
        from orbtrio.conformance.model import Role
        from orbtrio.errors import ConfigError

        report = config.getoption("--orb-report")
        cache = getattr(config, "cache", None)
        folder = report or (None if cache is None else cache.mkdir(_NAME))
        self.folder = None if folder is None else Path(folder)
        seed = config.getoption("--orb-seed")
        self.seed: int = suite.draw_seed() if seed is None else seed
        self.results: list[CaseResult] = []
        self._writes_report = bool(report)
        self._runner: Runner | None = None
        self._trouble = ""
        self._seconds: float = config.getoption("--orb-seconds")
        patterns = tuple(p for text in config.getoption("--orb-cases") for p in text.split(",") if p)
        self._wanted = suite.Wanted(
            profile=config.getoption("--orb-profile"),
            cases=patterns,
            seconds=self._seconds,
            report=self.folder,
        )
        try:
            self.cases = suite.select(Role.ENGINE, self._wanted)
            self._target = _target(config)
            with contextlib.ExitStack() as unless_all_is_right:
                unless_all_is_right.callback(self._target.close)
                # Mistakes in a profile are told before anything is started.
                suite.make_runner(self._target, self._wanted, seed=self.seed)
                unless_all_is_right.pop_all()
        except ConfigError as error:
            raise pytest.UsageError(str(error)) from error
        self._weight = sum(case.seconds for case in self.cases)
        command = config.getoption("--orb-launch")
        given = f"--launch {shlex.quote(command)}" if command else f"--url {config.getoption('--orb-engine')}"
        self.replay_options = f"to replay it, add: {given}"

    # --- hooks ---

    def pytest_report_header(self) -> str:
        """What is tested, and how to do so again."""
        return f"orb: {self._target.description}, profile {self._wanted.profile}, seed {self.seed}"

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(
        self, session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Add the cases, before others select."""
        collector = OrbCases.from_parent(session, name="orb", nodeid="orb", run=self)
        report = config.hook.pytest_make_collect_report(collector=collector)
        # Counted like those that were found in files.
        config.hook.pytest_collectreport(report=report)
        items += [item for item in report.result if isinstance(item, pytest.Item)]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """What passed and is not as strict as it could be."""
        from orbtrio.conformance.model import Verdict
        from orbtrio.conformance.report.words import visible

        lines = []
        for result in self.results:
            if result.verdict is Verdict.NON_STRICT:
                lines.append(f"{result.case.case_id} {visible(result.reason, 500)}")
            if result.close is Verdict.NON_STRICT:
                lines.append(f"{result.case.case_id} close: {visible(result.close_reason, 500)}")
        if lines:
            terminalreporter.section("orb: NON-STRICT, works, but a peer may stumble", sep="-", yellow=True)
            terminalreporter.write_line("\n".join(lines))

    def pytest_sessionfinish(self) -> None:
        """Write the report, and end what was started."""
        if self._runner is not None and self._writes_report and self.folder is not None:
            from orbtrio.conformance import spec
            from orbtrio.conformance.report import write_report

            write_report(self.folder, self._whole(self._runner), quote=spec.quote, section=spec.section)
        self._target.close()

    # --- for the items ---

    def judge(self, case: Case) -> CaseResult:
        """Judge a case; the engine is started before the first.

        Raises:
            Failed: the engine cannot be tested.
            Skipped: the same, told before.
        """
        from orbtrio.conformance.report import store_counterexample

        runner = self._runner or self._start()
        start = time.monotonic()
        result = runner.judge(case, max(self._seconds, 0.0) * case.seconds / self._weight)
        self._seconds -= time.monotonic() - start
        self._weight = max(self._weight - case.seconds, case.seconds)
        self.results.append(result)
        if self.folder is not None and result.counterexample is not None:
            store_counterexample(self.folder, result, self._whole(runner))
        return result

    def _start(self) -> Runner:
        from orbtrio.conformance import suite
        from orbtrio.conformance.model import TargetGone, Violation
        from orbtrio.conformance.targets import calibrate

        if self._trouble:
            pytest.skip(f"the engine cannot be tested: {self._trouble}")
        try:
            calibrate(self._target)
        except (TargetGone, Violation) as error:
            self._trouble = str(error)
        if self._trouble:
            pytest.fail(f"the engine cannot be tested: {self._trouble}", pytrace=False)
        self._runner = suite.make_runner(self._target, self._wanted, seed=self.seed)
        return self._runner

    def _whole(self, runner: Runner) -> Any:
        import attrs

        return attrs.evolve(runner.run(()), results=tuple(self.results))


class OrbCases(pytest.Collector):
    """The cases that were asked for."""

    def __init__(self, run: _Run, **rest: Any) -> None:
        super().__init__(**rest)
        self.run = run

    def collect(self) -> Iterator[pytest.Item]:
        """One item for each."""
        for case in self.run.cases:
            yield OrbCase.from_parent(self, name=case.case_id, run=self.run, case=case)


class OrbCase(pytest.Item):
    """A case as a test."""

    def __init__(self, run: _Run, case: Case, **rest: Any) -> None:
        super().__init__(**rest)
        self.run = run
        self.case = case

    def runtest(self) -> None:
        """Judge it."""
        from orbtrio.conformance import spec
        from orbtrio.conformance.model import Level, Verdict
        from orbtrio.conformance.report.words import cite, failure_block
        from orbtrio.conformance.runner import UNREACHABLE

        result = self.run.judge(self.case)
        verdict, must = result.verdict, result.level is Level.MUST
        if verdict is Verdict.SKIP and result.reason.startswith(UNREACHABLE):
            pytest.fail(result.reason, pytrace=False)
        elif verdict is Verdict.SKIP:
            pytest.skip(result.reason)
        elif verdict is Verdict.INCONCLUSIVE:
            pytest.xfail(f"could not be judged: {result.reason}")
        elif verdict in (Verdict.FAIL, Verdict.FLAKY):
            file = None if self.run.folder is None else str(self.run.folder / f"{self.case.case_id}.json")
            citations = cite(self.case, spec.quote, spec.section)
            block = f"{failure_block(result, citations, self.run.seed, file)}\n  {self.run.replay_options}"
            if must:
                pytest.fail(block, pytrace=False)
            found = result.counterexample
            self.add_report_section("call", "orb", block)
            pytest.xfail(f"{result.level.value}: {found.expected if found else result.reason}")

    def reportinfo(self) -> tuple[Path, None, str]:
        """Where it is, for pytest; it is in no file of the user's."""
        return self.path, None, f"{self.case.case_id} {self.case.title}"


def _target(config: pytest.Config) -> EngineTarget:
    import secrets

    from orbtrio.conformance import suite
    from orbtrio.conformance.stage import Conditions
    from orbtrio.conformance.targets import EngineTarget
    from orbtrio.errors import ConfigError

    url, command = config.getoption("--orb-engine"), config.getoption("--orb-launch")
    secret = os.environ.get("WORKER_SECRET")
    token = os.environ.get("CLIENT_TOKEN")
    # As on the command line.
    patience = 12.0
    if command:
        conditions = Conditions(secret=secret or secrets.token_urlsafe(16), token=token, patience=patience)
        return EngineTarget(conditions, command=command)
    host, port, path = suite.parse_address(url)
    suite.check_host(host, own=config.getoption("--orb-i-own-this-host"))
    if not secret:
        raise ConfigError("set WORKER_SECRET to what the engine at that address demands of workers")
    conditions = Conditions(secret=secret, token=token, patience=patience, path=path)
    return EngineTarget(conditions, address=(host, port))
