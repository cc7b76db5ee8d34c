"""Pages in a headless Chromium: what their DOM says, and what they look like."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from pathlib import Path

FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)

# The page sits in a frame, exactly as it is, its own policy included; the script around it looks in.
WRAPPER: Final = """<!doctype html><meta charset="utf-8">
<style>body { margin: 0 } iframe { border: 0 }</style>
<pre id="answer"></pre><script>
const page = PAGE;
const frame = document.createElement("iframe");
frame.style.width = WIDTH + "px";
frame.style.height = "844px";
frame.onload = () => {
  const window = frame.contentWindow, document = frame.contentDocument;
  let answer;
  try {
    answer = ((window, document) => { PROBE })(window, document);
  } catch (error) {
    answer = String(error);
  }
  globalThis.document.getElementById("answer").textContent = JSON.stringify(answer);
};
frame.srcdoc = page;
document.body.append(frame);
</script>"""


def find_browser() -> str:
    """The browser; without one the test is skipped, but not in CI."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    reason = "no chromium on PATH: the page cannot be looked at (Debian: apt-get install chromium)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def run_browser(directory: Path, *arguments: str) -> str:
    profile = directory / "profile"
    profile.mkdir(exist_ok=True)
    command = [find_browser(), *FLAGS, f"--user-data-dir={profile}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=45, check=True)
    return done.stdout


def probe(directory: Path, page: str, script: str, width: int = 390) -> Any:
    """What the script returns, run with ``window`` and ``document`` of the page at that width."""
    embedded = json.dumps(page).replace("</", "<\\/").replace("<!--", "<\\!--")
    wrapper = directory / "wrapper.html"
    filled = WRAPPER.replace("WIDTH", str(width)).replace("PROBE", script).replace("PAGE", embedded)
    wrapper.write_text(filled, "utf-8")
    dom = run_browser(directory, "--virtual-time-budget=5000", "--dump-dom", wrapper.as_uri())
    answer = re.search(r'<pre id="answer">(.*?)</pre>', dom, re.DOTALL)
    assert answer is not None, dom[-2000:]
    assert answer[1], "the page did not load"
    return json.loads(html.unescape(answer[1]))


def take_screenshot(
    directory: Path,
    page: Path,
    *,
    width: int = 390,
    height: int = 844,
    dark: bool = False,
    fragment: str = "",
) -> Path:
    """A picture of the page, as PNG."""
    picture = directory / f"{page.stem}-{width}{'-dark' if dark else ''}.png"
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    run_browser(
        directory,
        *scheme,
        f"--window-size={width},{height}",
        f"--screenshot={picture}",
        page.as_uri() + fragment,
    )
    return picture
