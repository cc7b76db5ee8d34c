"""What the HTTP engine may see of our environment.

``AIWARE_…`` variables are the platform's and stay here, except those that an image puts on its white list
(ET-49, ET-50) and the Controller's address (ET-51). A runner of Node-RED flows needs two of them to find its
flow and its plugins, which its image may not say: they are added for it, so that nothing else here need know
about Node-RED (ET-57). Our own secrets are never handed on, white list or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NODE_RED", "engine_environment"]

# What a runner of Node-RED looks for, ET-56 and ET-59.
NODE_RED: Final = ("AIWARE_BUILD_RUNTIME", "AIWARE_AUTOMATE_SHARE_FOLDER")

_PREFIX: Final = "AIWARE_"
_WHITE_LIST: Final = "AIWARE_ENV_WHITE_LIST"
_ALWAYS: Final = "AIWARE_CONTROLLER"
# With these a program could pose as a worker or a client of the ORB engine.
_SECRETS: Final = frozenset({"WORKER_SECRET", "CLIENT_TOKEN", "CLIENT_TOKENS", "AIWARE_CONTROLLER_TOKEN"})


def engine_environment(environ: Mapping[str, str], controller: str | None = None) -> dict[str, str]:
    """The variables for the engine's process.

    Args:
        environ: Ours.
        controller: The Controller's address, where something other than our environment named it.
    """
    listed = {name.strip() for name in environ.get(_WHITE_LIST, "").split(",")} | {_ALWAYS}
    if environ.get(NODE_RED[0]):
        listed.update(NODE_RED)
    seen = {
        name: value
        for name, value in environ.items()
        if (not name.startswith(_PREFIX) or name in listed) and name not in _SECRETS
    }
    return {**seen, _ALWAYS: controller} if controller else seen
