"""Every setting of the engine: its name, kind, default and help, in one table, `Config`.

Three ways in: keywords, for a program that embeds the engine; the environment, flags and a TOML file, by
`load`, for ``python -m orbtrio.engine``. Only `load` looks at the environment. Help text and the README's
table are printed from the same fields, so neither can lag behind.

The names are those of the specification's "Configuration"; ours beyond it begin with ``ORB_``.

typed-settings was tried: it wants one prefix for all environment names, coerces where we want to refuse, and
its click options would offer the secrets as flags. What is left to write without it is `load`.
"""
# ruff: noqa: RUF009 (`setting` makes attrs fields, not default values)

from __future__ import annotations

import difflib
import importlib.metadata
import ipaddress
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from orbtrio._polling import BUSY_POLL_HELP, MAX_BUSY_POLL_US
from orbtrio._settings import (
    FLAG,
    PAIRS,
    PATH,
    TEXT,
    TEXTS,
    Setting,
    choice,
    seconds,
    setting,
    size,
    whole,
)
from orbtrio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Config", "load", "settings_table"]

_MIB: Final = 1 << 20
_SECONDS: Final = seconds()

_WORKER_TYPES: Final = (
    *("embedding", "llm", "vlm", "caption", "object_detection"),
    *("segmentation", "video_segmentation", "motion_energy", "fast_embedding", "llm_fast"),
    "et:*",  # HTTP engines, see `orbtrio.toolkit`
)
_AFFINITY: Final = {"video_segmentation": "cross_job_id", "motion_energy": "media_id"}


@attrs.frozen(kw_only=True)
class Config:
    """Settings of an engine. All have defaults: ``Config(worker_secret="…")`` serves this machine.

    Durations are seconds, sizes bytes. Secrets do not appear in its repr. `busy_poll_us` and `log_level` are
    for ``python -m orbtrio.engine``; whoever embeds an engine has a log and a loop of his own
    (`orbtrio.busy_polling`).

    Raises:
        ConfigError: a value cannot work; says which and what was expected.

    Spec: "Configuration".
    """

    server_host: str = setting(
        TEXT, "localhost", "SERVER_HOST", "Address to listen on; localhost: 127.0.0.1 and ::1."
    )
    server_port: int = setting(
        whole(0, 65535), 5000, "SERVER_PORT", "Port to listen on; 0: any that is free."
    )
    worker_secret: str | None = setting(
        TEXT, None, "WORKER_SECRET", "What workers must present.", secret=True
    )
    client_tokens: Mapping[str, str] = setting(
        PAIRS, {}, "CLIENT_TOKENS", "token=tenant pairs; if set, clients must present a token.", secret=True
    )
    xdg_data_home: Path = setting(
        PATH,
        Path("~/.local/share"),
        "XDG_DATA_HOME",
        "Resources are kept below its directory unblink-engine.",
    )
    log_level: str = setting(
        choice("debug", "info", "warn", "error"),
        "info",
        "LOG_LEVEL",
        "Least severity that is logged, to stderr.",
    )
    worker_types: tuple[str, ...] = setting(
        TEXTS, _WORKER_TYPES, "WORKER_TYPES", "Worker types that are recognised, as patterns; *: all."
    )
    flat_types: tuple[str, ...] = setting(
        TEXTS, (), "ORB_FLAT_TYPES", "Patterns of worker types that read a job's input beside its id."
    )
    affinity: Mapping[str, str] = setting(
        PAIRS,
        _AFFINITY,
        "ORB_AFFINITY",
        "type=field pairs: jobs with the same value of that input field share a worker.",
    )
    job_timeout: float = setting(
        _SECONDS, 300.0, "ORB_JOB_TIMEOUT", "From a job's acceptance to its end, answered or not."
    )
    max_job_timeout: float = setting(
        _SECONDS, 300.0, "ORB_MAX_JOB_TIMEOUT", "The most that a job may ask for instead (timeout_ms)."
    )
    max_deliveries: int = setting(
        whole(1), 3, "ORB_MAX_DELIVERIES", "How many workers a job may take down with it."
    )
    max_queued_jobs: int = setting(
        whole(1), 1000, "ORB_MAX_QUEUED_JOBS", "Jobs that wait per worker, and per worker type without any."
    )
    max_open_bytes: int = setting(
        size(1024),
        2048 * _MIB,
        "ORB_MAX_OPEN_BYTES",
        "Memory for the inputs of all open jobs; beyond it, jobs are refused.",
    )
    registration_timeout: float = setting(
        _SECONDS, 10.0, "ORB_REGISTRATION_TIMEOUT", "For a peer to say what it is, once connected."
    )
    handshake_timeout: float = setting(
        _SECONDS, 5.0, "ORB_HANDSHAKE_TIMEOUT", "For the HTTP request and TLS."
    )
    close_timeout: float = setting(_SECONDS, 1.5, "ORB_CLOSE_TIMEOUT", "For a peer to answer a close.")
    write_timeout: float = setting(
        _SECONDS, 10.0, "ORB_WRITE_TIMEOUT", "Without progress of what a peer should read."
    )
    message_timeout: float = setting(
        _SECONDS, 30.0, "ORB_MESSAGE_TIMEOUT", "Without progress inside a peer's message."
    )
    ping_interval: float = setting(_SECONDS, 20.0, "ORB_PING_INTERVAL", "Of silence before a peer is pinged.")
    ping_timeout: float = setting(_SECONDS, 20.0, "ORB_PING_TIMEOUT", "For a peer to answer a ping.")
    max_client_message_bytes: int = setting(
        size(1024),
        32 * _MIB,
        "ORB_MAX_CLIENT_MESSAGE_BYTES",
        "Largest message of a client, resources included.",
    )
    max_worker_message_bytes: int = setting(
        size(128 * 1024), 16 * _MIB, "ORB_MAX_WORKER_MESSAGE_BYTES", "Largest message of a worker."
    )
    max_unregistered_message_bytes: int = setting(
        size(1024), 64 * 1024, "ORB_MAX_UNREGISTERED_MESSAGE_BYTES", "Largest message before registration."
    )
    max_buffered_bytes: int = setting(
        size(4 * _MIB), 64 * _MIB, "ORB_MAX_BUFFERED_BYTES", "Unread output after which a peer is dropped."
    )
    max_clients: int = setting(whole(1), 10_000, "ORB_MAX_CLIENTS", "Clients at a time.")
    max_workers: int = setting(whole(1), 2_000, "ORB_MAX_WORKERS", "Workers at a time.")
    max_unregistered: int = setting(
        whole(1), 1_000, "ORB_MAX_UNREGISTERED", "Connections at a time that have not said what they are."
    )
    max_unregistered_per_address: int = setting(
        whole(1), 500, "ORB_MAX_UNREGISTERED_PER_ADDRESS", "The same, from one address."
    )
    store_quota_bytes: int = setting(
        size(0), 8192 * _MIB, "ORB_STORE_QUOTA_BYTES", "Resources of open jobs on disk, together."
    )
    grace_period: float = setting(
        seconds(zero=True), 30.0, "ORB_GRACE_PERIOD", "For open jobs to end, once the engine is told to stop."
    )
    busy_poll_us: int = setting(whole(0, MAX_BUSY_POLL_US), 0, "ORB_BUSY_POLL_US", BUSY_POLL_HELP)
    allowed_origins: tuple[str, ...] = setting(
        TEXTS, (), "ORB_ALLOWED_ORIGINS", "Web pages that may connect, as https://host[:port]; *: all."
    )
    allowed_hosts: tuple[str, ...] = setting(
        TEXTS, (), "ORB_ALLOWED_HOSTS", "Names of this host, besides localhost and addresses; *: any."
    )
    tls_certificate: Path | None = setting(
        PATH, None, "ORB_TLS_CERTIFICATE", "PEM file with the chain; turns TLS on."
    )
    tls_key: Path | None = setting(PATH, None, "ORB_TLS_KEY", "PEM file with the certificate's private key.")
    insecure_no_secret: bool = setting(
        FLAG, False, "ORB_INSECURE_NO_SECRET", "Start without WORKER_SECRET: anybody may be a worker."
    )
    insecure_no_client_token: bool = setting(
        FLAG,
        False,
        "ORB_INSECURE_NO_CLIENT_TOKEN",
        "Listen to the network without CLIENT_TOKENS: anybody may be a client.",
    )

    def __attrs_post_init__(self) -> None:
        if not self.xdg_data_home.is_absolute():
            raise ConfigError(
                f"xdg_data_home (XDG_DATA_HOME): expected an absolute path, not '{self.xdg_data_home}'"
            )
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigError(
                "tls_certificate (ORB_TLS_CERTIFICATE) and tls_key (ORB_TLS_KEY): set both or neither"
            )

    @property
    def store_root(self) -> Path:
        """The directory of the resource store. Spec: "Storage"."""
        return self.xdg_data_home / "unblink-engine"

    def check(self) -> None:
        """Refuse to serve strangers by accident. P-06.

        Raises:
            ConfigError: no worker secret, or clients from the network without tokens; says what to set.
        """
        if self.worker_secret is None and not self.insecure_no_secret:
            raise ConfigError(
                "WORKER_SECRET is not set, so anybody could be a worker: "
                "set it, or WORKER_SECRET_FILE, or start with --insecure-no-secret"
            )
        if not (self.client_tokens or self.insecure_no_client_token or _is_loopback(self.server_host)):
            raise ConfigError(
                f"SERVER_HOST is {self.server_host} and CLIENT_TOKENS not set, so anybody could be a client: "
                "set CLIENT_TOKENS, or SERVER_HOST=localhost, or start with --insecure-no-client-token"
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# --- Loading ------------------------------------------------------------------------------------------------

_SETTINGS: Final = tuple(Setting.of(field) for field in attrs.fields(Config))

# Known to `load` alone: a path may stand where a secret must not.
_FILES: Final = {
    "worker_secret": Setting(
        "worker_secret_file", "WORKER_SECRET_FILE", "File that holds WORKER_SECRET.", PATH
    ),
    "client_tokens": Setting(
        "client_tokens_file", "CLIENT_TOKENS_FILE", "File that holds CLIENT_TOKENS.", PATH
    ),
}
_CONFIG_FILE: Final = Setting("config", "ORB_CONFIG", "TOML file with settings, in its table [engine].", PATH)


def load(argv: Sequence[str], environ: Mapping[str, str]) -> Config:
    """Settings for ``python -m orbtrio.engine``: flags before environment before file before defaults.

    An empty environment variable counts as none.

    Args:
        argv: Without the program's name.
        environ: Usually `os.environ`.

    Raises:
        ConfigError: a setting is unknown or malformed; says which.
        SystemExit: 0, for ``--help`` and ``--version``.
    """
    sources = _Sources(_parse_flags(argv), environ)
    values: dict[str, Any] = {}
    for known in _SETTINGS:
        value = sources.find(known)
        if known.name in _FILES:
            path = sources.find(_FILES[known.name])
            if path is not None and value is not None:
                raise ConfigError(f"{known.env} and {_FILES[known.name].env} are both set: set one")
            if path is not None:
                value = known.parse(_read(_FILES[known.name], path).strip())
        if value is not None:
            values[known.name] = value
    return Config(**values)


class _Sources:
    # Where a setting may come from, the strongest first.
    def __init__(self, flags: Mapping[str, str | None], environ: Mapping[str, str]) -> None:
        self._flags = flags
        self._environ = environ
        self._table: dict[str, Any] = {}
        path = self.find(_CONFIG_FILE)
        self._directory = Path() if path is None else path.parent
        if path is not None:
            self._table = _read_table(path)

    def find(self, known: Setting) -> Any:
        text = self._flags.get(known.name)
        if text is None:
            text = self._environ.get(known.env) or None
        if text is not None:
            return known.parse(text)
        value = self._table.get(known.name)
        if value is None:
            return None
        value = known.parse(value) if isinstance(value, str) else known.accept(value)
        # A path in a file is seen from where the file is.
        return self._directory / value if isinstance(value, Path) else value


def _read(known: Setting, path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"{known.name} ({known.env}): cannot read '{path}': {reason}") from None


def _read_table(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(_read(_CONFIG_FILE, path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None
    # Other tables may be other programs'; a setting outside any is one that lost its table.
    stray = [key for key, value in document.items() if not isinstance(value, dict)]
    if stray:
        raise ConfigError(f"{path}: {stray[0]} stands outside of a table; settings belong below [engine]")
    table: dict[str, Any] = document.get("engine", {})
    names = [known.name for known in (*_SETTINGS, *_FILES.values()) if not known.secret]
    for key in table:
        if key in _FILES:
            raise ConfigError(f"{path}: {key} must not stand in a file of settings; use {_FILES[key].name}")
        if key not in names:
            alike = difflib.get_close_matches(key, names, n=1)
            raise ConfigError(f"{path}: unknown setting {key}" + (f"; is it {alike[0]}?" if alike else ""))
    return table


def _parse_flags(argv: Sequence[str]) -> dict[str, str | None]:
    command = click.Command(
        "engine",
        params=[known.option() for known in (_CONFIG_FILE, *_FILES.values(), *_SETTINGS) if known.flag],
        help="Run an ORB engine. Flags win over the environment, and that over the file of settings.",
        epilog="WORKER_SECRET and CLIENT_TOKENS have no flag, for other users can read command lines.",
        context_settings={"max_content_width": 110},
    )
    click.version_option(_version(), prog_name="orbtrio")(command)
    try:
        return command.make_context("python -m orbtrio.engine", list(argv)).params
    except click.exceptions.Exit as done:
        raise SystemExit(done.exit_code) from None
    except click.ClickException as error:
        raise ConfigError(error.format_message()) from None


def _version() -> str:
    try:
        return importlib.metadata.version("orbtrio")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "(not installed)"


# --- Documentation ------------------------------------------------------------------------------------------


def settings_table() -> str:
    """All settings as a Markdown table, for the README."""
    rows = ["| environment | flag | default | |", "|---|---|---|---|"]
    for known in (*_SETTINGS, *_FILES.values(), _CONFIG_FILE):
        flag = "" if known.flag is None else f"`{known.flag}`"
        default = known.shown_default
        shown = f"`{default}`" if default else ""
        rows.append(f"| `{known.env}` | {flag} | {shown} | {known.help} |")
    return "\n".join(rows) + "\n"
