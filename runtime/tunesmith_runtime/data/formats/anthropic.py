"""Messages with Anthropic's blocks (tool_use, tool_result, thinking) as messages of chat templates.

The form of https://docs.anthropic.com/en/api/messages: results of tools are blocks in a message of the user.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from tunesmith_runtime.data.row_fields import has, kind_of
from tunesmith_runtime.messages import text_at, wrong

BLOCKS = frozenset({"tool_use", "tool_result", "thinking"})
"""Types of blocks that are no content in the form of chat templates."""


def has_blocks(message: Mapping[str, Any]) -> bool:
    """Whether the content of a message has one of BLOCKS."""
    content = message.get("content")
    return isinstance(content, list) and any(_type(part) in BLOCKS for part in content)


def expand(message: Mapping[str, Any], place: str) -> list[dict[str, Any]]:
    """The messages that a message with blocks stands for. Raises RowError that names the block."""
    others = {key: value for key, value in message.items() if key not in ("role", "content")}
    blocks = [(f"{place}.content[{index}]", block) for index, block in enumerate(message["content"])]
    if message.get("role") == "assistant":
        return [{**others, "role": "assistant", **_answer(blocks)}]
    return [{**others, **each} for each in _results(message.get("role"), blocks)]


def tools(value: Any) -> Any:
    """Tools whose parameters are named input_schema, as function schemas. Anything else is returned unchanged."""
    if not isinstance(value, list) or not any(isinstance(each, dict) and has(each, "input_schema") for each in value):
        return value
    return [_schema(each) if isinstance(each, dict) and has(each, "input_schema") else each for each in value]


def _schema(tool: Mapping[str, Any]) -> dict[str, Any]:
    others = {key: value for key, value in tool.items() if key not in ("input_schema", "type", "cache_control")}
    return {**others, "parameters": tool["input_schema"]}


def _type(block: Any) -> str | None:
    """The type of a block; None for anything else."""
    found = block.get("type") if isinstance(block, dict) else None
    return found if isinstance(found, str) else None


def _answer(blocks: list[tuple[str, Any]]) -> dict[str, Any]:
    """Content, thoughts and calls of an assistant's blocks."""
    content, calls, thoughts = [], [], []
    for place, block in blocks:
        match _type(block):
            case "tool_use":
                calls.append(_call(block, place))
            case "thinking":
                thoughts.append(text_at(block.get("thinking"), f"{place}.thinking"))
            case "tool_result":
                raise wrong(place, "is a tool_result of the assistant", "write it into a message of role user")
            case _:
                content.append(block)
    made: dict[str, Any] = {"content": content}
    if calls:
        made["tool_calls"] = calls
    if thoughts:
        made["reasoning_content"] = "\n".join(thoughts)
    return made


def _results(role: Any, blocks: list[tuple[str, Any]]) -> Iterator[dict[str, Any]]:
    """A message for each tool_result, and one for the blocks between them."""
    for type_, group in groupby(blocks, key=lambda each: _type(each[1]) if _type(each[1]) in BLOCKS else None):
        if type_ is None:
            yield {"role": role, "content": [block for _, block in group]}
            continue
        for place, block in group:
            if type_ != "tool_result":
                raise wrong(place, f"is a block of type {type_}, which only the assistant has")
            named = {"tool_call_id": block["tool_use_id"]} if has(block, "tool_use_id") else {}
            yield {"role": "tool", "content": block.get("content") or "", **named}


def _call(block: Mapping[str, Any], place: str) -> dict[str, Any]:
    if not isinstance(block.get("input"), dict | None):
        raise wrong(f"{place}.input", f"is {kind_of(block['input'])}; expected an object")
    named = {"id": block["id"]} if has(block, "id") else {}
    return {**named, "type": "function", "function": {"name": block.get("name"), "arguments": block.get("input") or {}}}
