"""The client's books, without tasks or sockets: what is packed, what is sent again, who is convicted."""

from __future__ import annotations

import itertools
import weakref
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbtrio.client.outbox import Outbox
from orbtrio.client.tickets import Ticket, measure
from orbtrio.errors import ConnectionLost, JobFailed, JobRefused, JobTimedOut
from orbtrio.protocol.codec import decode, request_job
from orbtrio.protocol.messages import CancelRequest, ProgressReport, Resource, WorkerRequest, WorkerResponse

if TYPE_CHECKING:
    from collections.abc import Iterator

PICTURE = Resource("image-1", "image", bytes(1000))


class Owner:
    """Keeps what it gets back."""

    def __init__(self) -> None:
        self.tickets: list[Ticket] = []
        self.pieces: list[tuple[str, int, dict[str, Any], int]] = []

    def ended(self, ticket: Ticket) -> None:
        self.tickets.append(ticket)

    def reported(self, ticket: Ticket, piece: dict[str, Any], size: int) -> None:
        self.pieces.append((ticket.client_job_id, ticket.runs, piece, size))

    @property
    def errors(self) -> dict[str, Exception | None]:
        return {ticket.client_job_id: ticket.error for ticket in self.tickets}


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def outbox() -> Outbox:
    return Outbox(max_request_bytes=10_000, probe_time=0.5)


def add(
    outbox: Outbox,
    owner: Owner,
    job_id: str,
    *,
    size: int = 0,
    empties: int = 0,
    resources: tuple[Resource, ...] = (),
    timeout: float = 1.0,
) -> Ticket:
    references = [{"__type": "resource-ref", "id": resource.resource_id} for resource in resources]
    padding: object = [{}] * empties or bytes(size)
    wire = request_job(job_id, "t", {"padding": padding, "references": references})
    ticket = Ticket(job_id, wire, resources, measure(wire, resources), timeout, timeout, owner)
    outbox.add(ticket)
    return ticket


def requests(outbox: Outbox) -> Iterator[WorkerRequest]:
    while (parts := outbox.next_request(0.0)) is not None:
        yield read(parts)


def read(parts: list[bytes]) -> WorkerRequest:
    message = decode(b"".join(parts))
    assert isinstance(message, WorkerRequest)
    assert not message.invalid
    return message


def sent(outbox: Outbox) -> list[list[str]]:
    return [[job.client_job_id for job in request.jobs] for request in requests(outbox)]


def answer(outbox: Outbox, job_id: Any, **output: Any) -> None:
    outbox.answer(WorkerResponse(job_id, output))


# --- Packing -----------------------------------------------------------------------------------------------


def test_what_waits_is_packed_into_one_request_in_order(outbox: Outbox, owner: Owner) -> None:
    for number in range(100):
        add(outbox, owner, f"{number:02}")
    assert sent(outbox) == [[f"{number:02}" for number in range(100)]]
    assert outbox.next_request(0.0) is None
    assert (len(outbox), outbox.sent, outbox.carried) == (100, 100, 1)


def test_requests_stay_below_the_limit_and_a_larger_job_goes_alone(outbox: Outbox, owner: Owner) -> None:
    sizes: list[tuple[str, int]] = [("a", 4000), ("b", 4000), ("c", 4000), ("d", 20_000), ("e", 0)]
    for job_id, size in sizes:
        add(outbox, owner, job_id, size=size)
    assert sent(outbox) == [["a", "b"], ["c"], ["d"], ["e"]]


def test_what_travels_together_is_never_too_much_for_an_engine(owner: Owner) -> None:
    """Here each job alone costs the tenth part of what a message may, in 6,250 bytes."""
    outbox = Outbox(max_request_bytes=900 * 1024, probe_time=0.5)
    outbox.link_up(frozenset({"engine_errors"}))
    shared = Resource("document-1", "document", b"x" * 850_000 + "\U0001f600".encode())
    names = [f"{number:02}" for number in range(16)]
    for name in names:
        add(outbox, owner, name, empties=6250, resources=(shared,)).tells_timeout = True
    together = sent(outbox)  # which decodes them as an engine does
    assert [name for jobs in together for name in jobs] == names
    assert [len(jobs) for jobs in together] == [4, 4, 4, 4]


def test_a_job_that_is_larger_travels_alone(owner: Owner) -> None:
    outbox = Outbox(max_request_bytes=900 * 1024, probe_time=0.5)
    for name, size in (("a", 100), ("b", 100_000), ("c", 100)):
        add(outbox, owner, name, size=size)
    assert sent(outbox) == [["a"], ["b"], ["c"]]


def test_a_request_has_at_most_512_jobs(outbox: Outbox, owner: Owner) -> None:
    outbox = Outbox(max_request_bytes=1 << 30, probe_time=0.5)
    for number in range(1025):
        add(outbox, owner, str(number))
    assert [len(jobs) for jobs in sent(outbox)] == [512, 512, 1]


def test_identical_resources_travel_once_per_request(outbox: Outbox, owner: Owner) -> None:
    other = Resource("document-1", "document", "Grüße".encode())
    for job_id in "abcdefghijk":
        add(outbox, owner, job_id, resources=(PICTURE,))
    add(outbox, owner, "l", resources=(PICTURE, other))
    [request] = requests(outbox)
    assert request.resources == (PICTURE, other)
    # The next request is another scope.
    add(outbox, owner, "m", resources=(PICTURE,))
    [request] = requests(outbox)
    assert request.resources == (PICTURE,)


def test_resources_count_for_the_limit_once(outbox: Outbox, owner: Owner) -> None:
    large = Resource("image-2", "image", bytes(6000))
    for job_id in "ab":
        add(outbox, owner, job_id, resources=(large,))
    add(outbox, owner, "c", resources=(Resource("image-3", "image", bytes(6000)),))
    assert sent(outbox) == [["a", "b"], ["c"]]


def test_a_forgotten_job_is_not_sent(outbox: Outbox, owner: Owner) -> None:
    tickets = [add(outbox, owner, job_id) for job_id in "abc"]
    outbox.forget(tickets[0])
    outbox.forget(tickets[0])
    outbox.forget(tickets[2])
    assert sent(outbox) == [["b"]]
    assert not owner.tickets


# --- Ends --------------------------------------------------------------------------------------------------


def test_an_answer_ends_its_job_once_and_strangers_are_dropped(outbox: Outbox, owner: Owner) -> None:
    add(outbox, owner, "a")
    assert sent(outbox) == [["a"]]
    named: list[object] = ["a", "a", "never", 7, None, [], {"x": 1}]
    for job_id in named:
        answer(outbox, job_id, id="engine's", vector=[0.5])
    [ticket] = owner.tickets
    assert (ticket.output, ticket.error) == ({"vector": [0.5]}, None)
    assert (outbox.answered, outbox.dropped, len(outbox)) == (1, 6, 0)


@pytest.mark.parametrize(
    ("output", "kind", "text"),
    [
        ({"error": "no such file", "partial": 1}, JobFailed, "no such file"),
        ({"error": "x", "error_kind": None}, JobFailed, "x"),
        ({"error": {"code": 7}}, JobFailed, "{'code': 7}"),
        ({"error": "", "error_kind": 7}, JobFailed, ""),
        ({"error": "too late", "error_kind": "timeout"}, JobTimedOut, "too late"),
        ({"error": "full", "error_kind": "queue_full"}, JobRefused, "queue_full: full"),
    ],
)
def test_errors_say_who_failed(
    outbox: Outbox, owner: Owner, output: dict[str, Any], kind: type[Exception], text: str
) -> None:
    """P-24, P-31."""
    add(outbox, owner, "a")
    answer(outbox, "a", id="x", **output)
    [ticket] = owner.tickets
    assert type(ticket.error) is kind
    assert str(ticket.error) == text
    assert ticket.output is None
    if isinstance(ticket.error, JobFailed):
        assert ticket.error.output == output


def test_a_null_error_is_none(outbox: Outbox, owner: Owner) -> None:
    add(outbox, owner, "a")
    answer(outbox, "a", id="x", error=None, response="hello")
    assert owner.tickets[0].output == {"error": None, "response": "hello"}


def test_jobs_expire_in_order_of_their_deadlines(outbox: Outbox, owner: Owner) -> None:
    add(outbox, owner, "slow", timeout=9.0)
    add(outbox, owner, "quick", timeout=1.0)
    add(outbox, owner, "gone", timeout=0.5)
    outbox.forget(add(outbox, owner, "even", timeout=1.0))
    assert outbox.next_deadline == 0.5
    outbox.expire(0.4)
    assert not owner.tickets
    answer(outbox, "gone")
    assert outbox.next_deadline == 1.0
    outbox.expire(1.0)
    assert outbox.next_deadline == 9.0
    outbox.expire(9.5)
    assert outbox.next_deadline == float("inf")
    assert [str(error) for error in owner.errors.values() if error] == [
        "no answer within 1 s",
        "no answer within 9 s",
    ]


def test_what_has_ended_does_not_gather(outbox: Outbox, owner: Owner) -> None:
    """Not even while there is no connection, and nothing leaves the queue."""
    add(outbox, owner, "first", timeout=1e6)
    for number in range(10_000):
        outbox.forget(add(outbox, owner, str(number), timeout=300.0))
    assert len(outbox._deadlines) < 1100
    assert len(outbox._waiting) < 1100
    ended = weakref.ref(add(outbox, owner, "ended"))
    outbox.forget(cast("Ticket", ended()))
    assert ended() is None
    assert sent(outbox) == [["first"]]


def test_failing_all_gives_each_its_own_error(outbox: Outbox, owner: Owner) -> None:
    for job_id in "ab":
        add(outbox, owner, job_id)
    outbox.fail(lambda: ConnectionLost("closed"))
    first, second = owner.errors.values()
    assert first is not second
    assert not len(outbox)
    assert sent(outbox) == []


def test_jobs_are_found_by_their_owner(outbox: Outbox, owner: Owner) -> None:
    mine = add(outbox, owner, "a")
    add(outbox, Owner(), "b")
    assert outbox.owned_by(owner) == [mine]


# --- Lost links --------------------------------------------------------------------------------------------


def test_after_a_lost_link_what_was_not_answered_is_sent_again_in_order(outbox: Outbox, owner: Owner) -> None:
    for job_id in "abc":
        add(outbox, owner, job_id)
    assert sent(outbox) == [["a", "b", "c"]]
    add(outbox, owner, "d")
    answer(outbox, "b")
    outbox.link_lost()
    assert not outbox.suspicious
    assert outbox.carried == 0
    assert sent(outbox) == [["a", "c", "d"]]


# --- Cancelling --------------------------------------------------------------------------------------------

OURS = frozenset({"cancel"})


def cancelled(outbox: Outbox) -> list[list[str]]:
    messages = []
    while (parts := outbox.next_cancel()) is not None:
        message = decode(b"".join(parts))
        assert isinstance(message, CancelRequest)
        messages.append(message.client_job_ids)
    return messages


def test_what_the_engine_has_and_nobody_waits_for_is_cancelled_in_one_message(
    outbox: Outbox, owner: Owner
) -> None:
    outbox.link_up(OURS)
    tickets = [add(outbox, owner, job_id) for job_id in "abc"]
    late = add(outbox, owner, "late", timeout=0.5)
    assert sent(outbox) == [["a", "b", "c", "late"]]
    woken: list[bool] = []
    outbox.wake = lambda: woken.append(True)
    outbox.forget(tickets[0])
    outbox.forget(tickets[0])
    outbox.forget(tickets[2])
    outbox.expire(0.5)
    assert isinstance(late.error, JobTimedOut)
    assert len(woken) == 3
    assert cancelled(outbox) == [["a", "c", "late"]]
    assert cancelled(outbox) == []
    assert (outbox.cancelled, len(outbox)) == (3, 1)


def test_what_the_engine_never_had_or_has_answered_is_not_cancelled(outbox: Outbox, owner: Owner) -> None:
    outbox.link_up(OURS)
    answered = add(outbox, owner, "answered")
    assert sent(outbox) == [["answered"]]
    answer(outbox, "answered")
    outbox.forget(answered)
    outbox.forget(add(outbox, owner, "waiting"))
    outbox.expire(add(outbox, owner, "expired").deadline)
    assert cancelled(outbox) == []


def test_an_engine_that_does_not_know_how_is_not_asked_to_cancel(outbox: Outbox, owner: Owner) -> None:
    outbox.link_up(frozenset({"progress"}))
    ticket = add(outbox, owner, "a")
    assert sent(outbox) == [["a"]]
    outbox.forget(ticket)
    assert cancelled(outbox) == []


def test_what_was_to_be_cancelled_is_gone_with_the_link(outbox: Outbox, owner: Owner) -> None:
    outbox.link_up(OURS)
    gone, kept = add(outbox, owner, "gone"), add(outbox, owner, "kept")
    assert sent(outbox) == [["gone", "kept"]]
    outbox.forget(gone)
    outbox.link_lost()
    # Nor is the next engine told of what only the former had.
    outbox.forget(kept)
    outbox.link_up(OURS)
    assert cancelled(outbox) == []
    assert sent(outbox) == []


def test_a_cancel_request_stays_small(owner: Owner) -> None:
    outbox = Outbox(max_request_bytes=1 << 30, probe_time=0.5)
    outbox.link_up(OURS)
    tickets = [add(outbox, owner, f"12345678-{number}") for number in range(10_000)]
    assert sum(map(len, sent(outbox))) == 10_000
    for ticket in tickets:
        outbox.forget(ticket)
    sizes = []
    while (parts := outbox.next_cancel()) is not None:
        sizes.append(sum(map(len, parts)))
    assert len(sizes) == 3
    assert max(sizes) < 64 * 1024
    assert outbox.cancelled == 10_000


def test_that_a_cancelled_job_is_cancelled_surprises_nobody(outbox: Outbox, owner: Owner) -> None:
    outbox.link_up(OURS)
    ticket = add(outbox, owner, "a")
    assert sent(outbox) == [["a"]]
    outbox.forget(ticket)
    answer(outbox, "a", error="cancelled", error_kind="cancelled")
    answer(outbox, "a", error="no time left", error_kind="timeout")
    assert outbox.dropped == 0
    answer(outbox, "a", error="full", error_kind="queue_full")
    answer(outbox, "a", error="odd", error_kind=["cancelled"])
    assert outbox.dropped == 2
    # Unless the engine was faster than the cancelling.
    answer(outbox, "a", vector=[0.5])
    assert (outbox.dropped, outbox.answered) == (3, 0)


def test_who_stands_trial_and_is_cancelled_is_cancelled_at_the_engine(outbox: Outbox, owner: Owner) -> None:
    bad, good = add(outbox, owner, "bad"), add(outbox, owner, "good")
    assert sent(outbox) == [["bad", "good"]]
    outbox.link_lost("1009")
    outbox.link_up(OURS)
    assert trial(outbox) == ["bad"]
    outbox.forget(bad)
    assert cancelled(outbox) == [["bad"]]
    # A trial that has no defendant any more convicts nobody.
    outbox.link_lost("1009")
    outbox.link_up(OURS)
    assert trial(outbox) == ["good"]
    assert good.strikes == 0
    assert not owner.tickets


# --- Progress ----------------------------------------------------------------------------------------------


def test_progress_goes_to_whoever_waits_for_the_job(outbox: Outbox, owner: Owner) -> None:
    add(outbox, owner, "a")
    add(outbox, owner, "waiting")
    outbox.progress(ProgressReport("waiting", {"too": "early"}), 10)
    assert sent(outbox) == [["a", "waiting"]]
    outbox.progress(ProgressReport("a", {"percent": 10}), 70)
    outbox.progress(ProgressReport("a", {"percent": 5}, attempt=2), 80)
    for stranger in ("never", 7, None, ["a"], {"b": 1}):
        outbox.progress(ProgressReport(stranger, {}), 10)
    answer(outbox, "a")
    outbox.progress(ProgressReport("a", {"too": "late"}), 10)
    assert owner.pieces == [("a", 1, {"percent": 10}, 70), ("a", 2, {"percent": 5}, 80)]
    assert outbox.dropped == 0


def test_progress_proves_that_a_request_was_taken(outbox: Outbox, owner: Owner) -> None:
    """P-20, as an answer does."""
    add(outbox, owner, "a")
    add(outbox, owner, "b")
    assert sent(outbox) == [["a", "b"]]
    bad = add(outbox, owner, "bad")
    assert sent(outbox) == [["bad"]]
    outbox.progress(ProgressReport("a", {}), 10)
    outbox.link_lost("1008")
    assert bad.strikes == 1
    assert sent(outbox) == [["a", "b"]]
    assert trial(outbox) == ["bad"]


# --- Trials ------------------------------------------------------------------------------------------------


def trial(outbox: Outbox) -> list[str]:
    group = [read(outbox.lone_request(ticket, 0.0)) for ticket in outbox.next_trial()]
    assert all(len(request.jobs) == 1 for request in group)
    return [request.jobs[0].client_job_id for request in group]


def test_a_lone_job_that_is_refused_twice_is_convicted(outbox: Outbox, owner: Owner) -> None:
    add(outbox, owner, "bad")
    assert sent(outbox) == [["bad"]]
    outbox.link_lost("1009 resource too large")
    assert outbox.suspicious
    assert sent(outbox) == []
    assert trial(outbox) == ["bad"]
    outbox.link_lost("1009 resource too large")
    error = owner.errors["bad"]
    assert isinstance(error, JobRefused)
    assert error.kind == "invalid_job"
    assert "1009 resource too large" in error.text
    assert not outbox.suspicious


def test_what_was_answered_before_is_no_excuse(outbox: Outbox, owner: Owner) -> None:
    add(outbox, owner, "good")
    assert sent(outbox) == [["good"]]
    answer(outbox, "good")
    bad = add(outbox, owner, "bad")
    assert sent(outbox) == [["bad"]]
    outbox.link_lost("1009")
    assert bad.strikes == 1


def test_jobs_of_an_accepted_request_are_not_suspected(outbox: Outbox, owner: Owner) -> None:
    """P-20: a request is accepted whole or not at all."""
    add(outbox, owner, "a")
    add(outbox, owner, "b")
    assert sent(outbox) == [["a", "b"]]
    add(outbox, owner, "bad")
    assert sent(outbox) == [["bad"]]
    answer(outbox, "a")
    outbox.link_lost("1008")
    assert sent(outbox) == [["b"]]
    assert trial(outbox) == ["bad"]


def test_a_refusal_without_suspects_only_reconnects(outbox: Outbox, owner: Owner) -> None:
    add(outbox, owner, "a")
    add(outbox, owner, "b")
    assert sent(outbox) == [["a", "b"]]
    answer(outbox, "a")
    outbox.link_lost("1008")
    assert not outbox.suspicious
    assert sent(outbox) == [["b"]]


def test_to_be_refused_beside_a_cancelled_job_is_no_strike(outbox: Outbox, owner: Owner) -> None:
    bad, good = add(outbox, owner, "bad"), add(outbox, owner, "good")
    assert sent(outbox) == [["bad", "good"]]
    outbox.forget(bad)
    outbox.link_lost("1009")
    assert good.strikes == 0
    assert trial(outbox) == ["good"]


def test_a_link_lost_without_refusal_does_not_end_a_trial(outbox: Outbox, owner: Owner) -> None:
    add(outbox, owner, "bad")
    assert sent(outbox) == [["bad"]]
    outbox.link_lost("1009")
    assert trial(outbox) == ["bad"]
    outbox.link_lost()
    assert outbox.suspicious
    assert trial(outbox) == ["bad"]
    outbox.acquit()
    assert trial(outbox) == []
    assert not outbox.suspicious


def test_suspects_that_ended_are_not_tried(outbox: Outbox, owner: Owner) -> None:
    bad = add(outbox, owner, "bad")
    assert sent(outbox) == [["bad"]]
    outbox.link_lost("1009")
    outbox.forget(bad)
    assert trial(outbox) == []


def test_a_refused_group_is_halved_and_the_acquitted_wait_with_the_others(
    outbox: Outbox, owner: Owner
) -> None:
    for job_id in "abcd":
        add(outbox, owner, job_id)
    assert sent(outbox) == [["a", "b", "c", "d"]]
    outbox.link_lost("1009")
    assert trial(outbox) == ["a", "b"]
    outbox.acquit()
    assert trial(outbox) == ["c", "d"]
    outbox.link_lost("1009")
    assert trial(outbox) == ["c"]
    assert outbox.probe_time == 0.5


def test_a_refusal_after_the_last_acquittal_doubles_the_patience(outbox: Outbox, owner: Owner) -> None:
    for job_id in "abcd":
        add(outbox, owner, job_id)
    assert sent(outbox) == [["a", "b", "c", "d"]]
    for probe_time in (0.5, 1.0, 2.0, 4.0, 8.0, 8.0):
        outbox.link_lost("1009")
        assert outbox.probe_time == probe_time
        for group in (["a", "b"], ["c", "d"], []):
            assert trial(outbox) == group
            outbox.acquit()


def test_all_of_a_group_answered_the_refusal_is_about_those_acquitted_before(
    outbox: Outbox, owner: Owner
) -> None:
    for job_id in "abcd":
        add(outbox, owner, job_id)
    assert sent(outbox) == [["a", "b", "c", "d"]]
    outbox.link_lost("1009")
    assert trial(outbox) == ["a", "b"]
    outbox.acquit()
    assert trial(outbox) == ["c", "d"]
    answer(outbox, "c")
    answer(outbox, "d")
    outbox.link_lost("1009")
    assert trial(outbox) == ["a"]


class Engine:
    """Refuses certain jobs, after a while; answers only what it accepted."""

    def __init__(self, outbox: Outbox, poison: frozenset[str], lag: int) -> None:
        self.outbox = outbox
        self.poison = poison
        self.lag = lag
        self.links = 0

    def run(self, *, answering: bool) -> None:
        """Links until one survives."""
        for self.links in itertools.count(1):
            assert self.links < 200
            refused = self._link(answering)
            if not refused:
                return
            self.outbox.link_lost("1009 no")

    # Whether the engine closed this link. Time is counted in trials that the client had patience for.
    def _link(self, answering: bool) -> bool:
        refused_in: float | None = None
        accepted: list[str] = []

        def deliver(request: WorkerRequest) -> None:
            nonlocal refused_in
            if refused_in is None:
                jobs = [job.client_job_id for job in request.jobs]
                if self.poison.intersection(jobs):
                    refused_in = self.lag * 0.5
                else:
                    accepted.extend(jobs)

        def wait(seconds: float) -> bool:
            nonlocal refused_in
            if refused_in is not None:
                refused_in -= seconds
            if answering:
                for job_id in accepted:
                    answer(self.outbox, job_id)
                accepted.clear()
            return refused_in is not None and refused_in < 0

        while group := self.outbox.next_trial():
            for ticket in group:
                deliver(read(self.outbox.lone_request(ticket, 0.0)))
            if wait(self.outbox.probe_time):
                return True
            self.outbox.acquit()
        for request in requests(self.outbox):
            deliver(request)
        return wait(float("inf"))


@given(
    count=st.integers(1, 60),
    poison=st.sets(st.integers(0, 59), max_size=3),
    lag=st.integers(0, 6),
    answering=st.booleans(),
    per_request=st.integers(1, 12),
)
def test_exactly_the_poisonous_jobs_are_convicted(
    count: int, poison: set[int], lag: int, answering: bool, per_request: int
) -> None:
    """However they are spread over requests, and however slow the engine is to refuse."""
    outbox, owner = Outbox(max_request_bytes=100 * per_request, probe_time=0.5), Owner()
    names = [str(number) for number in range(count)]
    for name in names:
        add(outbox, owner, name)
    bad = frozenset(names).intersection(map(str, poison))

    Engine(outbox, bad, lag).run(answering=answering)

    assert {name for name, error in owner.errors.items() if error} == bad
    assert len(outbox) == (0 if answering else count - len(bad))


def test_one_poisonous_job_among_512_costs_few_links(outbox: Outbox, owner: Owner) -> None:
    names = [str(number) for number in range(512)]
    for name in names:
        add(outbox, owner, name)
    engine = Engine(outbox, frozenset({"317"}), lag=0)
    engine.run(answering=False)
    assert list(owner.errors) == ["317"]
    assert engine.links <= 13
