from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import pytest

from orbtrio.toolkit import nodered
from orbtrio.toolkit.environment import engine_environment
from orbtrio.toolkit.nodered import __main__ as launcher
from orbtrio.toolkit.settings import load

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

RUNNER: Final = Path(nodered.__file__).with_name("main.js")
FLOW: Final = [{"id": "in", "type": "http in", "method": "post", "url": "/process", "z": "tab"}]

needs_node = pytest.mark.skipif(
    shutil.which("node") is None, reason="no node on PATH (Debian: apt-get install nodejs)"
)


@attrs.define
class Started:
    """What the toolkit was started with."""

    argv: list[str] = attrs.field(factory=list)
    environ: dict[str, str] = attrs.field(factory=dict)


@attrs.frozen
class Stage:
    """A machine with a program called node.

    Attributes:
        directory: For files.
        environ: The launcher's environment.
        started: Filled when the toolkit is started.
    """

    directory: Path
    environ: dict[str, str]
    started: Started

    def launch(self, *options: str, flow: Any = FLOW, **environ: str) -> int:
        file = self.directory / "flow.json"
        file.write_text(json.dumps(flow))
        return launcher.main(
            [str(file), *options], {**self.environ, **environ}, manifest=self.directory / "manifest.json"
        )


def put_node(directory: Path, script: str) -> str:
    """Make a program called node; the PATH that leads to it alone."""
    directory.mkdir(exist_ok=True)
    node = directory / "node"
    node.write_text(f"#!/bin/sh\n{script}\n")
    node.chmod(0o755)
    return str(directory)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    started = Started()

    def start(argv: Sequence[str], environ: Mapping[str, str]) -> int:
        started.argv, started.environ = list(argv), dict(environ)
        return 7

    monkeypatch.setattr("orbtrio.toolkit.__main__.main", start)
    environ = {
        "ENGINE_ID": "engine",
        "BUILD_ID": "build",
        "WORKER_SECRET": "secret",
        "ORB_TOOLKIT_CACHE": str(tmp_path / "cache"),
        "PATH": put_node(tmp_path / "bin", "exit 0"),
    }
    return Stage(tmp_path, environ, started)


def test_et_55_56_the_flow_is_put_where_the_runner_looks_for_it(stage: Stage) -> None:
    assert stage.launch() == 7
    file = stage.directory / "cache/engines/engine/build/runtime.json"
    assert json.loads(file.read_text()) == FLOW
    environ = stage.started.environ
    assert environ["AIWARE_BUILD_RUNTIME"] == str(file)
    assert (environ["ENGINE_ID"], environ["BUILD_ID"]) == ("engine", "build")
    # Nobody sees half of it, or what is left of that.
    assert [path.name for path in file.parent.iterdir()] == ["runtime.json"]
    assert file.stat().st_mode & 0o007 == 0


def test_et_57_58_the_toolkit_sees_an_engine_like_any_other(stage: Stage) -> None:
    stage.launch(AIWARE_OTHER="hidden", AIWARE_AUTOMATE_SHARE_FOLDER="/share")
    settings = load(stage.started.argv, stage.started.environ)
    assert settings.command == ("node", str(RUNNER))
    assert settings.process_url == "http://127.0.0.1:1880/process"
    assert settings.ready_url is None
    seen = engine_environment(stage.started.environ)
    assert {name for name in seen if name.startswith("AIWARE_")} == {
        "AIWARE_BUILD_RUNTIME",
        "AIWARE_AUTOMATE_SHARE_FOLDER",
    }
    assert "WORKER_SECRET" not in seen


def test_options_are_the_toolkits(stage: Stage) -> None:
    stage.launch("--process-url", "http://127.0.0.1:99/p", "--engine-id", "other", "--console")
    assert stage.started.argv[:5] == [
        "--process-url",
        "http://127.0.0.1:99/p",
        "--engine-id",
        "other",
        "--console",
    ]
    # The runner learns of them, too.
    assert stage.started.environ["VERITONE_WEBHOOK_PROCESS"] == "http://127.0.0.1:99/p"
    assert stage.started.environ["ENGINE_ID"] == "other"


def test_another_flow_is_another_build(stage: Stage) -> None:
    builds = set()
    for flow in (FLOW, FLOW, [*FLOW, {"id": "x", "type": "tab"}]):
        stage.launch(flow=flow, BUILD_ID="")
        builds.add(stage.started.environ["BUILD_ID"])
    assert len(builds) == 2
    assert sorted(path.name for path in (stage.directory / "cache/engines/engine").iterdir()) == sorted(
        builds
    )


def test_node_red_is_looked_for_in_a_directory_of_its_own(stage: Stage) -> None:
    stage.launch()
    assert stage.started.environ["NODE_PATH"] == str(stage.directory / "cache/nodered/runner/node_modules")
    stage.launch(ORB_NODE_RED=str(stage.directory / "mine"), NODE_PATH="/more")
    assert stage.started.environ["NODE_PATH"] == f"{stage.directory / 'mine' / 'node_modules'}:/more"


@pytest.mark.parametrize("manifest", [{"engineId": "m"}, {"engineId": "m", "runtime": "nodeRed"}])
def test_et_63_a_manifest_of_a_flow_names_its_engine(stage: Stage, manifest: dict[str, str]) -> None:
    (stage.directory / "manifest.json").write_text(json.dumps(manifest))
    assert stage.launch(ENGINE_ID="") == 7
    assert stage.started.environ["ENGINE_ID"] == "m"


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ('{"runtime": "docker"}', "its runtime is 'docker', not 'nodeRed': its engine is no flow"),
        ("[]", "its runtime is None, not 'nodeRed'"),
        ("{", "manifest.json: cannot be read: "),
    ],
)
def test_et_63_a_flow_does_not_run_in_the_place_of_another_engine(
    stage: Stage, manifest: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (stage.directory / "manifest.json").write_text(manifest)
    assert stage.launch() == 2
    assert message in capsys.readouterr().err
    assert stage.started.argv == []


@pytest.mark.parametrize(
    ("options", "environ", "message"),
    [
        (["./engine"], {}, "'./engine' is no option: the flow is the engine, name no other"),
        (["--port", "x"], {}, "port"),
        ([], {"PATH": "/nonexistent"}, "Node.js is not installed (Debian: apt-get install nodejs npm)"),
        ([], {"BUILD_ID": "../up"}, "BUILD_ID is '../up': it names a directory"),
        ([], {"ENGINE_ID": ".."}, "ENGINE_ID is '..'"),
    ],
)
def test_what_cannot_work_is_said(
    stage: Stage,
    options: list[str],
    environ: dict[str, str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert stage.launch(*options, **environ) == 2
    assert message in capsys.readouterr().err
    assert stage.started.argv == []


def test_a_flow_that_is_not_there_is_said(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = stage.directory / "manifest.json"
    assert launcher.main([str(stage.directory / "none.json")], stage.environ, manifest=manifest) == 2
    assert "none.json: No such file" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_said(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    (stage.directory / "cache").mkdir()
    (stage.directory / "cache" / "engines").write_text("a file")
    assert stage.launch() == 2
    assert "the flow cannot be put into the cache: " in capsys.readouterr().err


def test_what_the_runner_says_of_the_flow_is_said(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    path = put_node(stage.directory / "bin", 'echo "error: $AIWARE_BUILD_RUNTIME is odd" >&2; exit 2')
    assert stage.launch(PATH=path) == 2
    assert capsys.readouterr().err.startswith(f"error: {stage.directory / 'flow.json'} is odd\n")


def test_help_is_there(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert launcher.main(["--help"], {}) == 0
    assert "orbtrio.toolkit.nodered FLOW.json" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["nodered"])
    assert launcher.main(environ={}) == 2
    assert "FLOW.json" in capsys.readouterr().err


# --- What the runner reads -----------------------------------------------------------------------------


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., str]:
    """Let the real runner check a definition, with a stand-in for Node-RED; what it complains of."""

    def run(definition: object, installed: bool = True, **environ: str) -> str:
        file = tmp_path / "runtime.json"
        file.write_text(definition if isinstance(definition, str) else json.dumps(definition))
        if installed:
            package = tmp_path / "node_modules" / "node-red"
            package.mkdir(parents=True, exist_ok=True)
            (package / "index.js").write_text("")
        node = shutil.which("node")
        assert node
        done = subprocess.run(
            [node, str(RUNNER), "--check"],
            env={
                "AIWARE_BUILD_RUNTIME": str(file),
                "NODE_PATH": str(tmp_path / "node_modules"),
                "ORB_NODE_RED": "/cache/nodered/runner",
                **environ,
            },
            capture_output=True,
            text=True,
            timeout=50,
        )
        assert done.returncode == (2 if done.stderr else 0)
        return done.stderr

    return run


@needs_node
@pytest.mark.parametrize(
    "definition",
    [
        FLOW,
        {"flows": FLOW, "rev": "1"},
        {"id": "x", "runtime": {"flows": FLOW}},
        {"runtime": "nodeRed", "buildRuntime": FLOW},
        {"buildRuntime": json.dumps({"flow": FLOW}), "runtimeTTL": 60},
        [{**FLOW[0], "url": "process"}],
        [{**FLOW[0], "url": "/:anything"}],
    ],
)
def test_et_54_a_definition_may_hold_its_flow_in_several_ways(
    check: Callable[..., str], definition: object
) -> None:
    assert check(definition) == ""


@needs_node
@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ("{", "cannot be read as JSON"),
        ({"nodes": []}, 'holds no flow: expected an array of nodes, or an object that has one under "flows"'),
        ('"text"', "holds no flow"),
        (None, "holds no flow"),
        ([1], 'node 0 of the flow has no "id" and "type"'),
        ([*FLOW, {"id": 1, "type": "tab"}], 'node 1 of the flow has no "id" and "type"'),
        ([], 'no "http in" node for POST /process'),
        ([{**FLOW[0], "method": "get"}], 'no "http in" node for POST /process'),
        ([{**FLOW[0], "url": "/other"}], "; it has /other"),
        ([{**FLOW[0], "d": True}], 'no "http in" node for POST /process'),
        ([*FLOW, {"id": "tab", "type": "tab", "disabled": True}], 'no "http in" node for POST /process'),
    ],
)
def test_a_definition_that_cannot_be_an_engine_is_refused(
    check: Callable[..., str], definition: object, message: str
) -> None:
    assert message in check(definition)


@needs_node
def test_the_command_that_installs_node_red_is_said(check: Callable[..., str]) -> None:
    assert check(FLOW, installed=False) == (
        'error: node-red is not installed: npm install --prefix /cache/nodered/runner "node-red@~4.1.0"\n'
    )


@needs_node
def test_without_a_definition_there_is_nothing_to_run(check: Callable[..., str]) -> None:
    assert "AIWARE_BUILD_RUNTIME is not set" in check(FLOW, AIWARE_BUILD_RUNTIME="")


@needs_node
def test_et_42_the_route_is_the_one_of_the_webhook(check: Callable[..., str]) -> None:
    elsewhere = {"VERITONE_WEBHOOK_PROCESS": "http://127.0.0.1:1/other"}
    assert 'no "http in" node for POST /other' in check(FLOW, **elsewhere)
    assert check([{**FLOW[0], "url": "/other"}], **elsewhere) == ""
