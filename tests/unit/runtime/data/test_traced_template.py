"""A conversation that is rendered once has the texts that the tokenizer renders of its first messages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.runtime.data.families import FAMILIES
from tests.unit.runtime.data.loading import with_template
from tests.unit.runtime.data.test_chat_templates import CALL, TEMPLATES, folder
from tunesmith_runtime.data.traced_template import TracedTemplate

ALL = {**FAMILIES, **{name: (folder() / f"{name}.jinja").read_text() for name in TEMPLATES}}
contents = st.text(max_size=6) | st.sampled_from(["<|im_end|>", "<think>x</think>y"])
messages = st.lists(
    st.builds(lambda role, content: {"role": role, "content": content}, st.sampled_from(["system", "user", "assistant"]), contents)
    | st.just({"role": "assistant", "content": "", "tool_calls": [CALL]})
    | st.just({"role": "tool", "content": "4", "tool_call_id": "c1", "name": "weather"}),
    min_size=1, max_size=6,
)  # fmt: skip
EXCHANGE = [{"role": "user", "content": "kiwi?"}, {"role": "assistant", "content": "fruit"}]
TRACED = {"chatml", "llama", "mistral", "tools", "qwen2_5", "llama3_2", "gemma3", "phi3", "smolvlm"}


def agree(tokenizer: Any, template: str, turns: list[dict[str, Any]], tools: Any = None) -> bool:
    """Whether the turns are traced. Fails where a text differs."""
    changed = with_template(tokenizer, template)
    traced = TracedTemplate(changed).trace(turns, tools)
    if traced is None:
        return False
    for count in range(1, len(turns) + 1):
        for prompt in (True, False):
            rendered = changed.apply_chat_template(
                turns[:count], tools=tools, tokenize=False, add_generation_prompt=prompt
            )
            assert traced.render(count, prompt) == rendered
    return True


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=messages)
@pytest.mark.parametrize("name", sorted(ALL))
def test_traced_texts_are_those_that_the_tokenizer_renders(
    tokenizer: Any, name: str, turns: list[dict[str, Any]]
) -> None:
    agree(tokenizer, ALL[name], turns)
    agree(tokenizer, ALL[name], [*EXCHANGE, *turns, *EXCHANGE], [{"type": "function", "function": {"name": "weather"}}])


def test_templates_that_write_one_message_after_the_other_are_traced(tokenizer: Any) -> None:
    assert {name for name, template in ALL.items() if agree(tokenizer, template, EXCHANGE * 2)} >= TRACED


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.content }}{% if loop.last %}.{% endif %}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{{ loop.length }}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{{ messages|length }}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{{ messages[-1].content }}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{{ messages[loop.index].role }}{% endfor %}",
        "{% for m in messages|batch(2) %}{{ m }}{% endfor %}",
        "{% set messages = messages|batch(2) %}{% for m in messages %}{{ m[0].content }}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{% if messages is sequence %}.{% endif %}{% endfor %}{{ messages|length }}",
        "{% set n = namespace(x=0) %}{% for m in messages %}{% set n.x = n.x + 1 %}{% endfor %}{{ n.x }}",
        "{% for m in messages %}{{ m.content }}{% if add_generation_prompt %}!{% endif %}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{% endfor %}{% for m in messages %}{{ m.role }}{% endfor %}",
        "{% for t in [1] %}{% for m in messages %}{{ m.content }}{% endfor %}{% endfor %}",
        "{% if true %}{% for m in messages %}{{ m.content }}{% endfor %}{% endif %}{% for t in tools or [] %}{{ t }}{% endfor %}",
        "{{ messages }}{% for m in messages %}{{ m.content }}{% endfor %}",
        "{{ messages|tojson }}{% for m in messages %}{{ m.content }}{% endfor %}",
        "{% macro all(x) %}{% for m in x %}{{ m.content }}{% endfor %}{% endmacro %}{{ all(messages) }}{% for m in messages %}{% endfor %}",
    ],
)  # fmt: skip
def test_a_template_that_reads_ahead_is_rendered_for_each_answer(tokenizer: Any, template: str) -> None:
    assert not agree(tokenizer, template, EXCHANGE * 2)
