"""An HTTP engine with manners of its own: a program that knows nothing of orbtrio and needs only Python.

    python http_engine.py MANNER PORT DIRECTORY

It answers with the text of its chunk, however it gets that and however it says so:

- ``part`` reads the form's file and nothing else; ``cache`` reads nothing but the field cacheURI;
- ``later`` acknowledges, and posts the result afterwards, without any heartbeat;
- ``hasty`` posts its results and ``complete``, and acknowledges then;
- ``slow`` is ``part``, but takes its time;
- ``crash`` ends in its first call, and is ``part`` when started again;
- ``mute`` takes calls, makes the file ``called`` in DIRECTORY, and never answers;
- ``never`` is never ready;
- ``echo`` answers with the form's fields.

Its process id is the name of a file in DIRECTORY, for whoever must end it.
"""

from __future__ import annotations

import http.server
import json
import os
import re
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

MANNER, PORT, DIRECTORY = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
# A part's head and body, as RFC 7578 has them.
PART = re.compile(
    rb'Content-Disposition: form-data; name="([^"]*)"[^\r]*\r\n(?:[^\r]+\r\n)*\r\n', re.IGNORECASE
)


def parts_of(body: bytes, boundary: bytes) -> dict[str, bytes]:
    parts = {}
    for piece in body.split(b"--" + boundary)[1:-1]:
        head = PART.match(piece.removeprefix(b"\r\n"))
        assert head, piece
        parts[head[1].decode()] = piece.removeprefix(b"\r\n")[head.end() :].removesuffix(b"\r\n")
    return parts


def post(url: bytes, document: dict[str, Any]) -> None:
    request = urllib.request.Request(url.decode(), json.dumps(document).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 204, answer.status


def output_of(text: bytes) -> dict[str, Any]:
    return {"object": [{"type": "text", "text": text.decode()}]}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Or head and body are two packets, and the second waits for an acknowledgement of the first.
    wbufsize = -1

    def do_GET(self) -> None:
        self.answer(503 if MANNER == "never" else 200, None)

    def do_POST(self) -> None:
        boundary = self.headers["content-type"].partition("boundary=")[2].strip('"').encode()
        parts = parts_of(self.rfile.read(int(self.headers["content-length"])), boundary)
        if MANNER == "crash" and not (DIRECTORY / "crashed").exists():
            (DIRECTORY / "crashed").touch()
            os._exit(3)
        if MANNER == "mute":
            (DIRECTORY / "called").touch()
            threading.Event().wait()
        if MANNER in ("part", "crash", "slow"):
            if MANNER == "slow":
                time.sleep(0.05)
            self.answer(200, output_of(parts["chunk"]))
        elif MANNER == "echo":
            self.answer(200, {"fields": {name: parts[name].decode("utf-8", "replace") for name in parts}})
        elif MANNER == "cache":
            with urllib.request.urlopen(parts["cacheURI"].decode(), timeout=60) as answer:
                self.answer(200, output_of(answer.read()))
        elif MANNER == "later":
            threading.Thread(target=self.result, args=(parts,)).start()
            self.answer(200, {"estimatedProcessingTimeInSeconds": 60})
        elif MANNER == "hasty":
            with urllib.request.urlopen(parts["cacheURI"].decode(), timeout=60) as answer:
                self.result({**parts, "chunk": answer.read()})
            post(parts["heartbeatWebhook"], {"status": "complete", "messagesWritten": 1})
            self.answer(200, {"estimatedProcessingTimeInSeconds": 60})

    def result(self, parts: dict[str, bytes]) -> None:
        context = parts["chunkContext"].decode()
        post(parts["resultWebhook"], {"chunkContext": context, "output": output_of(parts["chunk"])})

    def answer(self, status: int, document: dict[str, Any] | None) -> None:
        body = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


if __name__ == "__main__":
    (DIRECTORY / f"{os.getpid()}.pid").touch()
    http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
