"""Where the toolkit's settings come from: flags before environment before ``/var/manifest.json``.

Names that existing images set (``VERITONE_…``, ``AIWARE_…``, ``ENGINE_ID``, ``BUILD_ID``) mean what they mean
there. What other toolkits have no name for begins with ``ORB_TOOLKIT_``. How to reach the ORB engine is said
as to every worker of ours, by the variables in `_WORKER_VARIABLES`.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import attrs
import click

from orbtrio._settings import FLAG, PATH, TEXT, TEXTS, Setting, seconds, setting, size, whole
from orbtrio.errors import ConfigError
from orbtrio.worker.settings import VARIABLES, WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["MANIFEST", "ToolkitSettings", "load"]

# Where an image says which engine it holds, ET-60.
MANIFEST: Final = Path("/var/manifest.json")

_CACHE: Final = Path("/cache")
_DAY: Final = 86_400.0
# Of a worker's variables, those that mean something here: type and batches follow from what the engine is.
_WORKER_VARIABLES: Final = (
    "SERVER_URL",
    "WORKER_SECRET",
    "ORB_INLINE_RESOURCES",
    "ORB_BUSY_POLL_US",
    "LOG_LEVEL",
)


@attrs.frozen(kw_only=True)
class ToolkitSettings:
    """Settings of the toolkit. Durations are seconds, sizes bytes; secrets do not appear in its repr.

    Attributes:
        command: The HTTP engine's program and its arguments.
        worker: How to reach the ORB engine.
        redis: Host and port of a Redis for engines that share state; None without one.

    The others are described by ``python -m orbtrio.toolkit --help``.

    Raises:
        ConfigError: a value cannot work; says which and what was expected.
    """

    command: tuple[str, ...]
    worker: WorkerSettings = attrs.field(repr=False)
    redis: tuple[str, int] | None = None
    engine_id: str = setting(TEXT, None, "ENGINE_ID", "The engine's id: it serves the type et:<id>.")
    build_id: str | None = setting(TEXT, None, "BUILD_ID", "The build's id, for logs.")
    process_url: str = setting(
        TEXT, None, "VERITONE_WEBHOOK_PROCESS", "Required: the engine's URL to process a chunk."
    )
    ready_url: str | None = setting(
        TEXT,
        None,
        "VERITONE_WEBHOOK_READY",
        "Its URL to ask whether it is ready; else: when its port accepts.",
    )
    ready_timeout: float = setting(
        seconds(), 60.0, "ORB_TOOLKIT_READY_TIMEOUT", "Give up if it is not ready so long after its start."
    )
    concurrency: int = setting(
        whole(1, 1000), 1, "VERITONE_CONCURRENT_TASKS", "Calls of the engine that may run at once."
    )
    disable_chunk_download: bool = setting(
        FLAG, False, "VERITONE_DISABLE_CHUNK_DOWNLOAD", "Send no chunk along; the engine reads cacheURI."
    )
    max_ttl: float = setting(
        seconds(),
        3600.0,
        "ORB_TOOLKIT_MAX_TTL",
        "Wait so long for an engine's results, unless its job says otherwise.",
    )
    runtime_ttl: float | None = setting(
        seconds(),
        None,
        "ORB_TOOLKIT_RUNTIME_TTL",
        "End so long after the start, when what is in hand is done.",
    )
    cache_directory: Path = setting(  # noqa: RUF009  (it makes a field, whatever the type)
        PATH,
        _CACHE,
        "ORB_TOOLKIT_CACHE",
        "Directories for engines are made below it; a temporary one if there is no such volume.",
    )
    shard: str = setting(TEXT, "1", "ORB_TOOLKIT_SHARD", "Part of the cache directory to use.")
    purge_after: float = setting(
        seconds(),
        3 * _DAY,
        "ORB_TOOLKIT_PURGE_AFTER",
        "A task's scratch directory is deleted when unused so long.",
    )
    allowed_hosts: tuple[str, ...] = setting(
        TEXTS,
        (),
        "ORB_TOOLKIT_ALLOWED_HOSTS",
        "Hosts, as patterns, that jobs may make the toolkit call; default: all but link-local ones.",
    )
    max_result_bytes: int = setting(
        size(1024), 12 << 20, "ORB_TOOLKIT_MAX_RESULT", "The most that an engine may answer for one job."
    )
    host: str = setting(TEXT, "127.0.0.1", "ORB_TOOLKIT_HOST", "Where the engine can call the toolkit.")
    port: int = setting(whole(0, 65_535), 0, "ORB_TOOLKIT_PORT", "Its port; 0: a free one.")
    console: bool = setting(
        FLAG, False, "ORB_TOOLKIT_CONSOLE", "Serve a page at /console to try the engine by hand."
    )
    no_worker: bool = setting(
        FLAG,
        False,
        "ORB_TOOLKIT_NO_WORKER",
        "Serve nothing else: no ORB engine is needed. Only with --console.",
    )
    controller: str | None = setting(
        TEXT, None, "AIWARE_CONTROLLER", "The Controller's address, handed on to the engine."
    )
    controller_token: str | None = setting(
        TEXT, None, "AIWARE_CONTROLLER_TOKEN", "What the engine must show it.", secret=True
    )

    def __attrs_post_init__(self) -> None:
        if not self.command:
            raise ConfigError("no engine: name its program after the options, as in: -- ./engine --port 8888")
        if self.no_worker and not self.console:
            raise ConfigError("no_worker (ORB_TOOLKIT_NO_WORKER): then nothing is served; add --console")
        for field in attrs.fields(ToolkitSettings):
            value, is_url = getattr(self, field.name), field.name in ("process_url", "ready_url")
            if value is None and field.name in ("engine_id", "process_url"):
                raise Setting.of(field).error("expected one", value)
            if value is not None and is_url and not _is_http(value):
                expected = "expected a whole URL, such as http://127.0.0.1:8888/process"
                raise Setting.of(field).error(expected, value)


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # A port that is no number, or a bracket that is never closed.
        return False


_SETTINGS: Final = tuple(Setting.of(field) for field in attrs.fields(ToolkitSettings) if field.metadata)


def load(
    argv: Sequence[str], environ: Mapping[str, str] = os.environ, *, manifest: Path = MANIFEST
) -> ToolkitSettings:
    """Settings for ``python -m orbtrio.toolkit``; an empty environment variable counts as none.

    Args:
        argv: Without the program's name: options, then the engine's program and its arguments.
        environ: Usually `os.environ`.
        manifest: Where to look for ``engineId`` if nothing else names it.

    Raises:
        ConfigError: a setting is missing or malformed; says which.
        SystemExit: 0, for ``--help``.
    """
    flags = _parse_flags(argv)
    command = flags.pop("command")
    values: dict[str, Any] = {}
    for known in _SETTINGS:
        text = flags.get(known.name)
        text = (environ.get(known.env) or None) if text is None else text
        if text is not None:
            values[known.name] = known.parse(text)
    identifier = values.get("engine_id") or environ.get("ENGINE_IDS") or _manifest_id(manifest)
    if not identifier:
        raise ConfigError("engine_id (ENGINE_ID): expected the engine's id; set ENGINE_ID or use --engine-id")
    # Some images list all that one program serves; an instance of it is one worker (ET-60).
    values["engine_id"] = identifier.split(",")[0].strip()
    values.setdefault("cache_directory", _default_cache())
    given = {name: environ[name] for name in _WORKER_VARIABLES if name in environ}
    if values.get("no_worker"):
        given["WORKER_SECRET"] = "unused"
    worker = WorkerSettings.from_environ(given, worker_type=f"et:{values['engine_id']}")
    return ToolkitSettings(command=tuple(command), worker=worker, redis=_redis(environ), **values)


def _parse_flags(argv: Sequence[str]) -> dict[str, Any]:
    lines = ["\b", "How to reach the ORB engine, by environment:"]
    lines += [f"  {name:<21} {VARIABLES[name].help}" for name in _WORKER_VARIABLES]
    lines += ["", "\b", "For engines that share state (both, or neither):"]
    lines += ["  AIWARE_REDIS_HOST, AIWARE_REDIS_PORT", ""]
    lines += ["AIWARE_CONTROLLER_TOKEN has no flag, for other users can read command lines."]
    command = click.Command(
        "toolkit",
        params=[
            *(known.option() for known in _SETTINGS if known.flag),
            click.Argument(
                ["command"], nargs=-1, type=click.UNPROCESSED, metavar="[--] PROGRAM [ARGUMENT]..."
            ),
        ],
        help="Start PROGRAM, an HTTP engine, and make it a worker of an ORB engine.",
        epilog="\n".join(lines),
        context_settings={
            "max_content_width": 110,
            # The first word that is no option of ours is the program: `engine ./mine --port 1` needs no --.
            "allow_interspersed_args": False,
        },
    )
    try:
        return command.make_context("python -m orbtrio.toolkit", list(argv)).params
    except click.exceptions.Exit as done:
        raise SystemExit(done.exit_code) from None
    except click.ClickException as error:
        raise ConfigError(error.format_message()) from None


def _manifest_id(path: Path) -> str | None:
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}; set ENGINE_ID to do without it") from None
    value = document.get("engineId") if isinstance(document, dict) else None
    return value if isinstance(value, str) else None


# Shared by instances where there is a volume for it; by those of one user of one machine otherwise.
def _default_cache() -> Path:
    if os.access(_CACHE, os.W_OK):
        return _CACHE
    return Path(tempfile.gettempdir()) / f"orbtrio-toolkit-{os.getuid()}"


def _redis(environ: Mapping[str, str]) -> tuple[str, int] | None:
    host, port = environ.get("AIWARE_REDIS_HOST"), environ.get("AIWARE_REDIS_PORT")
    if not host and not port:
        return None
    if not host or not port:
        raise ConfigError("AIWARE_REDIS_HOST and AIWARE_REDIS_PORT go together: set both or neither")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise ConfigError(f"AIWARE_REDIS_PORT is {port!r}: expected a port, such as 6379")
    return host, int(port)
