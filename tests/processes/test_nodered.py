"""Flows as engines, by the real Node-RED; it is installed once, outside the repository."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from orbtrio.conformance.sockets import free_port
from orbtrio.toolkit import nodered
from orbtrio.toolkit.engine import keep_library
from tests.processes.harness import PATIENCE, ended, read_line, running_engine
from tests.processes.test_toolkit import StockClient
from tests.processes.toolkit_process import running_toolkit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.processes.harness import EngineProcess

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]

RUNNER: Final = Path(nodered.__file__).with_name("main.js")
VERSION: Final = json.loads(RUNNER.with_name("package.json").read_text())["dependencies"]["node-red"]

# Of nodes' own files: a type that adds a field to the answer.
NODE: Final = """
module.exports = (RED) => RED.nodes.registerType("%(type)s", function (config) {
  RED.nodes.createNode(this, config);
  this.on("input", (message, send, done) => {
    message.payload.%(field)s = "%(type)s";
    send(message);
    done();
  });
});
"""


def flow(*types: str) -> list[dict[str, Any]]:
    """A flow that answers with the chunk in capitals, after nodes of these types."""
    script = """
      const chunk = msg.req.files.find((file) => file.fieldname === "chunk");
      const words = chunk.buffer.toString().toUpperCase();
      msg.payload = { object: [{ type: "text", text: words, offset: Number(msg.payload.startOffsetMS) }] };
      return msg;
    """
    more = [
        {"id": f"more-{number}", "type": name, "z": "tab", "wires": [[f"more-{number + 1}"]]}
        for number, name in enumerate(types)
    ]
    return [
        {"id": "tab", "type": "tab", "label": "an engine"},
        {"id": "in", "type": "http in", "z": "tab", "url": "/process", "method": "post", "upload": True,
         "wires": [["work"]]},
        {"id": "work", "type": "function", "z": "tab", "func": script, "outputs": 1, "wires": [["more-0"]]},
        *more,
        {"id": f"more-{len(types)}", "type": "http response", "z": "tab", "wires": []},
    ]  # fmt: skip


@pytest.fixture(scope="module")
def node_red() -> Path:
    """The directory of an installed Node-RED."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("no npm and node on PATH (Debian: apt-get install nodejs npm)")

    def install(directory: Path) -> None:
        command = [
            npm,
            "install",
            "--no-audit",
            "--no-fund",
            "--prefix",
            str(directory),
            f"node-red@{VERSION}",
        ]
        installed = subprocess.run(command, capture_output=True, text=True, timeout=400)
        if installed.returncode != 0:
            pytest.skip(f"node-red cannot be installed: {installed.stderr.strip()[-500:]}")

    cache = Path(tempfile.gettempdir()) / f"orbtrio-tests-{os.getuid()}"
    cache.mkdir(mode=0o700, exist_ok=True)
    assert cache.stat().st_uid == os.getuid()
    return keep_library(cache, install, name=f"node-red-{VERSION}")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    with running_engine(tmp_path / "data") as engine:
        yield engine


def ask(engine: EngineProcess, text: str) -> dict[str, Any]:
    client = StockClient(engine)
    client.submit("flow", {"job": text}, startOffsetMS=1500)
    (output,) = client.responses(1).values()
    client.close()
    assert output["status"] == "complete", output
    answer: dict[str, Any] = output["outputs"][0]["output"]
    return answer


def test_et_56_57_58_65_a_flow_is_a_worker_by_the_launcher(
    engine: EngineProcess, node_red: Path, tmp_path: Path
) -> None:
    file = tmp_path / "flow.json"
    file.write_text(json.dumps({"runtime": {"flows": flow()}}))
    # It has no ready route.
    with running_toolkit(
        engine,
        tmp_path,
        "flow",
        [str(file)],
        ready="",
        module="orbtrio.toolkit.nodered",
        ORB_NODE_RED=str(node_red),
    ):
        expected = {"type": "text", "text": "HELLO Ä", "offset": 1500}
        assert ask(engine, "hello ä")["object"] == [expected]
        # More than a form's field may have.
        assert len(ask(engine, "x" * 1_900_000)["object"][0]["text"]) == 1_900_000


def test_et_59_62_64_in_an_image_nodes_come_from_both_directories(
    engine: EngineProcess, node_red: Path, tmp_path: Path
) -> None:
    (tmp_path / "runtime.json").write_text(json.dumps(flow("shared-node", "prepared-node")))
    shared = tmp_path / "share"
    shared.mkdir()
    (shared / "shared.js").write_text(NODE % {"type": "shared-node", "field": "first"})
    (shared / "shared.html").write_text("<script></script>")
    # As npm would have put it there.
    prepared = tmp_path / "cache/nodered/engines/flow-7/node_modules/node-red-contrib-prepared"
    prepared.mkdir(parents=True)
    nodes = {"version": "1.0.0", "node-red": {"nodes": {"prepared": "node.js"}}}
    (prepared / "package.json").write_text(json.dumps({"name": prepared.name, **nodes}))
    (prepared / "node.js").write_text(NODE % {"type": "prepared-node", "field": "second"})
    (prepared / "node.html").write_text("<script></script>")
    with running_toolkit(
        engine,
        tmp_path,
        "flow",
        ["node", str(RUNNER)],
        ready="",
        BUILD_ID="7",
        NODE_PATH=str(node_red / "node_modules"),
        AIWARE_BUILD_RUNTIME=str(tmp_path / "runtime.json"),
        AIWARE_AUTOMATE_SHARE_FOLDER=str(shared),
    ):
        answer = ask(engine, "hello")
        assert (answer["first"], answer["second"]) == ("shared-node", "prepared-node")


def start(node_red: Path, file: Path, url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["node", str(RUNNER)],
        env={
            **os.environ,
            "NODE_PATH": str(node_red / "node_modules"),
            "AIWARE_BUILD_RUNTIME": str(file),
            "VERITONE_WEBHOOK_PROCESS": url,
            "TMPDIR": str(file.parent),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_node_that_is_not_installed_ends_the_runner_in_words(node_red: Path, tmp_path: Path) -> None:
    file = tmp_path / "runtime.json"
    file.write_text(json.dumps(flow("nobody-has-this")))
    with ended(runner := start(node_red, file, f"http://127.0.0.1:{free_port()}/process")):
        _, errors = runner.communicate(timeout=PATIENCE)
    assert runner.returncode == 2
    assert "error: the flow cannot start: missing-types: nobody-has-this; install it in" in errors


def test_the_runner_ends_when_it_is_told_to_and_leaves_nothing(node_red: Path, tmp_path: Path) -> None:
    file = tmp_path / "runtime.json"
    file.write_text(json.dumps(flow()))
    with ended(runner := start(node_red, file, f"http://127.0.0.1:{free_port()}/process")):
        while "the flow answers at" not in (line := read_line(runner)):
            assert line
        runner.send_signal(signal.SIGTERM)
        runner.communicate(timeout=PATIENCE)
    assert runner.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["runtime.json"]
