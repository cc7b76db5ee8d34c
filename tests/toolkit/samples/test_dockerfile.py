"""The image cannot be built where there is no Docker: what its lines name must exist, in this order."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Final

import attrs

from orbtrio._settings import Setting
from orbtrio.toolkit import samples
from orbtrio.toolkit.settings import ToolkitSettings, load

ROOT: Final = Path(__file__).resolve().parents[3]
TEXT: Final = Path(samples.__file__).with_name("Dockerfile").read_text()
LINES: Final = [
    (line.split(None, 1)[0], line.split(None, 1)[1])
    for line in re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    if line.strip()
]
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def arguments(instruction: str) -> list[str]:
    return [rest for name, rest in LINES if name == instruction]


def commands() -> list[list[str]]:
    return [shlex.split(command) for run in arguments("RUN") for command in run.split("&&")]


def test_there_are_two_stages_and_the_second_has_all_that_the_first_made() -> None:
    assert [name for name, _ in LINES if name in ("FROM", "ENTRYPOINT")] == ["FROM", "FROM", "ENTRYPOINT"]
    first, second = arguments("FROM")
    # What is copied over is bound to the interpreter beside it.
    assert first == f"{second} AS toolkit"
    assert "--from=toolkit /opt/aiware/ /opt/aiware/" in arguments("COPY")


def test_what_is_copied_is_there_and_enough_to_build_a_package() -> None:
    copied = set()
    for line in arguments("COPY"):
        *sources, target = line.split()
        if not line.startswith("--from"):
            assert target.startswith("/src/")
            assert all((ROOT / source).exists() for source in sources)
            copied |= {source.rstrip("/") for source in sources}
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], *build["packages"]}
    assert copied == needed | set(build["force-include"])


def test_et_47_both_names_of_the_program_are_links_to_ours() -> None:
    links = {target: source for name, *rest in commands() if name == "ln" for source, target in [rest[1:]]}
    assert links == {"/opt/aiware/engine": "bin/orbtrio-toolkit", "/app/engine": "/opt/aiware/engine"}
    assert PROJECT["scripts"]["orbtrio-toolkit"] == "orbtrio.toolkit.__main__:main"
    (install,) = [command for command in commands() if command[0].endswith("/pip")]
    assert install[-1] == "/src/[toolkit]"
    assert "toolkit" in PROJECT["optional-dependencies"]


def test_et_42_50_entry_point_and_environment_are_settings_that_work(tmp_path: Path) -> None:
    (entry,) = arguments("ENTRYPOINT")
    program, *rest = json.loads(entry)
    assert program == "/opt/aiware/engine"
    environ = dict(line.split("=", 1) for line in arguments("ENV"))
    known = {Setting.of(field).env for field in attrs.fields(ToolkitSettings) if field.metadata}
    assert environ.keys() <= known | {"AIWARE_ENV_WHITE_LIST"}
    settings = load(rest, {**environ, "WORKER_SECRET": "s"}, manifest=tmp_path / "none")
    assert settings.command == ("/opt/aiware/bin/python", "-m", "orbtrio.toolkit.samples.words")
    assert settings.worker.worker_type == "et:words"


def test_the_pages_own_entry_point_is_shown() -> None:
    assert 'ENTRYPOINT ["/opt/aiware/engine", "YOUR_ENGINE_BINARY"]' in TEXT
