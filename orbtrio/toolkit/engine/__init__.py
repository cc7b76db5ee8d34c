"""For authors of HTTP engines in Python: a function becomes an engine.

    from orbtrio.toolkit.engine import Task, engine

    @engine
    def count_words(task: Task) -> dict:
        return {"object": [{"type": "count", "count": len(task.read().split())}]}

    if __name__ == "__main__":
        count_words.run()

This serves ``/readyz`` and ``/process``, where VERITONE_WEBHOOK_READY and VERITONE_WEBHOOK_PROCESS say. The
function runs in a thread; what it returns is the chunk's output, None that there is nothing to say. With
``@engine(asynchronous=True)`` calls are acknowledged at once, heartbeats follow each second, and the function
may post any number of results; trainings of libraries are always done so. Nothing here needs orbtrio's
toolkit at the other end: any toolkit that speaks the same HTTP will do.
"""

from __future__ import annotations

from orbtrio.toolkit.engine.libraries import keep_library
from orbtrio.toolkit.engine.program import Engine, engine
from orbtrio.toolkit.engine.tasks import EngineFailure, Keys, Task, TaskOver

__all__ = ["Engine", "EngineFailure", "Keys", "Task", "TaskOver", "engine", "keep_library"]
