"""How a peer introduces itself, and what it asks for.

Registrations are rare: frozen attrs classes that check themselves when they are built, whoever builds them.
Unknown fields and unknown extensions are ignored, so that newer peers mix with older engines.

Whoever asks for an extension is sent its messages, and may send them; to everybody else they do not exist
(`connection`). Of an engine, the answer to the upgrade says which it understands (P-60).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from orbtrio.errors import InvalidMessage

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "DEFAULT_MESSAGE_BYTES",
    "EXTENSIONS",
    "MAX_BATCH_SIZE",
    "MAX_WORKER_TYPE",
    "RegisterClient",
    "RegisterWorker",
]

# What a peer may ask for when it registers.
EXTENSIONS: Final = frozenset(
    {
        "batched_responses",
        "cancel",
        "drain",
        "engine_errors",
        "inline_resources",
        "progress",
        "typed_arrays",
    }
)

# A worker that asks for larger batches gets these. No more than this is ever queued for one worker.
MAX_BATCH_SIZE: Final = 1000

# Stock WebSocket libraries refuse messages of 1 MiB, so a worker that says nothing is sent less.
DEFAULT_MESSAGE_BYTES: Final = 900 * 1024

# Worker types become names of queues, and appear in settings, metrics and logs.
MAX_WORKER_TYPE: Final = 128

# --- Rules for fields ---------------------------------------------------------------------------------------


def _rule(expected: str, holds: Callable[[Any], bool]) -> Callable[..., None]:
    def validate(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if not holds(value):
            raise InvalidMessage(f"expected {expected}", path=attribute.name)

    return validate


_text = _rule("text", lambda value: type(value) is str)
_flag = _rule("true or false", lambda value: type(value) is bool)
_whole = _rule("a positive whole number", lambda value: type(value) is int and value > 0)
_seconds = _rule("a positive number", lambda value: type(value) in (int, float) and 0 < value < 1e9)
_names = _rule("a list of text", lambda value: type(value) is frozenset)
_worker_type = _rule(
    f"1 to {MAX_WORKER_TYPE} printable characters without a slash",
    lambda value: (
        type(value) is str and 0 < len(value) <= MAX_WORKER_TYPE and value.isprintable() and "/" not in value
    ),
)


# JavaScript has one type of number: its 32 may arrive as 32.0.
def _as_whole(value: Any) -> Any:
    return int(value) if type(value) is float and value.is_integer() else value


def _as_batch_size(value: Any) -> Any:
    value = _as_whole(value)
    return min(value, MAX_BATCH_SIZE) if type(value) is int else value


# A list is what came from the wire.
def _as_names(value: Any) -> Any:
    if type(value) is list and all(type(name) is str for name in value):
        return EXTENSIONS.intersection(value)
    return value


# The fields that say something. Null is as good as absent, and so is what is usual.
def _present(**fields: object) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


# The optional fields that are there.
def _given(wire: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := wire.get(name)) is not None}


@attrs.frozen(kw_only=True)
class RegisterWorker:
    """A worker introduces itself. Always its first message.

    Attributes:
        worker_type: The queue it serves, e.g. ``"embedding"``.
        worker_secret: Shared; kept out of repr and logs. One that was absent, or no text, is ``""``: it
            gets the same refusal as any wrong one.
        max_batch_size: Most jobs per batch, 1 to 1000; more is clamped.
        max_latency: Longest wait of a batch's oldest job, in seconds (wire: ``max_latency_ms``).
        eager: Extension: while it has nothing to do, send what is queued at once.
        max_unanswered_batches: Extension: the batches it wants to hold at a time; None for no limit.
        max_message_bytes: Extension: the largest batch that it can receive.
        extensions: Names out of `EXTENSIONS` that it asks for.

    Raises:
        InvalidMessage: a field has the wrong type or range (close code 1008).

    Spec: "Worker Registration".
    """

    worker_type: str = attrs.field(validator=_worker_type)
    worker_secret: str = attrs.field(repr=False, validator=_text)
    max_batch_size: int = attrs.field(default=32, converter=_as_batch_size, validator=_whole)
    max_latency: float = attrs.field(default=30.0, validator=_seconds)
    eager: bool = attrs.field(default=False, validator=_flag)
    max_unanswered_batches: int | None = attrs.field(
        default=None, converter=_as_whole, validator=attrs.validators.optional(_whole)
    )
    max_message_bytes: int = attrs.field(default=DEFAULT_MESSAGE_BYTES, converter=_as_whole, validator=_whole)
    extensions: frozenset[str] = attrs.field(default=frozenset(), converter=_as_names, validator=_names)

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> RegisterWorker:
        """Check an ``i_am_worker``."""
        config = wire.get("worker_config")
        if type(config) is not dict:
            raise InvalidMessage("expected a map", path="worker_config")
        secret = wire.get("worker_secret")
        names = ("max_batch_size", "eager", "max_unanswered_batches", "max_message_bytes", "extensions")
        optional = _given(config, *names)
        latency_ms = _as_whole(config.get("max_latency_ms"))
        if latency_ms is not None:
            if type(latency_ms) is not int or latency_ms < 1:
                raise InvalidMessage("expected a positive whole number", path="max_latency_ms")
            optional["max_latency"] = latency_ms / 1000
        secret = secret if type(secret) is str else ""
        return cls(worker_type=config.get("worker_type", ""), worker_secret=secret, **optional)

    def to_wire(self) -> dict[str, Any]:
        """The ``i_am_worker``."""
        usual = self.max_message_bytes == DEFAULT_MESSAGE_BYTES
        config = _present(
            worker_type=self.worker_type,
            max_batch_size=self.max_batch_size,
            max_latency_ms=max(1, round(self.max_latency * 1000)),
            max_message_bytes=None if usual else self.max_message_bytes,
            max_unanswered_batches=self.max_unanswered_batches,
            eager=self.eager or None,
            extensions=sorted(self.extensions) or None,
        )
        return {"type": "i_am_worker", "worker_secret": self.worker_secret, "worker_config": config}


@attrs.frozen(kw_only=True)
class RegisterClient:
    """A client introduces itself (wire: ``i_am_server``, as the public engine's client is itself a server).

    Attributes:
        token: Says whose client it is, where the engine asks; kept out of repr and logs.
        version: What it calls its version, if that is text. Any is welcome.
        extensions: Names out of `EXTENSIONS` that it asks for.

    Raises:
        InvalidMessage: a field has the wrong type (1008).
    """

    token: str | None = attrs.field(default=None, repr=False, validator=attrs.validators.optional(_text))
    version: str | None = attrs.field(default=None, validator=attrs.validators.optional(_text))
    extensions: frozenset[str] = attrs.field(default=frozenset(), converter=_as_names, validator=_names)

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> RegisterClient:
        """Check an ``i_am_server``."""
        version = wire.get("version")
        given = _given(wire, "token", "extensions")
        return cls(version=version if type(version) is str else None, **given)

    def to_wire(self) -> dict[str, Any]:
        """The ``i_am_server``."""
        asked = sorted(self.extensions) or None
        return _present(type="i_am_server", version=self.version, token=self.token, extensions=asked)
