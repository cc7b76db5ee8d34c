"""The console's page in a real browser, in front of a real engine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

from orbtrio.conformance.sockets import free_port
from tests.processes.harness import PATIENCE
from tests.toolkit.devtools import Tab, open_tab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

# An engine by the helper for authors: posts what its payload says, and answers or not.
ENGINE: Final = """
import threading, time
from orbtrio.toolkit.engine import EngineFailure, engine

@engine
def parrot(task):
    for output in task.payload.get("results", ()):
        task.heartbeat(infoMs="at it")
        task.result(output)
    if "large" in task.payload:
        task.result("x" * task.payload["large"])
    if "fail" in task.payload:
        raise EngineFailure("rate_limited", task.payload["fail"])
    while task.payload.get("wait") and not task.cancelled:
        time.sleep(0.01)
    return {"object": [{"text": task.read().decode(), "fields": dict(task.fields)}]}

parrot.run()
"""

HOSTILE: Final = "<img src=x onerror='document.title=1'><script>document.title=1</script>"


@contextmanager
def console() -> Iterator[str]:
    """A toolkit with nothing but a console; its URL, when the engine is ready."""
    url = f"http://127.0.0.1:{free_port()}"
    options = ["--console", "--no-worker", "--engine-id", "parrot", "--"]
    toolkit = subprocess.Popen(
        [sys.executable, "-m", "orbtrio.toolkit", *options, sys.executable, "-c", ENGINE],
        env={
            **os.environ,
            "VERITONE_WEBHOOK_READY": f"{url}/readyz",
            "VERITONE_WEBHOOK_PROCESS": f"{url}/process",
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    assert toolkit.stderr is not None
    lines: list[str] = []
    rest = threading.Thread(target=lines.extend, args=(toolkit.stderr,))
    try:
        for line in toolkit.stderr:
            lines.append(line)
            if "serving the console alone" in line:
                break
        rest.start()
        yield re.findall(r"test console: (http://127\.0\.0\.1:\d+/console)\n", "".join(lines))[0]
    finally:
        toolkit.terminate()
        toolkit.wait(PATIENCE)
        rest.join(PATIENCE)
        toolkit.stderr.close()
        print("".join(lines), file=sys.stderr)
    assert toolkit.returncode == 0


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with console() as url, open_tab(tmp_path_factory.mktemp("browser")) as tab:
        tab.go(url)
        yield tab
        assert tab.complaints == []


@pytest.fixture(autouse=True)
def fresh(tab: Tab) -> None:
    tab.call("Page.reload")
    tab.wait("document.readyState === 'complete'")
    tab.resize(1280, 900)


def send(tab: Tab, state: str, **payload: Any) -> str:
    """Send a job; what stands there when it has come so far."""
    if payload:
        tab.fill("#payload", json.dumps(payload))
    tab.run("document.querySelector('#send').click()")
    tab.wait(f"document.querySelector('#state').className === {state!r}")
    text: str = tab.run("document.body.innerText")
    return text


def test_a_chosen_file_goes_to_the_engine_with_its_fields(tab: Tab, tmp_path: Path) -> None:
    chunk = tmp_path / "chunk.txt"
    chunk.write_text("hello ä")
    tab.choose("#file", chunk)
    tab.fill("#endOffsetMS", "1500")
    tab.fill("#metadata", '{"x-aiware-camera": "door"}')
    tab.fill("#others", '{"libraryId": "lib1"}')
    shown = send(tab, "good", mode="library-run")
    assert re.search(r"Complete after \d+\.\d\d s", shown)
    answer = json.loads(tab.run("document.querySelector('#answer').textContent"))
    (found,) = answer["outputs"][0]["output"]["object"]
    assert found["text"] == "hello ä"
    expected = {
        "chunkMimeType": "text/plain",
        "startOffsetMS": "0",
        "endOffsetMS": "1500",
        "payload": '{"mode": "library-run"}',
        "chunk-metadata-x-aiware-camera": "door",
        "libraryId": "lib1",
    }
    assert {name: found["fields"][name] for name in expected} == expected
    # The same is in the log of calls, with how it was answered.
    assert "to the engine: POST" in shown
    assert re.search(r"it answers: 200 application/json · after", shown)
    rows = tab.run("[...document.querySelectorAll('#calls tr')].map((row) => row.textContent)")
    assert "endOffsetMS1500" in rows


def test_heartbeats_and_results_are_shown_as_they_come(tab: Tab) -> None:
    tab.fill("#payload", json.dumps({"results": ["one", "two"], "wait": True}))
    tab.run("document.querySelector('#send').click()")
    tab.wait("document.querySelectorAll('#reports li').length === 4")
    assert tab.run("document.querySelector('#state').className") == "busy"
    kinds = tab.run("[...document.querySelectorAll('#reports summary')].map((each) => each.textContent)")
    assert kinds == ["heartbeat: running", "result", "heartbeat: running", "result"]
    assert "from the engine: POST result 204" in tab.run("document.querySelector('#calls').innerText")
    tab.run("document.querySelector('#cancel').click()")
    tab.wait("document.querySelector('#state').textContent === 'Cancelled'")
    assert tab.run("document.querySelector('#send').disabled") is False


def test_a_refusal_by_the_engine_is_said_and_each_attempt_is_shown(tab: Tab) -> None:
    shown = send(tab, "bad", fail="no more than three a day")
    assert re.search(r"Failed after \d+\.\d\d s", shown)
    assert (
        tab.run("document.querySelector('#reason').textContent") == "rate_limited: no more than three a day"
    )
    assert shown.count("it answers: 500") == 3


def test_what_an_engine_posts_wrongly_is_shown_with_what_was_wrong(tab: Tab) -> None:
    shown = send(tab, "bad", results=[None])
    assert "POST result 400" in shown
    assert "'output' is required" in shown


def test_what_an_engine_says_is_text(tab: Tab) -> None:
    shown = send(tab, "bad", fail=HOSTILE, results=[{HOSTILE: HOSTILE}])
    assert HOSTILE in shown
    tab.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert HOSTILE in tab.run("document.querySelector('#reports').textContent")
    assert tab.run("document.title") == "parrot · test console"
    assert tab.run("document.querySelectorAll('#shown img, #shown script').length") == 0


def test_what_is_no_json_is_not_sent(tab: Tab) -> None:
    for field in ("#payload", "#others"):
        tab.fill(field, "{")
        tab.run("document.querySelector('#send').click()")
        assert tab.run(f"document.querySelector('{field}').validationMessage").startswith(
            "expected a JSON object"
        )
        tab.fill(field, "")
    assert tab.run("document.querySelector('#state').textContent") == "Nothing sent yet"
    assert tab.run("document.querySelector('form details').open") is True
    assert tab.run("document.querySelector('#payload').validationMessage") == ""


def test_an_answer_of_megabytes_does_not_stop_the_page(tab: Tab) -> None:
    send(tab, "bad", large=3_000_000, fail="enough")
    shown = tab.run("document.querySelector('#reports pre').textContent")
    assert shown.endswith("characters more")
    assert len(shown) < 30_000


@pytest.mark.parametrize("width", [320, 390, 859, 1280])
def test_nothing_is_wider_than_the_screen(tab: Tab, width: int) -> None:
    tab.resize(width, 800)
    send(tab, "bad", results=["x" * 500], fail="y" * 300)
    tab.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert tab.run("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_told_from_its_background(tab: Tab, dark: bool) -> None:
    tab.resize(390, 800, dark=dark)
    send(tab, "bad", fail="no")
    contrast = """(selector) => {
      const light = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(Number).map((each) => {
          const part = each / 255;
          return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const element = document.querySelector(selector);
      let under = element;
      while (getComputedStyle(under).backgroundColor === "rgba(0, 0, 0, 0)") under = under.parentElement;
      const values = [getComputedStyle(element).color, getComputedStyle(under).backgroundColor].map(light);
      return (Math.max(...values) + 0.05) / (Math.min(...values) + 0.05);
    }"""
    for selector in ("h1", "header p", "label", "#payload", "#send", "#reason", "#answer", "#calls .soft"):
        assert tab.run(f"({contrast})({selector!r})") >= 4.5, selector


def test_another_site_cannot_use_it(tab: Tab, tmp_path: Path) -> None:
    url = tab.run("location.href")
    page = tmp_path / "evil.html"
    page.write_text("<title>another site</title>")
    script = f"""(async () => {{
      const send = (headers) => fetch({url + "/jobs"!r}, {{
        method: "POST", headers, body: JSON.stringify({{ input: {{}}, hasChunk: false }}) + "\\n",
      }}).then((answer) => String(answer.status), (error) => error.name);
      const frame = document.createElement("iframe");
      const framed = new Promise((resolve) => {{ frame.onload = () => resolve(frame.contentDocument); }});
      frame.src = {url!r};
      document.body.append(frame);
      return [
        await send({{ "x-orb-console": "1" }}),
        await send({{ "content-type": "text/plain" }}),
        await fetch({url!r}).then(() => "read", (error) => error.name),
        String(await framed),
      ];
    }})()"""
    tab.go(page.as_uri())
    try:
        assert tab.run(script) == ["TypeError", "TypeError", "TypeError", "null"]
    finally:
        tab.go(url)
        tab.complaints.clear()  # The browser complains of what was refused.
