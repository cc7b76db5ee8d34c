"""``orbtrio-worker``: the workers that come with orbtrio, wherever it runs from.

They are ``workers`` in a checkout and ``orbtrio_workers`` where a wheel has been installed. A package that
happens to be called ``workers`` must not be run in their place, so what decides is not whether it can be
imported, but whether this file lies in a checkout.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys
from pathlib import Path
from typing import Final

__all__ = ["main"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_INSTALLED: Final = "orbtrio_workers"


def main() -> None:
    """Be ``python -m workers``, with the arguments of this process."""
    package = _INSTALLED
    if (_ROOT / "noxfile.py").is_file() and (_ROOT / "workers" / "__main__.py").is_file():
        package = "workers"
        # Before anything else of that name; for the workers that ours starts, too.
        sys.path.insert(0, str(_ROOT))
        inherited = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(_ROOT), *([inherited] if inherited else [])])
    elif importlib.util.find_spec(package) is None:
        sys.exit(
            "orbtrio-worker: this installation of orbtrio has no workers: install it again, from a wheel"
        )
    runpy.run_module(package, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
