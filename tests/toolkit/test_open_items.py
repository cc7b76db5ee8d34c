from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from orbtrio.toolkit.answers import Heartbeat, Output, Result
from orbtrio.toolkit.items import Failed, Item, Reception
from orbtrio.toolkit.jobs import TaskInput
from orbtrio.toolkit.open_items import Ended, OpenItems, Purpose, Urls

PURPOSES: dict[Purpose, str] = {
    "heartbeat": "heartbeat_token",
    "callback": "heartbeat_token",
    "result": "result_token",
    "external": "external_token",
    "cache": "cache_token",
}
BODY = Output(({"output": "body"},))


def make(**fields: Any) -> Item:
    return Item(TaskInput(**fields), now=0)


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_token_opens_what_it_is_for_and_nothing_else(purpose: Purpose) -> None:
    items, item = OpenItems(), make()
    items.add(item)
    token = getattr(item, PURPOSES[purpose])
    opened = {other for other in PURPOSES if items.find(other, token) is item}
    assert opened == {other for other in PURPOSES if PURPOSES[other] == PURPOSES[purpose]}


def test_each_attempt_has_tokens_of_its_own() -> None:
    items, task = OpenItems(), TaskInput()
    first, second = Item(task, now=0), Item(task, now=0)
    items.add(first)
    items.add(second)
    assert items.find("result", first.result_token) is first
    assert items.find("result", second.result_token) is second
    assert len(items) == 2


@pytest.mark.parametrize("purpose", PURPOSES)
def test_et_106_what_has_ended_is_remembered(purpose: Purpose) -> None:
    items, item = OpenItems(), make()
    items.add(item)
    items.discard(item)
    assert isinstance(items.find(purpose, getattr(item, PURPOSES[purpose])), Ended)
    assert items.find(purpose, "unknown") is None
    assert len(items) == 0


@pytest.mark.parametrize(
    ("outcome", "repeats"),
    [("complete", "complete"), ("failed", "failed"), (None, None)],
)
def test_et_106_ended_attempts_answer_as_the_item_would(outcome: str | None, repeats: str | None) -> None:
    items, item = OpenItems(), make()
    items.add(item)
    if outcome == "complete":
        item.answered(BODY, 1)
    elif outcome == "failed":
        item.outcome = Failed("api_error", "", retry=False)
    items.discard(item)
    ended = items.find("heartbeat", item.heartbeat_token)
    assert ended is not None
    for status in ("running", "complete", "failed"):
        expected = Reception.REPEATED if status == repeats else Reception.GONE
        assert ended.heartbeat(Heartbeat(status=status), 2) is expected
        if outcome is not None:
            assert item.heartbeat(Heartbeat(status=status), 2) is expected
    assert ended.result(Result(output=1), 2) is Reception.GONE


def test_only_so_many_are_remembered_the_oldest_is_forgotten_first() -> None:
    items = OpenItems(remembered=2)
    attempts = [make() for _ in range(3)]
    for item in attempts:
        items.add(item)
        items.discard(item)
    assert items.find("result", attempts[0].result_token) is None
    assert items.find("cache", attempts[0].cache_token) is None
    assert items.find("result", attempts[1].result_token) is not None
    assert items.find("result", attempts[2].result_token) is not None


def test_discarding_twice_is_discarding_once() -> None:
    items, item, other = OpenItems(), make(internal_job_id="job"), make(internal_job_id="job")
    items.add(item)
    items.add(other)
    items.discard(item)
    items.discard(item)
    assert items.in_scope("j", "job")


def test_et_140_scope_is_the_jobs_and_tasks_in_hand() -> None:
    items = OpenItems()
    first = make(internal_job_id="job", internal_task_id="one")
    second = make(internal_job_id="job", internal_task_id="two")
    assert not items.in_scope("j", "job")
    items.add(first)
    items.add(second)
    assert items.tasks == {("job", "one"), ("job", "two")}
    assert items.in_scope("j", "job")
    assert items.in_scope("t", "one")
    assert not items.in_scope("t", "job")
    assert not items.in_scope("j", "one")
    items.discard(first)
    assert items.in_scope("j", "job")
    assert not items.in_scope("t", "one")
    items.discard(second)
    assert not items.in_scope("j", "job")
    assert items.tasks == frozenset()


async def test_whoever_uses_an_attempt_is_released_when_it_is_closed() -> None:
    items, item = OpenItems(), make()
    items.add(item)
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(_use, items, item)
        await trio.testing.wait_all_tasks_blocked()
        items.discard(item)


async def _use(items: OpenItems, item: Item) -> None:
    with items.while_open(item):
        await trio.sleep_forever()


async def test_a_use_may_end_before_the_attempt() -> None:
    items, item = OpenItems(), make()
    items.add(item)
    with items.while_open(item):
        await trio.lowlevel.checkpoint()
    items.discard(item)


async def test_what_is_closed_cannot_be_used() -> None:
    with OpenItems().while_open(make()):
        await trio.sleep_forever()


def test_et_81_82_83_84_urls_hold_the_token_and_nothing_about_the_task() -> None:
    item = make(internal_task_id="task1234", internal_job_id="job")
    urls = Urls("http://127.0.0.1:1234")
    assert urls.heartbeat(item) == f"http://127.0.0.1:1234/heartbeat/{item.heartbeat_token}"
    assert urls.result(item) == f"http://127.0.0.1:1234/result/{item.result_token}"
    assert urls.external(item) == f"http://127.0.0.1:1234/external/{item.external_token}"
    assert urls.cache(item) == f"http://127.0.0.1:1234/cache/{item.cache_token}"
    assert urls.keys == "http://127.0.0.1:1234"
    assert len({item.heartbeat_token, item.result_token, item.external_token, item.cache_token}) == 4
