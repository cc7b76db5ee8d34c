"""The benchmark measures, and it finds what it says it finds: answers that are wrong, missing or too many."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import cbor2
import pytest

from benchmarks import wire
from benchmarks.cases import CASES, QUICK, Case, Echo, Image, Vector, job_name, request
from benchmarks.end_to_end import main, measure
from benchmarks.floor import Floor
from benchmarks.load import Load, WrongAnswer
from benchmarks.processes import EngineFailed, run_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.processes import EngineProcess

BASELINE: Final = ("-m", "benchmarks.baseline")

# An engine that is as good as the baseline but for one of its methods.
LIAR: Final = """
import cbor2
from benchmarks import baseline

honest = baseline.Engine.{method}

def lying(self, {arguments}):
    {lie}

baseline.Engine.{method} = lying
baseline.main()
"""


def liar(lie: str, method: str = "response", arguments: str = "job_id, output") -> tuple[str, str]:
    return "-c", LIAR.format(lie=lie, method=method, arguments=arguments)


@pytest.fixture
def small() -> Case:
    return Case(name="small", jobs=64, jobs_per_request=4, clients=2, outstanding=8, max_batch_size=4)


@pytest.fixture(scope="module")
def plain_engine() -> Iterator[EngineProcess]:
    with run_engine(BASELINE) as engine:
        yield engine


@pytest.mark.processes
def test_a_case_fills_a_line_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--repeat", "1", "--cases", "100B-req32-batch32"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(
        r"100B-req32-batch32( +\d+\.\d +\(\d+\.\d-\d+\.\d\)){2} +\d+\.\dx +\d+\.\d +[\d,]+ +32\.0", line
    )


@pytest.mark.processes
def test_latencies_have_a_line_per_engine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--repeat", "1", "--cases", "lone-batch1"]) == 0
    ours, baseline = capsys.readouterr().out.splitlines()[-2:]
    assert re.fullmatch(r"lone-batch1 +orbtrio( +\d+\.\d\d){4} +\d+ +\d+\.\d", ours)
    assert baseline.split()[1] == "baseline"


@pytest.mark.processes
def test_pings_are_timed_while_the_load_runs(plain_engine: EngineProcess, small: Case) -> None:
    case = Case(name="pings", jobs=1_000, clients=2, bystanders=3, pings=True, latency=True)
    figures, _ = measure(case, {"orbtrio": plain_engine}, rounds=1)
    assert 0 < len(figures["orbtrio"].latencies) < 1_000
    assert all(0 < latency < 10 for latency in figures["orbtrio"].latencies)


@pytest.mark.processes
def test_jobs_by_the_clock_take_the_time_they_should(plain_engine: EngineProcess) -> None:
    case = Case(
        name="paced", jobs=40, clients=1, workers=1, jobs_per_second=200, max_latency_ms=1, latency=True
    )
    figures, _ = measure(case, {"orbtrio": plain_engine}, rounds=1)
    assert len(figures["orbtrio"].latencies) == 40
    assert figures["orbtrio"].rate[0] < 210


@pytest.mark.processes
@pytest.mark.parametrize(
    ("lie", "found"),
    [
        pytest.param(
            "return honest(self, job_id, {**output, 'text': output['text'][::-1]})",
            "wrong answer",
            id="garbled",
        ),
        pytest.param(
            "return honest(self, job_id.replace('01', '00'), {'text': output['text'].replace('01', '00')})",
            "answered twice, or never asked for",
            id="twice",
        ),
        pytest.param(
            "return cbor2.dumps({'job_id': job_id, 'output': output})", "wrong answer", id="no type"
        ),
    ],
)
def test_a_wrong_answer_is_found(
    lie: str, found: str, small: Case, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.end_to_end.CASES", (small,))
    assert main(["--repeat", "1"], engines={"orbtrio": liar(lie)}) == 1
    assert found in capsys.readouterr().err


@pytest.mark.processes
def test_a_missing_answer_is_found(small: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.load._PATIENCE", 0.5)
    silent = liar("return '00000003' in output['text'] or honest(self, output)", "_deliver", "output")
    with (
        run_engine(silent) as engine,
        pytest.raises(WrongAnswer, match="no answer, for example job-00000003"),
    ):
        measure(small, {"orbtrio": engine}, rounds=1)


@pytest.mark.processes
def test_an_engine_that_ends_is_found(small: Case) -> None:
    with (
        pytest.raises(EngineFailed, match="ended with status 3: bye"),
        run_engine(("-c", "print('bye', flush=True); raise SystemExit(3)")),
    ):
        pass


@pytest.mark.processes
def test_an_engine_that_hangs_up_is_found(plain_engine: EngineProcess, small: Case) -> None:
    with pytest.raises(WrongAnswer, match="1008: wrong worker_secret"):
        Load(plain_engine.port, "not the secret", small)


def test_case_names_are_unique_and_those_of_the_quick_ones_exist() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert set(names) > QUICK


def test_an_unknown_case_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--cases", "100b"])
    assert "no case is called 100b" in capsys.readouterr().err


@pytest.mark.parametrize("work", [Echo(100), Echo(10_000), Vector()], ids=str)
def test_what_workers_answer_is_what_is_expected(work: Echo | Vector) -> None:
    for number in (0, 61, 12_345_678):
        output = cbor2.loads(work.entry("id-1", work.input(number)))
        assert output == {"id": "id-1", **work.expected(number)}
        assert work.expected(number) != work.expected(number + 1)


def test_an_image_is_a_resource_with_its_number_in_it() -> None:
    message = request(Image(1000), [7, 8])
    assert [len(resource["data"]) for resource in message["resources"]] == [1000, 1000]
    assert message["resources"][0]["data"] != message["resources"][1]["data"]
    assert [job["job_id"] for job in message["jobs"]] == [job_name(7), job_name(8)]


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_frames_are_taken_apart_wherever_they_break(size: int) -> None:
    payload = b"x" * size
    head = wire.frame(payload)[: {0: 2, 125: 2, 126: 4, 65_535: 4, 65_536: 10}[size]]
    unmasked = bytes((head[0], head[1] & 0x7F)) + head[2:] + payload + b"\x89\x01p"
    for cut in {0, 1, 2, len(head) - 1, len(head), len(unmasked) - 3, len(unmasked)}:
        first, _, rest = wire.take_frames(unmasked[:cut])
        second, controls, rest = wire.take_frames(rest + unmasked[cut:])
        assert first + second == [payload]
        assert rest == b""
        assert controls in ([(wire.PING, b"p")], [])


@pytest.mark.parametrize("entries", [1, 24, 256])
def test_outputs_are_cbor(entries: int) -> None:
    message = wire.output_message([cbor2.dumps({"id": str(index)}) for index in range(entries)])
    assert len(cbor2.loads(message)["output"]) == entries


def test_the_floor_counts_every_message_of_a_job() -> None:
    small, large = (Floor(Case(name="any", jobs=32, work=Echo(size))).measure() for size in (100, 100_000))
    assert 0 < small < large < 0.01
