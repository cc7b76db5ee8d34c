"""What an engine says: heartbeats, results, and the response to ``/process``. Bytes in, objects out.

Engines in the field were written against three editions of one page and against no checker. So whatever can
be understood is: no Content-Type, ``infoMsg`` for ``infoMs`` and an object for its text, ``…MS`` for ``…Ms``,
a failure without a reason. Refused is only what would leave us guessing: no status, no output, no JSON. A
heartbeat that is lost costs more than one that is odd, for the job then hangs until its time is over.

`judge` looks for ``estimatedProcessingTimeInSeconds`` before anything else in a body, because the schema of
results accepts that object too, and for JSON before it looks at the content type, because engines in Go send
JSON as ``text/plain``. Rejected: strict schemas (cattrs), which would refuse what real engines send.
"""

from __future__ import annotations

import email.parser
import json
import math
import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from orbtrio.errors import OrbError

if TYPE_CHECKING:
    from email.message import Message

    from orbtrio.toolkit.jobs import TaskInput

__all__ = [
    "FAILURE_REASONS",
    "Ack",
    "BadRequest",
    "Failure",
    "Heartbeat",
    "Nothing",
    "Output",
    "Result",
    "Verdict",
    "judge",
    "parse_callback",
    "with_preamble",
]

FAILURE_REASONS: Final = frozenset(
    (
        "internal_error",
        "external_error",
        "unknown",
        "url_not_found",
        "url_not_allowed",
        "url_timeout",
        "url_connection_refused",
        "url_error",
        "invalid_data",
        "rate_limited",
        "api_not_allowed",
        "api_authentication_error",
        "api_not_found",
        "api_error",
        "file_write_error",
        "stream_read_error",
        "system_dependency_missing",
        "system_error",
        "heartbeat_timeout",
        "other",
    )
)

_STATES: Final = ("running", "complete", "failed")

# Longest text of an engine's that goes into reports and answers, in characters. For people; a whole page of
# HTML is no message.
_MAX_TEXT: Final = 4096

# What may be half a character, or a whole one in two escapes.
_HALF: Final = re.compile(rb"\\u[dD][89a-fA-F]")

_MAX_COUNT: Final = 2**63 - 1

# A document of these is one of the engine output standard, and gets the preamble that the platform provides.
_VTN_FIELDS: Final = frozenset(("object", "schemaId", "series", "validationContracts"))


class BadRequest(OrbError):
    """A webhook was sent something that cannot be understood; the text is the answer's body, with a 400."""


@attrs.frozen(kw_only=True)
class Heartbeat:
    """A sign of life from an engine.

    Attributes:
        status: ``running``, ``complete`` or ``failed``.
        bytes_read: So far; None if not told.
        bytes_written: So far; None if not told.
        messages_written: Results so far; None if not told.
        info: A message for people; may be empty.
        failure_reason: One of `FAILURE_REASONS` if failed, else empty.
        failure_msg: More about it; may be empty.
    """

    status: str
    bytes_read: int | None = None
    bytes_written: int | None = None
    messages_written: int | None = None
    info: str = ""
    failure_reason: str = ""
    failure_msg: str = ""

    @property
    def terminal(self) -> bool:
        """The engine says that it has ended."""
        return self.status != "running"

    @classmethod
    def parse(cls, data: bytes) -> Heartbeat:
        """Read the body of a heartbeat, whatever its Content-Type.

        Raises:
            BadRequest: no JSON object, or no ``status`` out of the three.
        """
        return _heartbeat(_object(data))


@attrs.frozen(kw_only=True)
class Result:
    """A unit of work that is done.

    Attributes:
        chunk_context: As it was given to the engine; None if left out.
        index: The output's number; None if not told.
        start_offset_ms: Where its input begins in the whole, in milliseconds; None if not told.
        end_offset_ms: Where it ends there; None if not told.
        output: Any JSON but null.
        size_bytes: How long the body was.
    """

    chunk_context: str | None = None
    index: int | None = None
    start_offset_ms: int | None = None
    end_offset_ms: int | None = None
    output: Any
    size_bytes: int = 0

    @classmethod
    def parse(cls, data: bytes) -> Result:
        """Read the body of a result, whatever its Content-Type.

        Raises:
            BadRequest: no JSON object, no ``output``, or a ``chunkContext`` that is no text.
        """
        return _result(_object(data), len(data))


def parse_callback(data: bytes) -> Heartbeat | Result:
    """Read what an engine, or an outside party, posts where both are welcome: the fields tell which it is.

    Raises:
        BadRequest: it is neither, or not a valid one.
    """
    fields = _object(data)
    if fields.get("output") is not None:
        return _result(fields, len(data))
    if "status" in fields:
        return _heartbeat(fields)
    raise BadRequest("neither 'output' (a result) nor 'status' (a heartbeat) is in the body")


@attrs.frozen
class Ack:
    """The engine works on it and will say when it is done.

    Attributes:
        estimate: Its own idea of how long that takes, in seconds; 0 if it has none.
    """

    estimate: float = 0.0


@attrs.frozen
class Output:
    """The response is the result.

    Attributes:
        outputs: For each an ``output``, JSON or bytes; with a ``mimeType`` if it is bytes, and the ``name``
            and ``filename`` that a part of a multipart response had.
        size_bytes: How long the body was.
    """

    outputs: tuple[dict[str, Any], ...]
    size_bytes: int = 0


@attrs.frozen
class Nothing:
    """The engine has nothing to say about this chunk; it is ignored."""


@attrs.frozen
class Failure:
    """The call has failed.

    Attributes:
        reason: One of `FAILURE_REASONS`.
        message: For people.
        retry: Another call may do better.
    """

    reason: str
    message: str
    retry: bool = True


Verdict: TypeAlias = Ack | Output | Nothing | Failure


def judge(status: int, content_type: str, body: bytes, task: TaskInput) -> Verdict:
    """What a response to ``/process`` means.

    Args:
        status: Its code. Only 200 and 204 are success; all others are failures, as with the old toolkit.
        content_type: As the engine sent it; empty if it did not.
        body: All of it.
        task: What was asked for.
    """
    if status == 204:
        return Nothing()
    if status != 200:
        return _failure(status, body)
    if not body.strip():
        return Ack() if task.asynchronous else Nothing()
    try:
        value = _loaded(body)
        parsed = True
    except (ValueError, RecursionError):
        value, parsed = None, False
    if isinstance(value, dict) and "estimatedProcessingTimeInSeconds" in value:
        return Ack(_estimate(value["estimatedProcessingTimeInSeconds"]))
    if task.asynchronous:
        return Ack()
    mime_type = content_type.partition(";")[0].strip().lower()
    if mime_type.startswith("multipart/"):
        return _parts(content_type, body)
    is_json = mime_type in ("", "application/json") or mime_type.endswith("+json")
    # A text that says "2024" is JSON by accident; results of engines that forget the type are objects.
    if parsed and (is_json or isinstance(value, (dict, list))):
        return Output(({"output": value},), len(body))
    if is_json:
        return Failure("invalid_data", f"200: the body is not JSON: {_cut(_decode(body))}")
    return Output(({"mimeType": mime_type, "output": body},), len(body))


def with_preamble(output: Any, task: TaskInput) -> Any:
    """An output with what the platform adds to documents of the standard, where the engine did not."""
    if not isinstance(output, dict) or _VTN_FIELDS.isdisjoint(output):
        return output
    preamble = {"taskId": task.task_id, "sourceEngineId": task.engine_id}
    missing = {name: value for name, value in preamble.items() if value and name not in output}
    return {**output, **missing} if missing else output


# Programs in JavaScript cut texts within a character and escape the halves, which nobody can encode.
def _loaded(data: bytes) -> Any:
    value = json.loads(data)
    if _HALF.search(data):
        text = json.dumps(value, ensure_ascii=False)
        value = json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return value


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = _loaded(data)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadRequest("the body is JSON, but not an object")
    return value


def _heartbeat(fields: dict[str, Any]) -> Heartbeat:
    status = fields.get("status")
    if status not in _STATES:
        raise BadRequest("'status' is required: running, complete or failed")
    info = fields.get("infoMs")
    if info is None:
        info = fields.get("infoMsg")
    return Heartbeat(
        status=status,
        bytes_read=_count(fields.get("bytesRead")),
        bytes_written=_count(fields.get("bytesWritten")),
        messages_written=_count(fields.get("messagesWritten")),
        info=_loose_text(info),
        failure_reason=_reason(fields.get("failureReason")) if status == "failed" else "",
        failure_msg=_loose_text(fields.get("failureMsg")),
    )


def _result(fields: dict[str, Any], size_bytes: int) -> Result:
    output = fields.get("output")
    if output is None:
        raise BadRequest("'output' is required: the result as JSON")
    context = fields.get("chunkContext")
    if context is not None and not isinstance(context, str):
        raise BadRequest("'chunkContext' must be the text that /process was given")
    return Result(
        # An empty one is a form that was not filled in.
        chunk_context=context or None,
        index=_count(fields.get("index")),
        start_offset_ms=_count(fields.get("startOffsetMs", fields.get("startOffsetMS"))),
        end_offset_ms=_count(fields.get("endOffsetMs", fields.get("endOffsetMS"))),
        output=output,
        size_bytes=size_bytes,
    )


# Engines in JavaScript know no integers. What is no count at all is as good as left out.
def _count(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_COUNT:
        return None
    return value


def _reason(value: Any) -> str:
    return value if isinstance(value, str) and value in FAILURE_REASONS else "unknown"


def _estimate(value: Any) -> float:
    try:
        estimate = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return estimate if 0 < estimate < math.inf else 0.0


def _loose_text(value: Any) -> str:
    if value is None:
        return ""
    return _cut(value if isinstance(value, str) else json.dumps(value, separators=(",", ":")))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 1]}…"


# Only as much as is shown: the body may be megabytes.
def _decode(body: bytes) -> str:
    return body[: 4 * _MAX_TEXT].decode(errors="replace").strip()


def _failure(status: int, body: bytes) -> Failure:
    text = _cut(f"{status}: {_decode(body)}")
    try:
        value = _loaded(body)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and "errorType" in value:
        return Failure(_reason(value["errorType"]), _loose_text(value.get("errorMsg")) or text)
    return Failure("internal_error", text)


# Split by hand: the parser of `email` is for mail, where the ends of lines are the transport's business.
def _parts(content_type: str, body: bytes) -> Output | Failure:
    boundary = _headers(f"Content-Type: {content_type}").get_boundary()
    if not boundary:
        return Failure("invalid_data", f"200: {content_type!r} names no boundary")
    outputs = []
    for segment in (b"\r\n" + body).split(b"\r\n--" + boundary.encode())[1:]:
        if segment.startswith(b"--"):
            break
        head, _, data = segment.partition(b"\r\n\r\n")
        outputs.append(_part(_headers(head.decode(errors="replace").strip()), data))
    if not outputs:
        return Failure("invalid_data", "200: a multipart response without a part")
    return Output(tuple(outputs), len(body))


def _part(headers: Message, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    name = headers.get_param("name", header="content-disposition")
    if isinstance(name, str):
        entry["name"] = name
    if filename := headers.get_filename():
        entry["filename"] = filename
    try:
        entry["output"] = _loaded(data)
    except (ValueError, RecursionError):
        entry["mimeType"] = headers.get_content_type()
        entry["output"] = data
    return entry


def _headers(text: str) -> Message:
    return email.parser.HeaderParser().parsestr(text)
