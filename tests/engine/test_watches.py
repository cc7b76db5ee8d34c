"""Deadlines of their own, without trio; with jobs around them in test_jobs."""

from __future__ import annotations

import math
from random import Random

from orbtrio.engine.watches import Watch, Watches


class FakeAlarm:
    deadline = math.inf


def watch(name: str, deadline: float, heartbeat: float = math.inf, *, number: int = 0) -> Watch:
    return Watch(name, number, deadline, heartbeat)


def test_what_is_due_comes_in_order_once_it_is_due() -> None:
    watches = Watches()
    assert watches.next_look == math.inf
    for number, (name, deadline) in enumerate([("c", 3.0), ("a", 1.0), ("b", 1.0)]):
        watches.add(watch(name, deadline, number=number))
    assert watches.next_look == 1.0
    assert watches.take_due(0.9) == []
    assert watches.take_due(2.0) == ["a", "b"]
    assert watches.next_look == 3.0


def test_a_job_that_ended_is_never_due() -> None:
    watches = Watches()
    watches.add(watch("a", 1.0))
    watches.remove("a")
    assert len(watches) == 0
    assert watches.take_due(9.0) == []


def test_the_alarm_is_put_forward_and_never_back() -> None:
    watches, alarm = Watches(), FakeAlarm()
    watches.alarm = alarm
    job = watch("a", 100.0, heartbeat=10.0)
    watches.add(job)
    assert alarm.deadline == 100.0
    watches.add(watch("b", 200.0))
    assert alarm.deadline == 100.0
    job.sent(5.0)
    assert alarm.deadline == 15.0


def test_every_sign_of_life_puts_the_end_off() -> None:
    watches = Watches()
    job = watch("a", 100.0, heartbeat=10.0)
    watches.add(job)
    job.sent(0.0)
    for second in range(1, 90, 9):
        job.heard_at = float(second)
        assert watches.take_due(second + 9.0) == []
    assert watches.take_due(100.0) == ["a"]


def test_nobody_is_expected_to_speak_of_a_job_that_nobody_has() -> None:
    watches = Watches()
    job = watch("a", 100.0, heartbeat=10.0)
    job.sent(0.0)  # in no book yet: nothing to look up
    watches.add(job)
    job.returned()
    assert watches.take_due(50.0) == []
    job.sent(60.0)
    assert watches.next_look == 70.0
    assert watches.take_due(70.0) == ["a"]


def test_a_job_that_is_sent_again_is_due_once() -> None:
    watches = Watches()
    job = watch("a", 100.0, heartbeat=10.0)
    watches.add(job)
    for start in (0.0, 3.0, 6.0):
        job.sent(start)
        job.returned()
    job.sent(9.0)
    assert watches.take_due(18.0) == []
    assert watches.take_due(19.0) == ["a"]
    assert watches.take_due(200.0) == []


def test_many_jobs_that_ended_take_no_memory() -> None:
    watches = Watches()
    watches.add(watch("stays", 300.0))
    for number in range(1000):
        watches.add(watch(str(number), 300.0 + number))
        watches.remove(str(number))
    assert len(watches._heap) < 100
    assert watches.take_due(300.0) == ["stays"]


def test_nothing_is_early_and_nothing_is_late() -> None:
    """Against a list that is searched from end to end."""
    random = Random(20261122)
    watches, living, now = Watches(), dict[str, Watch](), 0.0
    for number in range(3000):
        now += random.random()
        if random.random() < 0.8:
            job = watch(str(number), now + random.random() * 60, random.choice([math.inf, 2.0, 9.0]))
            living[job.job_id] = job
            watches.add(job)
        for job in random.sample(list(living.values()), min(len(living), 2)):
            event = random.choice(["sent", "sent", "heard", "heard", "returned", "removed"])
            if event == "sent":
                job.sent(now)
            elif event == "heard" and job.heard_at < math.inf:
                job.heard_at = now
            elif event == "returned":
                job.returned()
            elif event == "removed":
                watches.remove(job.job_id)
                del living[job.job_id]
        expected = {name for name, job in living.items() if job.due <= now}
        due = watches.take_due(now)
        assert set(due) == expected
        assert len(due) == len(expected)
        for name in due:
            watches.remove(name)
            del living[name]
        assert watches.next_look <= min((job.due for job in living.values()), default=math.inf)
    assert len(living) > 3
