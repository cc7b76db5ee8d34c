"""A worker's settings: the environment variables of the protocol, checked before anything else happens.

A worker is started by somebody who sees one line of its log, so a wrong value must say which variable to
change and to what. The variables, their defaults and their help stand in one table, `VARIABLES`:
`from_environ` and ``--help`` both read it and cannot disagree. Workers take no options, because a command
line shows in every process list and one of the values is a secret.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import attrs

from orbtrio._polling import BUSY_POLL_HELP, MAX_BUSY_POLL_US
from orbtrio.errors import ConfigError, InvalidMessage
from orbtrio.protocol.messages import MAX_BATCH_SIZE, RegisterWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["VARIABLES", "Variable", "WorkerSettings"]

_LOG_LEVELS: Final = ("debug", "info", "warn", "warning", "error")


@attrs.frozen
class Variable:
    """An environment variable: its default as text (None: there is none) and what it does, for ``--help``."""

    default: str | None
    help: str


VARIABLES: Final[Mapping[str, Variable]] = {
    "WORKER_TYPE": Variable(None, "The queue to serve, as the engine's WORKER_TYPES knows it."),
    "WORKER_SECRET": Variable(None, "Required: the engine's WORKER_SECRET."),
    "SERVER_URL": Variable("ws://localhost:5000/ws", "Where the engine listens: ws:// or wss://."),
    # No default of its own: which of the two it is depends on the handler, which only `run_worker` knows.
    "MAX_BATCH_SIZE": Variable(
        None, "Most jobs of a batch, 1 to 1000. Default: 32, or 1 where jobs run side by side."
    ),
    "MAX_LATENCY_MS": Variable("30000", "Longest wait of a job for its batch to fill, in milliseconds."),
    "MODEL_ID": Variable(None, "Which model to load; unset or 'builtin' for the one that the worker brings."),
    "HF_TOKEN": Variable(None, "For models of Hugging Face that are not public; read by their library."),
    "CUDA_VISIBLE_DEVICES": Variable(None, "Which GPUs to use, e.g. 0; read by the model's library."),
    "ORB_INLINE_RESOURCES": Variable(
        "0", "1 if the engine's disk is not this machine's: it sends files along."
    ),
    "ORB_BUSY_POLL_US": Variable("0", BUSY_POLL_HELP),
    "LOG_LEVEL": Variable("info", "debug, info, warn or error."),
}

# What the libraries of models read by themselves.
_NOT_OURS: Final = frozenset({"HF_TOKEN", "CUDA_VISIBLE_DEVICES"})

_FLAGS: Final = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(
    ("0", "false", "no", "off"), False
)


def _not_empty(settings: WorkerSettings, attribute: attrs.Attribute[str], value: str) -> None:
    if not value:
        name = attribute.name.upper()
        raise ConfigError(f"{name} is not set. {VARIABLES[name].help}")


def _worker_type(settings: WorkerSettings, attribute: attrs.Attribute[str], value: str) -> None:
    _not_empty(settings, attribute, value)
    try:
        RegisterWorker(worker_type=value, worker_secret="")
    except InvalidMessage as error:
        raise ConfigError(f"WORKER_TYPE is {value!r}: {error}") from None


def _websocket_url(settings: WorkerSettings, attribute: attrs.Attribute[str], value: str) -> None:
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # A port that is no number, or a bracket that is never closed.
        valid = False
    if not valid:
        raise ConfigError(f"SERVER_URL is {value!r}: write it like ws://localhost:5000/ws or wss://host/ws")


def _between(name: str, least: int, most: int) -> Callable[[WorkerSettings, Any, int | None], None]:
    def check(settings: WorkerSettings, attribute: Any, value: int | None) -> None:
        if value is not None and not least <= value <= most:
            raise ConfigError(f"{name} is {value}: set it to a whole number from {least} to {most}")

    return check


def _latency(settings: WorkerSettings, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 < value < float("inf"):
        raise ConfigError(f"MAX_LATENCY_MS is {value * 1000:g}: set it to a number of milliseconds above 0")


def _log_level(settings: WorkerSettings, attribute: attrs.Attribute[str], value: str) -> None:
    if value.lower() not in _LOG_LEVELS:
        raise ConfigError(f"LOG_LEVEL is {value!r}: set it to one of debug, info, warn, error")


@attrs.frozen(kw_only=True)
class WorkerSettings:
    """What a worker needs to know. Spec: "Environment Variables (Worker)".

    Attributes:
        worker_type: The queue it serves, e.g. ``"embedding"``.
        worker_secret: Shared with the engine; kept out of repr and logs.
        server_url: The engine's address.
        max_batch_size: Most jobs of a batch, 1 to 1000, and most inputs that one call of a batched handler
            gets. None: what suits the handler, see `run_worker`.
        max_latency: Longest wait of a batch's oldest job, in seconds. Ours asks for `eager` batches, so jobs
            wait only while it is busy; an engine without that extension makes them wait this long.
        model_id: Which model to load; None for the builtin one. The runtime only carries it to ``load``.
        inline_resources: The engine's disk is not this machine's: it is asked to send files along with the
            jobs that name them.
        busy_poll_us: Microseconds without work after which a worker program sleeps, see
            `orbtrio.busy_polling`.
        log_level: Of the program's log: ``debug``, ``info``, ``warn`` or ``error``.

    Raises:
        ConfigError: a value cannot work; the text names the variable and what to set it to.
    """

    worker_type: str = attrs.field(validator=_worker_type)
    worker_secret: str = attrs.field(repr=False, validator=_not_empty)
    server_url: str = attrs.field(default="ws://localhost:5000/ws", validator=_websocket_url)
    max_batch_size: int | None = attrs.field(
        default=None, validator=_between("MAX_BATCH_SIZE", 1, MAX_BATCH_SIZE)
    )
    max_latency: float = attrs.field(default=30.0, validator=_latency)
    model_id: str | None = None
    inline_resources: bool = False
    busy_poll_us: int = attrs.field(default=0, validator=_between("ORB_BUSY_POLL_US", 0, MAX_BUSY_POLL_US))
    log_level: str = attrs.field(default="info", validator=_log_level)

    @classmethod
    def from_environ(
        cls, environ: Mapping[str, str] | None = None, *, worker_type: str | None = None
    ) -> WorkerSettings:
        """Read the settings from the environment; a variable that is set but empty counts as unset.

        Args:
            environ: Instead of `os.environ`.
            worker_type: What to serve where ``WORKER_TYPE`` is unset.

        Raises:
            ConfigError: a required variable is missing, or a value cannot work.
        """
        environ = os.environ if environ is None else environ
        given = {name: environ[name] for name in VARIABLES.keys() - _NOT_OURS if environ.get(name)}
        values: dict[str, Any] = {
            "worker_type": given.get("WORKER_TYPE", worker_type or ""),
            "worker_secret": given.get("WORKER_SECRET", ""),
        }
        if "MAX_BATCH_SIZE" in given:
            values["max_batch_size"] = _number("MAX_BATCH_SIZE", given, int)
        if "MAX_LATENCY_MS" in given:
            values["max_latency"] = _number("MAX_LATENCY_MS", given, float) / 1000
        if given.get("MODEL_ID", "builtin") != "builtin":
            values["model_id"] = given["MODEL_ID"]
        if "ORB_BUSY_POLL_US" in given:
            values["busy_poll_us"] = _number("ORB_BUSY_POLL_US", given, int)
        if "ORB_INLINE_RESOURCES" in given:
            values["inline_resources"] = _flag("ORB_INLINE_RESOURCES", given)
        for name in ("SERVER_URL", "LOG_LEVEL"):
            if name in given:
                values[name.lower()] = given[name]
        return cls(**values)


def _number(name: str, given: Mapping[str, str], kind: type[int] | type[float]) -> float:
    try:
        return kind(given[name])
    except ValueError:
        expected = "a whole number" if kind is int else "a number, e.g. 30000"
        raise ConfigError(f"{name} is {given[name]!r}: set it to {expected}") from None


def _flag(name: str, given: Mapping[str, str]) -> bool:
    value = _FLAGS.get(given[name].strip().lower())
    if value is None:
        raise ConfigError(f"{name} is {given[name]!r}: set it to 1 or 0")
    return value
