# mypy: disable-error-code="import-not-found, misc, untyped-decorator"
# Their libraries are not there where types are checked.
"""An application of Celery, for ``celery worker``. CELERY_BROKER_URL: Redis, for tasks and results."""

from __future__ import annotations

import os

from celery import Celery

from benchmarks.peers.work import Echo

app = Celery(broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_BROKER_URL"])
echo = Echo()


@app.task(name="echo")
def answer(text: str) -> str:
    return echo([text])[0]
