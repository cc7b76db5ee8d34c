"""Chats in, answers out, token by token; the models are fakes. Spec: "LLM Worker"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from orbtrio.worker import Job, JobCancelled, WorkerSettings
from tests.workers.routes import fake_routes
from workers import llm
from workers.builtin import smollm2
from workers.llm import Chat, OneChat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Messages = list[dict[str, Any]]


def said(text: str) -> Messages:
    return [{"role": "user", "content": text}]


class Speller:
    """Answers a chat with its last message, letter by letter, and all chats in turn."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[Messages], int]] = []
        self.written = 0

    def generate(
        self,
        chats: list[Messages],
        *,
        max_tokens: int,
        on_token: Callable[[int, str], None],
        stop: Callable[[int], bool],
    ) -> list[str]:
        self.calls.append((chats, max_tokens))
        texts = [chat[-1]["content"] for chat in chats]
        answers = [""] * len(chats)
        going = set(range(len(chats)))
        for step in range(max_tokens):
            for place in sorted(going):
                if step == len(texts[place]):
                    going.remove(place)
                    continue
                self.written += 1
                answers[place] += texts[place][step]
                on_token(place, texts[place][step])
                if stop(place):
                    going.remove(place)
        return answers


class Reports:
    """What jobs report, in order; `job` makes one that is cancelled after so many."""

    def __init__(self, chat: Chat) -> None:
        self.all: list[tuple[str, str]] = []
        self._chat = chat

    def job(self, text: str, name: str = "", *, until: int = 1000, **fields: Any) -> Job:
        seen = 0

        def report(job_id: str, said: Mapping[str, Any]) -> None:
            nonlocal seen
            assert said.keys() == {"text"}
            self.all.append((job_id, said["text"]))
            seen += 1
            job.cancelled = seen >= until

        job = Job(self._chat.prepare({"messages": said(text), **fields}), job_id=name or text, report=report)
        return job

    def of(self, name: str) -> str:
        return "".join(text for job_id, text in self.all if job_id == name)


# --- Answers ------------------------------------------------------------------------------------------------


def test_batch_is_answered_at_once_each_job_with_its_own_text() -> None:
    model = Speller()
    chat = Chat(model)
    reports = Reports(chat)
    assert chat([reports.job("cat"), reports.job("dogs")]) == [{"response": "cat"}, {"response": "dogs"}]
    assert model.calls == [([said("cat"), said("dogs")], 512)]
    assert reports.all[:4] == [("cat", "c"), ("dogs", "d"), ("cat", "a"), ("dogs", "o")]


def test_pieces_that_were_reported_make_the_response() -> None:
    chat = Chat(Speller())
    reports = Reports(chat)
    (result,) = chat([reports.job("Paris it is")])
    assert result == {"response": reports.of("Paris it is")}


def test_answer_ends_after_the_tokens_that_its_job_asked_for() -> None:
    model = Speller()
    chat = Chat(model)
    reports = Reports(chat)
    results = chat(
        [
            reports.job("abcdef", max_tokens=2),
            reports.job("ghijkl", max_tokens=4),
            reports.job("m", max_tokens=3),
        ]
    )
    assert results == [{"response": "ab"}, {"response": "ghij"}, {"response": "m"}]
    assert model.calls[0][1] == 4


def test_cancelled_job_stops_within_a_token_and_its_neighbour_goes_on() -> None:
    model = Speller()
    chat = Chat(model)
    reports = Reports(chat)
    cancelled, whole = chat([reports.job("abcdef", until=2), reports.job("ghi")])
    assert isinstance(cancelled, JobCancelled)
    assert whole == {"response": "ghi"}
    assert model.written == 2 + 3
    assert reports.of("abcdef") == "ab"


def test_job_that_is_cancelled_between_tokens_is_told_by_the_next_report() -> None:
    """A model that tells several tokens at once need not have asked in between."""

    class Deaf(Speller):
        def generate(
            self, chats: list[Messages], *, on_token: Callable[[int, str], None], **_: Any
        ) -> list[str]:
            on_token(0, "a")
            on_token(0, "b")
            return ["ab"]

    chat = Chat(Deaf())
    (result,) = chat([Reports(chat).job("x", until=1)])
    assert isinstance(result, JobCancelled)


def test_one_chat_is_for_models_that_are_asked_one_by_one() -> None:
    model = Speller()
    chat = OneChat(model)
    assert chat(Reports(chat).job("cat", max_tokens=2)) == {"response": "ca"}
    assert model.calls == [([said("cat")], 2)]


def test_one_chat_that_is_cancelled_raises() -> None:
    chat = OneChat(Speller())
    with pytest.raises(JobCancelled):
        chat(Reports(chat).job("cat", until=1))


# --- Questions ----------------------------------------------------------------------------------------------


def test_models_get_roles_and_contents_and_nothing_else() -> None:
    chat = [
        {"role": "system", "content": "Rhyme.", "name": "x"},
        {"role": "user", "content": ""},
        {"role": "assistant", "content": "Time."},
        {"role": "user", "content": "And?"},
    ]
    question = Chat(Speller()).prepare({"messages": chat, "max_tokens": None, "stream": True})
    assert question.messages == [{"role": "system", "content": "Rhyme."}, *chat[1:]]
    assert question.max_tokens == 512


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        (None, "messages: expected a list of messages"),
        ([], "messages: expected a list of messages"),
        ("hello", "messages: expected a list of messages"),
        (["hello"], "messages[0]: expected a message with role and content"),
        ([{"content": "hello"}], "messages[0].role: expected one of system, user, assistant"),
        ([{"role": ["user"], "content": "hello"}], "messages[0].role: expected one of"),
        ([{"role": "tool", "content": "hello"}], "messages[0].role: expected one of"),
        ([*said("a"), {"role": "user"}], "messages[1].content: expected text"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
            "messages[0].content: expected text",
        ),
        ([*said("a"), {"role": "assistant", "content": "b"}], "messages[1].role: the last message is for"),
        (said("a") * 1001, "messages: 1001 are too many, at most 1000"),
        ([*said("a" * 262_144), *said("b")], "messages: 262145 characters are too many, at most 262144"),
    ],
)
def test_what_is_no_chat_is_refused_with_the_place(messages: Any, problem: str) -> None:
    """WRK-04."""
    with pytest.raises(ValueError, match="messages") as caught:
        Chat(Speller()).prepare({"messages": messages})
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize("most", [0, -1, 4097, 1.5, "7", True])
def test_tokens_are_a_number_in_range(most: Any) -> None:
    with pytest.raises(ValueError, match=r"^max_tokens: expected a whole number from 1 to 4096$"):
        Chat(Speller()).prepare({"messages": said("a"), "max_tokens": most})


# --- The program --------------------------------------------------------------------------------------------


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Both routes are fakes; what was loaded, by its MODEL_ID."""
    return fake_routes(monkeypatch, Speller, builtin="smollm2", huggingface="chat")


@pytest.mark.parametrize(("model_id", "kind"), [(None, OneChat), ("Qwen/Qwen3-0.6B", Chat)])
def test_model_id_chooses_the_route(model_id: str | None, kind: type[Chat], loaded: list[str | None]) -> None:
    settings = WorkerSettings(worker_type="llm", worker_secret="hush", model_id=model_id)
    assert type(llm.load(settings)) is kind
    assert loaded == [model_id]


@pytest.mark.parametrize(
    ("model_id", "called"),
    [
        (None, {"batched": False, "concurrency": smollm2.SLOTS}),
        ("", {"batched": False, "concurrency": smollm2.SLOTS}),
        ("builtin", {"batched": False, "concurrency": smollm2.SLOTS}),
        ("Qwen/Qwen3-0.6B", {"batched": True, "concurrency": 1}),
    ],
)
def test_program_calls_a_model_in_the_way_it_was_loaded_for(
    model_id: str | None, called: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MODEL_ID", raising=False)
    if model_id is not None:
        monkeypatch.setenv("MODEL_ID", model_id)
    options: dict[str, Any] = {}

    def run_program(load: Any, **given: Any) -> None:
        assert load is llm.load
        options.update(given)

    monkeypatch.setattr(llm, "run_program", run_program)
    llm.main()
    assert options["with_jobs"]
    assert options["worker_type"] == "llm"
    assert {name: options[name] for name in called} == called
