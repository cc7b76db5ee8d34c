from __future__ import annotations

from orbtrio.demo import talk


def test_a_question_is_a_chat_with_a_bound() -> None:
    job_input = talk.ask("Why?")
    assert job_input["messages"] == [{"role": "user", "content": "Why?"}]
    assert 0 < job_input["max_tokens"] < 100
