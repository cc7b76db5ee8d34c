from __future__ import annotations

import json
import os
import re
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from orbtrio._nursery import open_service_nursery
from orbtrio.toolkit import console
from orbtrio.toolkit.console import Console
from orbtrio.toolkit.serving import serve
from tests.toolkit.wire import Answer, ask, read_answer, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from orbtrio.toolkit.settings import ToolkitSettings
    from orbtrio.worker import Job

    Settings = Callable[..., ToolkitSettings]
    Handler = Callable[[Job], Awaitable[dict[str, Any]]]

PATIENCE = 50.0
OURS = {"host": "localhost:1234", "origin": "http://localhost:1234", "x-orb-console": "1"}


async def succeed(job: Job) -> dict[str, Any]:
    chunk = job.input.get("chunk")
    data = await trio.Path(chunk).read_bytes() if chunk else None
    return {"status": "complete", "input": {**job.input, "chunk": None if data is None else data.decode()}}


@asynccontextmanager
async def serving(
    settings: ToolkitSettings, handler: Handler = succeed, *, ready: bool = True
) -> AsyncIterator[tuple[Console, int]]:
    """A console that serves, and its port."""
    made = Console(settings, lambda client: handler)
    if ready:
        made.ready.set()
    stop = trio.Event()
    async with open_service_nursery() as nursery:
        port = await nursery.start(lambda **status: serve(made, stop=stop, **status))
        yield made, port
        stop.set()


def body_of(job_input: Any, chunk: bytes | None = None) -> bytes:
    line = json.dumps({"input": job_input, "hasChunk": chunk is not None}).encode()
    return line + b"\n" + (chunk or b"")


def events_of(answer: Answer) -> list[tuple[str, dict[str, Any]]]:
    found = re.findall(rb"event: (\w+)\ndata: (.*)\n\n", answer.body)
    assert answer.complete
    return [(name.decode(), json.loads(data)) for name, data in found]


async def run(port: int, job_input: Any, chunk: bytes | None = None) -> list[tuple[str, dict[str, Any]]]:
    answer = await ask(port, "POST", "/console/jobs", body_of(job_input, chunk), OURS)
    assert answer.headers["content-type"] == "text/event-stream"
    return events_of(answer)


async def test_the_page_names_its_engine_and_nothing_of_it_comes_from_elsewhere(
    toolkit_settings: Settings,
) -> None:
    settings = toolkit_settings(engine_id='<b id="x">')
    async with serving(settings) as (_, port):
        answer = await ask(port, "GET", "/console", headers=OURS)
        assert (await ask(port, "GET", "/console/", headers=OURS)).body == answer.body
        head = await ask(port, "HEAD", "/console", headers=OURS)
    page = answer.body.decode()
    assert (head.status, head.body) == (200, b"")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<h1>&lt;b id=&quot;x&quot;&gt;</h1>" in page
    assert settings.process_url in page
    assert re.findall(r'(?:src|href|action)="(?!data:,)', page) == []
    assert re.findall(r"url\(|@import|innerHTML|insertAdjacentHTML|document\.write|eval\(", page) == []


async def test_only_its_own_script_runs_on_the_page_and_nobody_frames_it(toolkit_settings: Settings) -> None:
    async with serving(toolkit_settings()) as (_, port):
        answer = await ask(port, "GET", "/console", headers=OURS)
    policy = answer.headers["content-security-policy"]
    assert re.fullmatch(
        r"default-src 'none'; script-src 'sha256-[^']{44}'; style-src 'sha256-[^']{44}'; connect-src 'self'; "
        r"img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        policy,
    )
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] == "no-store"
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    "host", ["127.0.0.1:80", "localhost", "LOCALHOST:1", "[::1]:8", "192.168.1.7:9", "engines.example:1"]
)
async def test_addresses_and_our_own_name_lead_to_the_console(toolkit_settings: Settings, host: str) -> None:
    async with serving(toolkit_settings(host="Engines.example")) as (_, port):
        assert (await ask(port, "GET", "/console", headers={"host": host})).status == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[::1"])
async def test_a_name_that_somebody_lets_point_here_does_not(toolkit_settings: Settings, host: str) -> None:
    async with serving(toolkit_settings()) as (_, port):
        page = await ask(port, "GET", "/console", headers={"host": host})
        job = await ask(
            port, "POST", "/console/jobs", body_of({}), {**OURS, "host": host, "origin": f"http://{host}"}
        )
    assert (page.status, job.status) == (403, 403)
    assert page.body.startswith(b"the console is not at ")


@pytest.mark.parametrize(
    "change",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://localhost:9"},
        {"origin": "null"},
        # A form of another site's can send a body, but no such header.
        {"x-orb-console": "", "content-type": "text/plain"},
    ],
)
async def test_other_sites_cannot_send_jobs(toolkit_settings: Settings, change: dict[str, str]) -> None:
    begun = []

    async def note(job: Job) -> dict[str, Any]:
        begun.append(job)
        return {}

    async with serving(toolkit_settings(), note) as (_, port):
        answer = await ask(port, "POST", "/console/jobs", body_of({}), {**OURS, **change})
        asked = await ask(
            port, "OPTIONS", "/console/jobs", headers={**OURS, "access-control-request-method": "POST"}
        )
    assert (answer.status, answer.body) == (403, b"only the console's own page may send jobs\n")
    assert asked.status == 405
    assert not any(name.startswith("access-control") for name in asked.headers)
    assert begun == []


async def test_a_program_without_an_origin_may_send_jobs(toolkit_settings: Settings) -> None:
    async with serving(toolkit_settings()) as (_, port):
        answer = await ask(port, "POST", "/console/jobs", body_of({}), {**OURS, "origin": ""})
        assert answer.status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/console/jobs", 405), ("POST", "/console", 405), ("GET", "/other", 404)],
)
async def test_there_is_nothing_else(toolkit_settings: Settings, method: str, path: str, status: int) -> None:
    async with serving(toolkit_settings()) as (_, port):
        assert (await ask(port, method, path, headers=OURS)).status == status
        upgrade = {
            **OURS,
            "connection": "upgrade",
            "upgrade": "websocket",
            "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
            "sec-websocket-version": "13",
        }
        assert (await ask(port, "GET", "/console", headers=upgrade)).status == 403


async def test_a_job_has_the_fields_and_the_file_that_were_sent(toolkit_settings: Settings) -> None:
    chunk = b"first line\nsecond\n" * 50_000
    async with serving(toolkit_settings()) as (_, port):
        ((name, done),) = await run(port, {"engineType": "chunk", "payload": "{}"}, chunk)
    assert (name, done["status"]) == ("done", "complete")
    sent = json.loads(done["text"])["input"]
    assert sent == {"engineType": "chunk", "payload": "{}", "chunk": chunk.decode()}


@pytest.mark.parametrize(("chunk", "read"), [(None, None), (b"", "")])
async def test_an_empty_file_is_not_none(
    toolkit_settings: Settings, chunk: bytes | None, read: str | None
) -> None:
    async with serving(toolkit_settings()) as (_, port):
        ((_, done),) = await run(port, {}, chunk)
    assert json.loads(done["text"])["input"]["chunk"] == read


async def test_what_the_job_reports_is_shown_while_it_runs(toolkit_settings: Settings) -> None:
    go_on = trio.Event()

    async def report(job: Job) -> dict[str, Any]:
        job.report(kind="heartbeat", status="running")
        job.report(kind="result", index=0, output={"n": 1})
        await go_on.wait()
        return {"error": "invalid_data: odd"}

    async with (
        serving(toolkit_settings(), report) as (_, port),
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
    ):
        await stream.send_all(request("POST", "/console/jobs", body_of({}), OURS))
        seen = b""
        with trio.fail_after(PATIENCE):
            while seen.count(b"event: report") < 2:
                seen += await stream.receive_some()
        go_on.set()
        while part := await stream.receive_some():
            seen += part
    data = [json.loads(line) for line in re.findall(rb"data: (.*)\n", seen)]
    assert [(each.get("kind"), each.get("status")) for each in data] == [
        ("heartbeat", "running"),
        ("result", None),
        (None, None),
    ]
    assert json.loads(data[1]["text"]) == {"kind": "result", "index": 0, "output": {"n": 1}}
    assert data[2]["error"] == "invalid_data: odd"


async def test_who_closes_the_page_has_cancelled_the_job(toolkit_settings: Settings) -> None:
    begun, cancelled = trio.Event(), trio.Event()
    chunks: list[Path] = []

    async def wait(job: Job) -> dict[str, Any]:
        chunks.append(Path(job.input["chunk"]))
        assert chunks[0].exists()
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()
        raise AssertionError

    async with serving(toolkit_settings(), wait) as (_, port):
        with trio.fail_after(PATIENCE):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(request("POST", "/console/jobs", body_of({}, b"chunk"), OURS))
                await begun.wait()
            await cancelled.wait()
            while chunks[0].exists():  # noqa: ASYNC110  (its deletion tells nobody)
                await trio.sleep(0.01)


async def test_files_are_deleted_when_their_job_is_done(
    toolkit_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    chunks: list[Path] = []

    async def note(job: Job) -> dict[str, Any]:
        chunks.append(Path(job.input["chunk"]))
        assert chunks[-1].parent.stat().st_mode & 0o077 == 0
        return {}

    async with serving(toolkit_settings(), note) as (_, port):
        await run(port, {}, b"chunk")
        await ask(port, "POST", "/console/jobs", body_of([], b"refused"), OURS)
    assert chunks[0].is_relative_to(tmp_path)
    assert [name for name in os.listdir(tmp_path) if name.startswith("orbtrio-console")] == []


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"no JSON\n", 400, "the first line is not JSON: "),
        (b"[" * 100_000 + b"\n", 400, "the first line is not JSON: "),
        (b"[]\n", 400, 'the first line must be {"input": '),
        (body_of(5), 400, 'the first line must be {"input": '),
        (body_of({"chunk": "/etc/passwd"}), 400, "'chunk' would be a path on the toolkit's machine"),
        (body_of({"CHUNK": "/etc/passwd"}), 400, "'chunk' would be a path on the toolkit's machine"),
        (b"x" * (1 << 21), 413, "an input of more than 1024 KiB"),
    ],
)
async def test_what_cannot_be_a_job_is_refused_in_words(
    toolkit_settings: Settings, body: bytes, status: int, text: str
) -> None:
    async with serving(toolkit_settings()) as (_, port):
        answer = await ask(port, "POST", "/console/jobs", body, OURS)
    assert answer.status == status
    assert answer.body.decode().startswith(text)


async def test_files_are_not_larger_than_a_jobs(
    toolkit_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_LARGEST_CHUNK", 3 << 20)
    too_large = body_of({}, b"x" * (5 << 20))
    async with serving(toolkit_settings()) as (_, port):
        announced = await ask(port, "POST", "/console/jobs", too_large, OURS)
        chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [too_large]) + b"0\r\n\r\n"
        headers = {**OURS, "content-length": "", "transfer-encoding": "chunked"}
        silent = await ask(port, "POST", "/console/jobs", chunked, headers)
    assert announced.status == silent.status == 413
    assert announced.body.startswith(b"a file of more than 3 MiB: serve it, and give its cacheURI")


async def test_a_refusal_waits_for_no_more_than_a_file(
    toolkit_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_DISCARDED", 10)
    async with serving(toolkit_settings(), ready=False) as (_, port):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            head = request("POST", "/console/jobs", b"", {**OURS, "content-length": "1000"})
            await stream.send_all(head + b"x" * 20)
            with trio.fail_after(PATIENCE):
                assert (await read_answer(stream, "POST")).status == 503
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(head)


async def test_a_request_that_breaks_off_is_no_job(toolkit_settings: Settings) -> None:
    async with serving(toolkit_settings()) as (_, port):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            head = request("POST", "/console/jobs", b"", {**OURS, "content-length": "1000"})
            await stream.send_all(head + body_of({}))
        assert len(await run(port, {})) == 1


async def test_nothing_is_sent_to_an_engine_that_is_not_ready(toolkit_settings: Settings) -> None:
    async with serving(toolkit_settings(), ready=False) as (made, port):
        answer = await ask(port, "POST", "/console/jobs", body_of({}), OURS)
        assert answer.status == 503
        assert b"the engine is not ready" in answer.body
        made.ready.set()
        assert len(await run(port, {})) == 1


async def test_jobs_at_a_time_are_limited(
    toolkit_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_MOST_RUNS", 1)
    begun, go_on = trio.Event(), trio.Event()

    async def wait(job: Job) -> dict[str, Any]:
        begun.set()
        await go_on.wait()
        return {}

    async with serving(toolkit_settings(), wait) as (_, port), trio.open_nursery() as nursery:
        nursery.start_soon(run, port, {})
        await begun.wait()
        answer = await ask(port, "POST", "/console/jobs", body_of({}), OURS)
        assert (answer.status, answer.body[:34]) == (503, b"1 jobs of the console are in hand:")
        go_on.set()


async def test_a_fault_of_ours_does_not_look_like_a_silent_engine(
    toolkit_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(job: Job) -> dict[str, Any]:
        raise LookupError("lost")

    async with serving(toolkit_settings(), fail) as (_, port):
        ((_, done),) = await run(port, {})
    assert done["error"] == "the toolkit: LookupError: lost"
    assert [record.getMessage() for record in caplog.records] == ["a job of the console has failed"]
    caplog.clear()


@pytest.mark.parametrize(
    ("host", "url", "local"),
    [
        ("127.0.0.1", "http://127.0.0.1:9/console", True),
        ("localhost", "http://localhost:9/console", True),
        ("::1", "http://[::1]:9/console", True),
        ("0.0.0.0", "http://localhost:9/console", False),
        ("::", "http://localhost:9/console", False),
        ("engines.example", "http://engines.example:9/console", False),
    ],
)
def test_it_says_where_it_is_and_whether_others_reach_it(
    toolkit_settings: Settings,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    host: str,
    url: str,
    local: bool,
) -> None:
    Console(toolkit_settings(host=host), lambda client: succeed).announce(9)
    assert capsys.readouterr().err == f"test console: {url}\n"
    assert [record.getMessage() for record in caplog.records] == (
        [] if local else [f"whoever can reach port 9 at {host} can use the test console"]
    )
