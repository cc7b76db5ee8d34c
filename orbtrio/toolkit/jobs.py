"""What a job's author may write into its input, read once and checked.

A `TaskInput` is valid by construction: the modules below a job's handler never look at the dict that came
over the wire. Names there are those of the engine toolkit's page (``startOffsetMS``, ``cacheURI``), so that
whoever knows the page knows the input. What is missing is what the old toolkit sent for it: zeros and empty
texts.

The payload is kept twice: as the text that an engine gets, which is the author's own if the author wrote
text, down to the blanks, and as a mapping for what the toolkit itself looks up in it. Rejected: parsing and
writing it anew, for engines compare payloads, and a number such as 1.0 does not survive every pair of
parsers.

Unknown fields pass, since an input may carry something for somebody else. One that differs from a known field
in nothing but its capitals is a mistake (the page itself writes ``cacheUri`` once) and refused with the right
spelling; otherwise it would be a chunk that never arrives.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

import attrs

if TYPE_CHECKING:
    from orbtrio.toolkit.settings import ToolkitSettings

__all__ = ["EngineType", "TaskInput", "json_text"]

EngineType: TypeAlias = Literal["chunk", "stream", "batch"]

_ENGINE_TYPES: Final = ("chunk", "stream", "batch")

# What an engine may keep in 64 bits with a sign.
_MAX_INT: Final = 2**63 - 1

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})

_NAMES: Final = (
    "cacheURI",
    "chunk",
    "chunkIndex",
    "chunkMimeType",
    "endOffsetMS",
    "engineType",
    "height",
    "inputFolderID",
    "internalJobId",
    "internalTaskId",
    "jobId",
    "libraryEngineModelId",
    "libraryId",
    "maxTTL",
    "metadata",
    "payload",
    "sendOutputToUris",
    "startOffsetMS",
    "taskId",
    "width",
)
_SPELLINGS: Final = {name.lower(): name for name in _NAMES}


def json_text(value: object) -> str:
    """A value as compact JSON.

    Raises:
        ValueError: JSON has nothing for it: bytes, or a number that is none.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, RecursionError) as error:
        raise ValueError(f"JSON cannot carry it: {error}") from None


@attrs.frozen(kw_only=True)
class TaskInput:
    """One unit of an engine's work, as a job describes it.

    Attributes:
        chunk: The file to work on, None if there is none or it lies at `cache_uri`.
        chunk_mime_type: Its type, e.g. ``image/jpeg``; may be empty.
        chunk_index: Its number among its neighbours, from 0.
        start_offset_ms: Where it begins in the whole recording, in milliseconds.
        end_offset_ms: Where it ends there, in milliseconds.
        width: Of a picture, in pixels; 0 if unknown.
        height: Of a picture, in pixels; 0 if unknown.
        cache_uri: Where the author says that the input lies. An engine never gets this one, save for
            protocols that we do not speak: it gets a URL of ours. Kept out of repr, as all that may hold
            secrets is.
        payload_text: The payload as the engine gets it, JSON.
        payload: The same, to look things up in.
        engine_type: What kind of engine it is for.
        send_output_to: Where to post the outputs after success.
        metadata: The chunk's metadata; the values are texts.
        max_ttl: Longest wait for results, in seconds.
        library_id: Of the library to train or to run with; may be empty.
        library_engine_model_id: Of the engine's model of it; may be empty.
        job_id: The author's name for the job; may be empty.
        task_id: The author's name for the task; may be empty.
        internal_job_id: Names the job between engine and toolkit; never empty.
        internal_task_id: Names the task between engine and toolkit; never empty.
        input_folder_id: Passed on; may be empty.
        veritone_api_base_url: Out of the payload; may be empty.
        token: Out of the payload, for that address; may be empty.
        engine_id: Whose work it is.
    """

    chunk: Path | None = None
    chunk_mime_type: str = ""
    chunk_index: int = 0
    start_offset_ms: int = 0
    end_offset_ms: int = 0
    width: int = 0
    height: int = 0
    cache_uri: str | None = attrs.field(default=None, repr=False)
    payload_text: str = attrs.field(default="{}", repr=False)
    payload: Mapping[str, Any] = attrs.field(default=_NOTHING, repr=False)
    engine_type: EngineType = "chunk"
    send_output_to: tuple[str, ...] = attrs.field(default=(), repr=False)
    metadata: Mapping[str, str] = attrs.field(default=_NOTHING, repr=False)
    max_ttl: float = 3600.0
    library_id: str = ""
    library_engine_model_id: str = ""
    job_id: str = ""
    task_id: str = ""
    internal_job_id: str = attrs.field(factory=lambda: str(uuid.uuid4()))
    internal_task_id: str = attrs.field(factory=lambda: str(uuid.uuid4()))
    input_folder_id: str = ""
    veritone_api_base_url: str = ""
    token: str = attrs.field(default="", repr=False)
    engine_id: str = ""

    @property
    def training(self) -> bool:
        """It is to train a library; then every engine behaves as a batch engine."""
        return self.payload.get("mode") == "library-train"

    @property
    def asynchronous(self) -> bool:
        """The engine answers at once and tells by heartbeats when it is done."""
        return self.engine_type != "chunk" or self.training

    @classmethod
    def parse(cls, job_input: object, *, settings: ToolkitSettings) -> TaskInput:
        """Read a job's input.

        Raises:
            ValueError: it cannot work; the text tells the job's author what to change.
        """
        if not isinstance(job_input, Mapping):
            raise ValueError(f"input is {_kind(job_input)}: it must be a map with fields such as 'chunk'")
        for name in job_input:
            spelling = _SPELLINGS.get(name.lower(), name) if isinstance(name, str) else name
            if spelling != name:
                raise ValueError(f"{name!r} is not a field of the input: write {spelling!r}")
        payload_text, payload = _payload(job_input.get("payload"))
        chunk = _text(job_input, "chunk")
        if "\0" in chunk:
            raise ValueError("chunk is no file's path: it holds a NUL character")
        engine_type = _text(job_input, "engineType") or "chunk"
        if engine_type not in _ENGINE_TYPES:
            raise ValueError(f"engineType is {engine_type!r}: write 'chunk', 'stream' or 'batch'")
        job_id, task_id = _text(job_input, "jobId"), _text(job_input, "taskId")
        return cls(
            chunk=Path(chunk) if chunk else None,
            chunk_mime_type=_text(job_input, "chunkMimeType"),
            chunk_index=_integer(job_input, "chunkIndex"),
            start_offset_ms=_integer(job_input, "startOffsetMS"),
            end_offset_ms=_integer(job_input, "endOffsetMS"),
            width=_integer(job_input, "width"),
            height=_integer(job_input, "height"),
            cache_uri=_text(job_input, "cacheURI") or None,
            payload_text=payload_text,
            payload=payload,
            engine_type=cast("EngineType", engine_type),
            send_output_to=_uris(job_input.get("sendOutputToUris")),
            metadata=_metadata(job_input.get("metadata")),
            max_ttl=_seconds(job_input, "maxTTL", settings.max_ttl),
            library_id=_text(job_input, "libraryId") or _lookup(payload, "libraryId"),
            library_engine_model_id=_text(job_input, "libraryEngineModelId")
            or _lookup(payload, "libraryEngineModelId"),
            job_id=job_id,
            task_id=task_id,
            internal_job_id=_text(job_input, "internalJobId") or job_id or str(uuid.uuid4()),
            internal_task_id=_text(job_input, "internalTaskId") or task_id or str(uuid.uuid4()),
            input_folder_id=_text(job_input, "inputFolderID"),
            veritone_api_base_url=_lookup(payload, "veritoneApiBaseUrl"),
            token=_lookup(payload, "token"),
            engine_id=settings.engine_id,
        )


# None stands for a field that is not there: many a client fills its forms with it.
def _text(job_input: Mapping[str, Any], name: str) -> str:
    value = job_input.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{name} is {_kind(value)}: it must be text")
    return value


def _integer(job_input: Mapping[str, Any], name: str) -> int:
    value = job_input.get(name)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= _MAX_INT:
        shown = value if isinstance(value, int) and not isinstance(value, bool) else _kind(value)
        raise ValueError(f"{name} is {shown}: it must be a whole number, 0 or more")
    return value


def _seconds(job_input: Mapping[str, Any], name: str, default: float) -> float:
    value = job_input.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number of seconds above 0")
    return float(value)


def _payload(value: object) -> tuple[str, Mapping[str, Any]]:
    if value is None:
        return "{}", _NOTHING
    if isinstance(value, str):
        try:
            payload = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"payload is text that is not JSON: {error}") from None
        if not isinstance(payload, dict):
            raise ValueError(f"payload is JSON of {_kind(payload)}: it must be an object")
        return value, payload
    if not isinstance(value, Mapping):
        raise ValueError(f"payload is {_kind(value)}: it must be a map, or JSON text of an object")
    try:
        return json_text(value), value
    except ValueError as error:
        raise ValueError(f"payload is not all JSON: {error}") from None


# A payload is the engine's business: what is not text there is simply not what we look for.
def _lookup(payload: Mapping[str, Any], name: str) -> str:
    value = payload.get(name)
    return value if isinstance(value, str) else ""


def _uris(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)) or not all(isinstance(uri, str) and uri for uri in value):
        raise ValueError("sendOutputToUris must be a list of texts, each an http or https address")
    return tuple(value)


def _metadata(value: object) -> Mapping[str, str]:
    if value is None:
        return _NOTHING
    if not isinstance(value, Mapping) or not all(isinstance(name, str) and name for name in value):
        raise ValueError("metadata must be a map from names to values")
    texts = {}
    for name, entry in value.items():
        try:
            texts[name] = entry if isinstance(entry, str) else json_text(entry)
        except ValueError as error:
            raise ValueError(f"metadata[{name!r}]: {error}; write it as text") from None
    return texts


def _kind(value: object) -> str:
    return type(value).__name__
