"""Language model: answers chats, and tells each piece of an answer as it is written.

    {messages: [{role: "user", content: "What is the capital of France?"}]}
                                                 ->  {response: "The capital of France is Paris."}

Roles are "system", "user" and "assistant", of whom the last message must not be. An answer ends after
max_tokens tokens, a field of the input, by default 512 and 4096 at most. Clients that ask for progress get
{text: "The"}, {text: " capital"}, ... before the answer.

Without MODEL_ID a small model answers, always in the same way (SmolLM2-135M-Instruct in 4 bits, temperature
0: 15 ms of CPU a token, 350 MB; 2048 tokens for a chat and its answer). It writes four answers side by side,
and begins the next as soon as one of them is done; leave MAX_BATCH_SIZE unset for that. With MODEL_ID, any of
Hugging Face's that has a chat template, such as Qwen/Qwen3-0.6B or microsoft/Phi-4-mini-instruct, as many
chats at once as a batch has, with the settings that its authors gave it.

Spec: "LLM Worker".
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from orbtrio.worker import JobCancelled, run_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from orbtrio.worker import Job, WorkerSettings

ROLES: Final = ("system", "user", "assistant")

# The builtin model's; see `smollm2.SLOTS`.
CHATS: Final = 4

DEFAULT_TOKENS: Final = 512
MOST_TOKENS: Final = 4096

# About sixty thousand tokens. Whether a chat fits into its context only the model can tell, and counts tokens
# to do so.
MAX_CHARACTERS: Final = 262_144

# Each costs a template's work, however short it is: twenty thousand empty ones took 20 s to be refused.
MOST_MESSAGES: Final = 1000


class Model(Protocol):
    """What answers chats."""

    def generate(
        self,
        chats: list[list[dict[str, Any]]],
        *,
        max_tokens: int,
        on_token: Callable[[int, str], None],
        stop: Callable[[int], bool],
    ) -> list[str]:
        """The next message of each chat. Calls `on_token` with a chat's place and its new text, and `stop`
        with its place after each of its tokens; True ends it there.
        """


@attrs.frozen
class Question:
    """A chat, and how long the answer may get."""

    messages: list[dict[str, Any]]
    max_tokens: int


class Chat:
    """Answers the chats of a batch, all at once."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def prepare(self, job_input: dict[str, Any]) -> Question:
        """Check the input of a job: ``messages`` and, if there is one, ``max_tokens``.

        Raises:
            ValueError: it is no chat; the text says where.
        """
        return Question(read_messages(job_input), read_max_tokens(job_input))

    def __call__(self, jobs: Sequence[Job]) -> list[dict[str, Any] | Exception]:
        """Answer the questions that `prepare` returned, and report what is written.

        Returns:
            For each ``response``, the text that was reported, whole; or `JobCancelled`.
        """
        most_tokens = max(job.input.max_tokens for job in jobs)
        answers = [_Answer(job, most_tokens) for job in jobs]
        texts = self._model.generate(
            [job.input.messages for job in jobs],
            max_tokens=most_tokens,
            on_token=lambda place, text: answers[place].add(text),
            stop=lambda place: answers[place].is_over(),
        )
        return [
            JobCancelled("cancelled") if answer.unwanted else {"response": text}
            for answer, text in zip(answers, texts, strict=True)
        ]


class OneChat(Chat):
    """The same for models that are called with one chat at a time, by several threads at once."""

    def __call__(self, job: Job) -> dict[str, Any]:  # type: ignore[override]
        """As `Chat`, for one."""
        (result,) = super().__call__([job])
        if isinstance(result, Exception):
            raise result
        return result


class _Answer:
    """An answer as it is written.

    Args:
        job: The one that it is for.
        most_tokens: Where the model stops by itself; the job may want fewer.
    """

    def __init__(self, job: Job, most_tokens: int) -> None:
        self._job = job
        self._left = job.input.max_tokens if job.input.max_tokens < most_tokens else math.inf
        self.unwanted = False

    def add(self, text: str) -> None:
        # Raised here, it would end its neighbours' answers as well.
        try:
            self._job.report(text=text)
        except JobCancelled:
            self.unwanted = True

    def is_over(self) -> bool:
        self._left -= 1
        self.unwanted = self.unwanted or self._job.cancelled
        return self.unwanted or self._left <= 0


def read_messages(job_input: dict[str, Any]) -> list[dict[str, Any]]:
    """The chat of a job, of each message what models know of: ``role`` and ``content``.

    Raises:
        ValueError: it has none, or what is no chat.
    """
    chat = read_chat(job_input, _text)
    check_characters(message["content"] for message in chat)
    return chat


def read_chat(job_input: dict[str, Any], read_content: Callable[[Any, str], Any]) -> list[dict[str, Any]]:
    """The messages of a job, each with ``role`` and what `read_content` makes of its ``content``.

    Args:
        job_input: Of a job.
        read_content: Called with a content and its field's name, for errors.

    Raises:
        ValueError: there are none, too many, or what is no chat.
    """
    messages = job_input.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ValueError("messages: expected a list of messages, each with role and content")
    if len(messages) > MOST_MESSAGES:
        raise ValueError(f"messages: {len(messages)} are too many, at most {MOST_MESSAGES}")
    chat = []
    for place, message in enumerate(messages):
        field = f"messages[{place}]"
        if not isinstance(message, dict):
            raise ValueError(f"{field}: expected a message with role and content")
        if message.get("role") not in ROLES:
            raise ValueError(f"{field}.role: expected one of {', '.join(ROLES)}")
        content = read_content(message.get("content"), f"{field}.content")
        chat.append({"role": message["role"], "content": content})
    if chat[-1]["role"] == "assistant":
        raise ValueError(f"messages[{len(chat) - 1}].role: the last message is for the model to answer")
    return chat


def check_characters(texts: Iterable[str]) -> None:
    """Hold the texts of a chat against `MAX_CHARACTERS`.

    Raises:
        ValueError: together they have more.
    """
    characters = sum(map(len, texts))
    if characters > MAX_CHARACTERS:
        raise ValueError(f"messages: {characters} characters are too many, at most {MAX_CHARACTERS}")


def _text(content: Any, field: str) -> str:
    if not isinstance(content, str):
        raise ValueError(f"{field}: expected text")
    return content


def read_max_tokens(job_input: dict[str, Any]) -> int:
    """How many tokens the answer may have.

    Raises:
        ValueError: no number, or out of range.
    """
    most = job_input.get("max_tokens")
    if most is None:
        return DEFAULT_TOKENS
    # True is an int too.
    if type(most) is not int or not 1 <= most <= MOST_TOKENS:
        raise ValueError(f"max_tokens: expected a whole number from 1 to {MOST_TOKENS}")
    return most


def load(settings: WorkerSettings) -> Chat | OneChat:
    """Load the model that ``MODEL_ID`` names, or the builtin one.

    Raises:
        ConfigError: it cannot be loaded; the text says what to install or to change.
    """
    if settings.model_id is None:
        from .builtin import smollm2

        return OneChat(smollm2.load())
    from .huggingface import chat

    return Chat(chat.load(settings.model_id))


def main() -> None:
    """Be the worker program. How a model is called has to be known before it is loaded."""
    builtin = (os.environ.get("MODEL_ID") or "builtin") == "builtin"
    run_program(
        load,
        worker_type="llm",
        batched=not builtin,
        concurrency=CHATS if builtin else 1,
        with_jobs=True,
        description=__doc__,
    )


if __name__ == "__main__":
    main()
