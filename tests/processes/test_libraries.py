"""Trainings of libraries and what uses them, by several instances of an engine that share a cache."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

from tests.processes.harness import running_engine, wait_until
from tests.processes.test_toolkit import StockClient
from tests.processes.toolkit_process import running_toolkit

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

# An engine by the helper for authors. Its model is two files that belong together; it is downloaded slowly.
ENGINE: Final = """
import sys, time, uuid
from pathlib import Path
from orbtrio.toolkit.engine import engine

log = Path(sys.argv[1])

def download(attempt):
    stamp = uuid.uuid4().hex
    (attempt / "first").write_text(stamp)
    with log.open("a") as lines:
        lines.write("downloaded\\n")
    time.sleep(0.3)
    (attempt / "second").write_text(stamp)

@engine
def learner(task):
    if task.payload.get("mode") == "library-train":
        (task.library_directory / "trained").write_text(task.fields["libraryId"])
        task.heartbeat(infoMs="half of it")
        return None
    model = task.library(download)
    first, second = (model / name for name in ("first", "second"))
    return {"object": [{"whole": first.read_text() == second.read_text(), "path": str(model)}]}

learner.run()
"""
LIBRARY: Final = {"libraryId": "lib1", "libraryEngineModelId": "lem1"}


def test_et_126_128_129_130_131_a_training_is_no_chunk_and_ends_when_its_engine_says_so(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    with running_engine(tmp_path / "data") as engine:
        command = ["--", sys.executable, "-c", ENGINE, str(log)]
        with running_toolkit(engine, tmp_path, "learner", command):
            client = StockClient(engine)
            job = {"job_id": "train", "worker_type": "et:learner", "input": {}}
            job["input"] = {"payload": {"mode": "library-train", **LIBRARY}}
            client.send({"type": "worker_request", "jobs": [job]})
            output = client.responses(1)["train"]
            client.close()
    assert (output["status"], output["outputs"]) == ("complete", [])
    assert (tmp_path / "cache/1/libraries/lib1/lem1/trained").read_text() == "lib1"


def test_et_132_133_134_135_136_instances_share_one_whole_model(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_engine(tmp_path / "data") as engine, ExitStack() as toolkits:
        command = ["--", sys.executable, "-c", ENGINE, str(log)]
        for _ in range(3):
            toolkits.enter_context(running_toolkit(engine, tmp_path, "learner", command))
        wait_until(lambda: engine.metrics().get('orb_workers{type="et:learner"}', 0) == 3)
        client = StockClient(engine)
        texts = {f"job-{number}": "chunk" for number in range(12)}
        client.submit("learner", texts, payload={"mode": "library-run", **LIBRARY})
        outputs = client.responses(len(texts))
        client.close()
    library = tmp_path / "cache/1/libraries/lib1/lem1"
    seen = [output["outputs"][0]["output"]["object"] for output in outputs.values()]
    assert seen == [[{"whole": True, "path": str(library / "model")}]] * len(texts)
    assert [path.name for path in library.iterdir()] == ["model"]
    # Each instance at most once, and none of those that came later.
    assert 1 <= len(log.read_text().splitlines()) <= 3
