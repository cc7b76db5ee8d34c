"""A sample engine in Python: counts words, by the helper for authors.

    export VERITONE_WEBHOOK_READY=http://127.0.0.1:8888/readyz
    export VERITONE_WEBHOOK_PROCESS=http://127.0.0.1:8888/process
    orbtrio-toolkit --engine-id words -- python -m orbtrio.toolkit.samples.words

It serves where the first two lines say, as every engine has to.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from orbtrio.toolkit.engine import EngineFailure, Task, engine

__all__ = ["words"]


@engine
def words(task: Task) -> dict[str, Any] | None:
    """Count the words of a text: the ten most frequent, or nothing to say about a blank one."""
    try:
        text = task.read().decode()
    except UnicodeDecodeError as error:
        raise EngineFailure("invalid_data", f"the chunk is no UTF-8: {error}") from None
    counts = Counter(text.lower().split())
    if not counts:
        return None
    start, end = task.number("startOffsetMS"), task.number("endOffsetMS")
    found = [{"type": "word", "label": word, "count": count} for word, count in counts.most_common(10)]
    return {"series": [{"startTimeMs": start, "stopTimeMs": end, "object": each} for each in found]}


if __name__ == "__main__":
    words.run()
