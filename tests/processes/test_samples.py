"""The sample engines as workers, each through a toolkit and an engine, asked by a stock client."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from orbtrio.toolkit import samples
from tests.processes.harness import running_engine
from tests.processes.test_toolkit import StockClient
from tests.processes.toolkit_process import running_toolkit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.processes.harness import EngineProcess

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

SAMPLES: Final = Path(samples.__file__).parent


def need(program: str, install: str) -> str:
    if shutil.which(program) is None:
        pytest.skip(f"no {program} on PATH (Debian: apt-get install {install})")
    return program


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    with running_engine(tmp_path / "data") as engine:
        yield engine


def ask(engine: EngineProcess, engine_id: str, text: str, **fields: Any) -> dict[str, Any]:
    client = StockClient(engine)
    client.submit(engine_id, {"job": text}, **fields)
    (output,) = client.responses(1).values()
    client.close()
    return output


def test_et_31_the_python_sample_counts_words(engine: EngineProcess, tmp_path: Path) -> None:
    command = ["--", sys.executable, "-m", "orbtrio.toolkit.samples.words"]
    with running_toolkit(engine, tmp_path, "words", command):
        output = ask(engine, "words", "Hello world hello", endOffsetMS=1000)
        assert output["status"] == "complete"
        (found,) = output["outputs"]
        assert [(each["object"]["label"], each["object"]["count"]) for each in found["output"]["series"]] == [
            ("hello", 2),
            ("world", 1),
        ]
        assert found["output"]["series"][0]["stopTimeMs"] == 1000
        nothing = ask(engine, "words", "  ")
        assert (nothing["status"], nothing["outputs"]) == ("ignored", [])


def test_et_33_34_the_javascript_sample_hands_in_lines(engine: EngineProcess, tmp_path: Path) -> None:
    command = ["--", need("node", "nodejs"), str(SAMPLES / "lines.js")]
    with running_toolkit(engine, tmp_path, "lines", command):
        output = ask(engine, "lines", "a\nb\n\nc ä", engineType="stream")
        assert output["status"] == "complete"
        assert [each["output"]["object"][0]["text"] for each in output["outputs"]] == ["a", "b", "", "c ä"]


# Also one longer than a pipe: httpd writes all of it to the script, which reads but the first part.
@pytest.mark.parametrize("size", [17, 3_000_000])
def test_et_30_the_shell_sample_says_how_large_a_chunk_is(
    engine: EngineProcess, tmp_path: Path, size: int
) -> None:
    need("busybox", "busybox")
    command = ["--", "sh", str(SAMPLES / "size.sh")]
    paths = {"ready": "/cgi-bin/readyz", "process": "/cgi-bin/process"}
    with running_toolkit(engine, tmp_path, "size", command, **paths):
        chunk = tmp_path / "chunk"
        chunk.write_bytes(os.urandom(size))
        client = StockClient(engine)
        job = {"job_id": "job", "worker_type": "et:size", "input": {"chunk": str(chunk)}}
        client.send({"type": "worker_request", "jobs": [job]})
        output = client.responses(1)["job"]
        client.close()
        assert output["outputs"][0]["output"]["object"] == [{"type": "size", "bytes": size}]
