"""Every exception that orbtrio raises.

```
OrbError
├─ ProtocolError
│  ├─ InvalidMessage          breaks its own rules, whoever built it; has path, "jobs[2].input" (1008)
│  │  ├─ DecodeError            not exactly one CBOR map
│  │  └─ ResourceRejected       too large, dangling or unused (1009)
│  ├─ LocalProtocolError      we tried what the table forbids: a bug of ours; state unchanged
│  └─ RemoteProtocolError     the peer broke the spec; has close_code and reason
│     └─ RegistrationRefused    secret, worker type or version
├─ ConnectionLost             the peer went away, or we already closed
├─ JobError                   what `submit` raises
│  ├─ JobFailed                 the worker answered with an `error`
│  ├─ JobTimedOut               no answer before the deadline
│  └─ JobRefused                the engine ended the job itself; has kind
└─ ConfigError                settings that cannot work; the text says what to change
```

Building a message raises the first kind, sending the second; receiving raises only the third, `from` the
first where there is one. Error texts say what was expected and where. They never hold secrets or payloads,
because they travel to peers and logs.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = [
    "ConfigError",
    "ConnectionLost",
    "DecodeError",
    "InvalidMessage",
    "JobError",
    "JobFailed",
    "JobRefused",
    "JobTimedOut",
    "LocalProtocolError",
    "OrbError",
    "ProtocolError",
    "RegistrationRefused",
    "RemoteProtocolError",
    "ResourceRejected",
]

# Longest worker error text that an exception repeats; `JobFailed.output` still has the whole of it.
_MAX_ERROR_TEXT: Final = 8192


class OrbError(Exception):
    """Base of everything raised on purpose by orbtrio."""


class ProtocolError(OrbError):
    """Somebody broke the ORB protocol."""


class InvalidMessage(ProtocolError):
    """A message breaks its own rules.

    Attributes:
        path: Where, e.g. ``"jobs[2].input"``; empty for the whole message.
        close_code: What a receiver closes with.
    """

    close_code: int = 1008

    def __init__(self, problem: str, *, path: str = "") -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path


class DecodeError(InvalidMessage):
    """The bytes are not exactly one CBOR map within the decoding profile."""


class ResourceRejected(InvalidMessage):
    """A resource is too large, referenced but absent, or present but unused. Spec: "Resource Validation"."""

    close_code = 1009


class LocalProtocolError(ProtocolError):
    """We tried to send what the state of the connection forbids: a bug on this side."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol; the connection ends with `close_code`.

    Attributes:
        close_code: WebSocket close code to send.
        reason: Close reason to send, safe to show to the peer.
    """

    def __init__(self, reason: str, *, close_code: int = 1008) -> None:
        super().__init__(reason)
        self.reason = reason
        self.close_code = close_code


class RegistrationRefused(RemoteProtocolError):
    """A peer's secret, worker type, token or settings are not acceptable here."""


class ConnectionLost(OrbError):
    """The connection has ended.

    Attributes:
        code: The WebSocket close code received or sent; None if TCP ended without one.
        reason: The close reason, or what happened.
    """

    def __init__(self, reason: str = "connection lost", *, code: int | None = None) -> None:
        super().__init__(reason if code is None else f"{reason or 'closed'} (close code {code})")
        self.code = code
        self.reason = reason


class JobError(OrbError):
    """A job ended without a result."""

    @staticmethod
    def of(output: dict[str, Any]) -> JobError | None:
        """The exception that an output stands for; None if it is a result.

        The engine ends jobs itself only under a kind; without one it was the worker. P-31.
        """
        if output.get("error") is None:
            return None
        text, kind = str(output["error"]), output.get("error_kind")
        if type(kind) is not str:
            return JobFailed(text, output)
        return JobTimedOut(text) if kind == "timeout" else JobRefused(kind, text)


class JobFailed(JobError):
    """The worker answered with an ``error``; it is never retried. Spec: "Worker Output".

    Attributes:
        error: The worker's text, cut to 8 KiB.
        output: The whole output, as the worker sent it.
    """

    def __init__(self, error: str, output: dict[str, Any]) -> None:
        self.error = error[:_MAX_ERROR_TEXT]
        self.output = output
        super().__init__(self.error)


class JobTimedOut(JobError):
    """No worker answered before the job's deadline, five minutes unless asked for less.

    Spec: "Timeout Behavior".
    """


class JobRefused(JobError):
    """The engine ended the job itself, without a worker's answer.

    Attributes:
        kind: Why: ``"queue_full"`` (submit later or add workers), ``"unknown_worker_type"`` (check the name
            and the engine's ``WORKER_TYPES``), ``"invalid_job"``, ``"worker_lost"`` (it took down several
            workers, or they kept dying), ``"heartbeat_timeout"`` (its worker made no progress for as long as
            the job allowed), ``"slow_reader"`` (its progress came faster than it was read: read faster, or
            ask the worker for less), ``"cancelled"``, ``"result_too_large"`` or ``"engine_stopped"``.
        text: The engine's words.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
        self.text = text


class ConfigError(OrbError):
    """Settings that cannot work; the text says which one to change and how."""
