"""What the options take, and what they refuse before anything is started."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from orbtrio.conformance.options import ENGINE_OPTIONS, RUN_OPTIONS, WORKER_OPTIONS


@click.command()
@ENGINE_OPTIONS
@WORKER_OPTIONS
@RUN_OPTIONS
def show(**options: object) -> None:
    click.echo(repr(options))


def test_defaults_are_those_of_a_run_of_a_minute() -> None:
    output = CliRunner().invoke(show).output
    assert "'max_seconds': 60.0" in output
    assert "'profile': 'spec'" in output
    assert "'cases': ()" in output


@pytest.mark.parametrize("wrong", [["--examples", "0"], ["--max-seconds", "-1"], ["--inputs", "no-such"]])
def test_what_makes_no_sense_is_refused(wrong: list[str]) -> None:
    result = CliRunner().invoke(show, wrong)
    assert result.exit_code == 2
    assert wrong[0] in result.output
