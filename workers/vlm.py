"""Vision language model: answers chats in which there are pictures, and tells the answer as it is written.

    {messages: [{role: "user", content: [{type: "image", image: "street.jpg"},
                                         {type: "text", text: "How many people are there?"}]}]}
                                                 ->  {response: "There are three people."}

As in `llm`, roles are "system", "user" and "assistant", an answer ends after max_tokens tokens, a field of
the input, by default 512 and 4096 at most, and clients that ask for progress get {text: "There"},
{text: " are"}, ... before the answer. A chat has 16 pictures at most; large ones are reduced.

No small model for this is to be had as a package, so MODEL_ID must name one of Hugging Face's, such as
HuggingFaceTB/SmolVLM-256M-Instruct or llava-hf/llava-interleave-qwen-0.5b-hf: LLaVA, SmolVLM, Qwen-VL and
others that have a chat template. Pictures take memory, and a batch is answered when its longest answer is
written: MAX_BATCH_SIZE=4 is a good beginning.

Spec: "Vision Language Model (VLM) Worker".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from orbtrio.errors import ConfigError
from orbtrio.worker import run_program

from ._pictures import KEPT_PIXELS, read_picture
from .llm import MOST_MESSAGES, Chat, Question, check_characters, read_chat, read_max_tokens

if TYPE_CHECKING:
    from orbtrio.worker import WorkerSettings

EXAMPLES: Final = ("HuggingFaceTB/SmolVLM-256M-Instruct", "llava-hf/llava-interleave-qwen-0.5b-hf")

MOST_PICTURES: Final = 16

# Of all pictures of a chat: jobs are decoded ahead, and a batch of 32 may take 512 MB of them.
CHAT_PIXELS: Final = 4 * KEPT_PIXELS


class VisionChat(Chat):
    """Answers the chats of a batch, all at once, as `Chat` does; their messages have parts."""

    def prepare(self, job_input: dict[str, Any]) -> Question:
        """Check the input of a job, ``messages`` and, if there is one, ``max_tokens``; read its pictures.

        Raises:
            ValueError: it is no chat, or a picture cannot be read; the text says where.
        """
        most_tokens = read_max_tokens(job_input)
        messages = read_messages(job_input)
        pictures = [part for message in messages for part in message["content"] if part["type"] == "image"]
        for part in pictures:
            part["image"] = read_picture(
                part["image"],
                field=part.pop("field"),
                most_pixels=min(KEPT_PIXELS, CHAT_PIXELS // len(pictures)),
            )
        return Question(messages, most_tokens)


def read_messages(job_input: dict[str, Any]) -> list[dict[str, Any]]:
    """The chat of a job, of each message what models know of: ``role``, and ``content`` as a list of parts.

    Parts are ``{"type": "text", "text": ...}`` and ``{"type": "image", "image": ..., "field": ...}``, where
    ``image`` is what was sent, not looked at, and ``field`` its name in errors. Content that is a text is one
    part.

    Raises:
        ValueError: it has none, or what is no chat.
    """
    chat = read_chat(job_input, _parts)
    parts = [part for message in chat for part in message["content"]]
    if len(parts) > MOST_MESSAGES:
        raise ValueError(f"messages: {len(parts)} parts are too many, at most {MOST_MESSAGES}")
    check_characters(part["text"] for part in parts if part["type"] == "text")
    pictures = sum(part["type"] == "image" for part in parts)
    if pictures > MOST_PICTURES:
        raise ValueError(f"messages: {pictures} pictures are too many, at most {MOST_PICTURES}")
    return chat


def _parts(content: Any, field: str) -> list[dict[str, Any]]:
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list) or not content:
        raise ValueError(f"{field}: expected a list of parts, of type text or image")
    return [_part(part, f"{field}[{place}]") for place, part in enumerate(content)]


def _part(part: Any, field: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        if not isinstance(part.get("text"), str):
            raise ValueError(f"{field}.text: expected text")
        return {"type": "text", "text": part["text"]}
    if kind == "image":
        return {"type": "image", "image": part.get("image"), "field": f"{field}.image"}
    raise ValueError(f"{field}: expected {{type: 'text', text}} or {{type: 'image', image}}")


def load(settings: WorkerSettings) -> VisionChat:
    """Load the model that ``MODEL_ID`` names.

    Raises:
        ConfigError: it names none, or the model cannot be loaded; the text says what to install or to change.
    """
    if settings.model_id is None:
        raise ConfigError(
            f"MODEL_ID is not set, and this worker has no builtin model: set it to {EXAMPLES[0]}, which is"
            f" small, or {EXAMPLES[1]} (needs pip install '.[huggingface]')"
        )
    from .huggingface import vision_chat

    return VisionChat(vision_chat.load(settings.model_id))


if __name__ == "__main__":
    run_program(load, worker_type="vlm", batched=True, with_jobs=True, description=__doc__)
