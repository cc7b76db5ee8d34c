"""``python -m orbtrio.toolkit.nodered FLOW.json [OPTIONS]``: a Node-RED flow as a worker, on this machine.

This does what the platform's agent does around the toolkit, ET-53 to ET-58: it puts the flow where the runner
looks for it, ``<cache>/engines/<engine>/<build>/runtime.json``, says so in AIWARE_BUILD_RUNTIME, and runs the
toolkit with the runner, ``node main.js``, as its engine. The toolkit itself knows nothing of Node-RED, but
that this variable is not to be hidden from the engine. In an image there is no need for it: there the agent
does all that, and the entry point is the toolkit.

``"runtime": "nodeRed"`` in ``/var/manifest.json`` (ET-63) tells whoever starts engines that the engine is a
flow. The toolkit starts what it is told to start and does not look; this program does, and refuses to run a
flow in the place of an engine that is none.

Node-RED is not installed from here, since what it brings belongs to whoever runs it; but the command is said.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orbtrio.errors import ConfigError
from orbtrio.toolkit import __main__ as toolkit
from orbtrio.toolkit.directories import Directories
from orbtrio.toolkit.environment import NODE_RED
from orbtrio.toolkit.settings import MANIFEST, load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["main"]

_RUNNER: Final = Path(__file__).with_name("main.js")
# Node-RED's own port.
_PROCESS: Final = "http://127.0.0.1:1880/process"
# Where Node-RED is, if not in the cache.
_DIRECTORY: Final = "ORB_NODE_RED"

_HELP: Final = f"""\
Usage: python -m orbtrio.toolkit.nodered FLOW.json [OPTIONS]

  Make a Node-RED flow a worker of an ORB engine. Its "http in" node for POST /process gets each chunk as an
  uploaded file, and answers with the output.

  FLOW.json is what Node-RED exports, or a runtime definition that holds a flow.

Options are those of the toolkit: see python -m orbtrio.toolkit --help. Required is the engine's id. By
environment also:
  VERITONE_WEBHOOK_PROCESS      where the flow answers  [default: {_PROCESS}]
  {_DIRECTORY}                  where Node-RED is installed  [default: nodered/runner in the cache]
  AIWARE_AUTOMATE_SHARE_FOLDER  further nodes
"""


def main(
    argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ, *, manifest: Path = MANIFEST
) -> int:
    """Run a flow until told to stop.

    Args:
        argv: Instead of the command line.
        environ: Instead of the environment.
        manifest: Where an image says what it holds.

    Returns:
        The exit status.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    if not arguments or arguments[0] == "--help":
        print(_HELP, end="", file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    try:
        command, environment = _prepare(Path(arguments[0]), arguments[1:], environ, manifest)
    except ConfigError as error:
        print(f"error: {error}\nsee python -m orbtrio.toolkit.nodered --help", file=sys.stderr)
        return 2
    return toolkit.main(command, environment)


# What to run the toolkit with, when all is in its place.
def _prepare(
    flow: Path, options: Sequence[str], environ: Mapping[str, str], manifest: Path
) -> tuple[list[str], dict[str, str]]:
    _check_runtime(manifest)
    command = [*options, "--", "node", str(_RUNNER)]
    settings = load(command, {"VERITONE_WEBHOOK_PROCESS": _PROCESS, **environ}, manifest=manifest)
    if settings.command != ("node", str(_RUNNER)):
        raise ConfigError(f"{settings.command[0]!r} is no option: the flow is the engine, name no other")
    try:
        content = flow.read_bytes()
    except OSError as error:
        raise ConfigError(f"{flow}: {error.strerror}") from None
    # Another flow is another build, whoever forgets to say so.
    build = settings.build_id or f"flow-{hashlib.sha256(content).hexdigest()[:12]}"
    directory = Path(environ.get(_DIRECTORY) or settings.cache_directory / "nodered" / "runner").absolute()
    modules = [str(directory / "node_modules"), environ.get("NODE_PATH")]
    environment = {
        **environ,
        "ENGINE_ID": settings.engine_id,
        "BUILD_ID": build,
        "VERITONE_WEBHOOK_PROCESS": settings.process_url,
        "ORB_TOOLKIT_CACHE": str(settings.cache_directory),
        "NODE_PATH": os.pathsep.join(filter(None, modules)),
        _DIRECTORY: str(directory),
    }
    _check_flow(flow, environment)
    try:
        home = Directories(settings).build(build)
        environment[NODE_RED[0]] = str(_place(content, home / "runtime.json"))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise ConfigError(f"the flow cannot be put into the cache: {error}") from None
    return command, environment


def _check_runtime(manifest: Path) -> None:
    try:
        document = json.loads(manifest.read_text("utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise ConfigError(f"{manifest}: cannot be read: {error}") from None
    runtime = document.get("runtime", "nodeRed") if isinstance(document, dict) else None
    if runtime != "nodeRed":
        raise ConfigError(f"{manifest}: its runtime is {runtime!r}, not 'nodeRed': its engine is no flow")


# Before anything is begun, or a mistake in the flow would look like an engine that crashes.
def _check_flow(flow: Path, environment: Mapping[str, str]) -> None:
    node = shutil.which("node", path=environment.get("PATH"))
    if node is None:
        raise ConfigError("Node.js is not installed (Debian: apt-get install nodejs npm)")
    checked = subprocess.run(
        [node, str(_RUNNER), "--check"],
        env={**environment, NODE_RED[0]: str(flow)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if checked.returncode != 0:
        raise ConfigError(checked.stderr.strip().removeprefix("error: "))


# Several instances start at once, and one that reads must not see half of what another writes.
def _place(content: bytes, file: Path) -> Path:
    attempt = file.with_name(f".runtime-{secrets.token_hex(8)}")
    try:
        descriptor = os.open(attempt, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        with open(descriptor, "wb") as writer:
            writer.write(content)
        attempt.replace(file)
    finally:
        attempt.unlink(missing_ok=True)
    return file


if __name__ == "__main__":
    sys.exit(main())
