"""EvalScope sends the messages of a row unchanged."""

from __future__ import annotations

from typing import Any


def test_thoughts_in_earlier_answers_are_sent_unchanged() -> None:
    from evalscope.models.utils.openai import openai_chat_messages

    from tunesmith_runtime.evaluate.adapter import QuestionsAndAnswers

    called = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    asked: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "<think>hm</think> I ask. ", "tool_calls": [called]},
        {"role": "tool", "content": "4", "tool_call_id": "c1"},
    ]
    sample = QuestionsAndAnswers.record_to_sample(None, {"messages": asked, "response": "cold"})
    sent = [dict(message) for message in openai_chat_messages(sample.input)]
    assert [message["content"] for message in sent] == [message["content"] for message in asked]
    assert sent[2]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city": "Oslo"}'}
    assert sent[3]["tool_call_id"] == "c1"
