"""Reads messages in the form of chat templates: the same rules for training rows, evaluation rows and requests.

The input has the form of OpenAI's chat completions and fine-tuning files. For the form that templates take, see
https://huggingface.co/docs/transformers/chat_extras. Null and an empty list of tool calls mean that the key is absent. A
key that changes what is learned or asked is supported, or refused with RowError; `unknown` lists other keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tunesmith_runtime.data.json_text import parse
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import has, kind_of

Message = dict[str, Any]

ROLES: Mapping[str, str] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
"""Roles of messages, and the role that the template gets."""

_A_CALL = "write role assistant, with tool_calls: [{type: function, function: {name, arguments}}]"

OTHER_ROLES: Mapping[str, str] = {
    "human": "write role user",
    **dict.fromkeys(("gpt", "chatgpt", "model", "bot", "ai"), "write role assistant"),
    **dict.fromkeys(("tool_call", "function_call"), _A_CALL),
    **dict.fromkeys(("function", "ipython"), "write role tool, with the tool_call_id of the call"),
    **dict.fromkeys(("observation", "tool_response", "function_response"), "write role tool"),
}
"""Roles of other formats in lower case, and what to write instead."""

THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""Keys in which templates expect the assistant's thoughts before its answer."""

SCALES = ("loss_scale", "loss_weight", "weight")
"""Keys with the factor of an answer's loss, as named by ms-swift, and by OpenAI for the factors 0 and 1."""
WEIGHTS = (*SCALES, "loss", "train", "loss_mask", "trainable", "training")
"""Keys that decide whether an answer is learned (1 or true, 0 or false), as named by OpenAI, ms-swift, Axolotl and verl."""
MOST_WEIGHT = 100.0
"""The largest factor of an answer's loss."""

KNOWN = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "annotations", *THOUGHTS})
"""Keys that are read of every message. Annotations (OpenAI) are citations, which are not part of the text."""

REFUSED: Mapping[str, str] = {
    "function_call": "write it as tool_calls: [{type: function, function: {name, arguments}}]",
    "refusal": "write the refusal as the content, and remove the key",
    "audio": "remove the key: only text is read",
    "images": "remove the key: only text is read",
    "image": "remove the key: only text is read",
    "image_url": "remove the key: only text is read",
    "video": "remove the key: only text is read",
    "videos": "remove the key: only text is read",
    "audios": "remove the key: only text is read",
    "file": "write the text of the file into the content, and remove the key",
    "files": "write the text of the files into the content, and remove the key",
    "tools": "write tools beside messages, not in a message",
    "functions": "write tools beside messages: [{type: function, function: {name, parameters}}]",
    "documents": "write the documents into the content, and remove the key",
    "prefix": "remove the key: an answer is always begun by the model",
    "partial": "remove the key: an answer is always begun by the model",
    "train_detail": "use weight: 0 or 1 for the whole message",
    "mask": "use weight: 0 or 1",
    "masked": "use weight: 0 or 1",
}
"""Keys of a message that change what is learned or asked and are not supported, with the hint for each."""


def asks(value: Any) -> bool:
    """Whether a refused key has an effect with this value. A number has: the meaning of `mask: 0` is ambiguous."""
    return value is not None and value is not False and value not in ("", [], {})


def wrong(place: str, what: str, hint: str | None = None) -> RowError:
    """The error of a field."""
    return RowError(f"{place} {what}", hint, field=place)


def text_at(value: Any, place: str) -> str:
    """The text at `place` of a row. Raises RowError for another value."""
    if not isinstance(value, str):
        raise wrong(place, f"is {kind_of(value)}; expected a string")
    return value


def conversation(value: Any, place: str) -> list[Message]:
    """The messages at `place` of a row or a request. Raises RowError that names the message and the field."""
    if not isinstance(value, list):
        raise not_a_list(value, place)
    return [message(each, f"{place}[{index}]") for index, each in enumerate(value)]


def not_a_list(value: Any, place: str) -> RowError:
    """The error of a value that is no list of messages."""
    return RowError(f"'{place}' is {kind_of(value)}; expected a list of {{role, content}}", field=place)


def message(value: Any, place: str) -> Message:
    """A message with text content, a role of templates, and the arguments of tool calls as objects.

    Raises RowError that names the field.
    """
    if not isinstance(value, dict):
        raise wrong(place, f"is {kind_of(value)}; expected {{role, content}}")
    for key in REFUSED:
        if asks(value.get(key)):
            raise wrong(f"{place}.{key}", "is not supported", REFUSED[key])
    role = _role(value, place)
    made: Message = {"role": role}
    calls = _calls(value["tool_calls"], f"{place}.tool_calls") if has(value, "tool_calls") else []
    made["content"] = _content(value, place, optional=role == "assistant")
    if calls:
        made["tool_calls"] = calls
    for key in ("name", "tool_call_id", *THOUGHTS):
        if has(value, key):
            made[key] = text_at(value[key], f"{place}.{key}")
    for key, owner in {
        "tool_calls": "assistant",
        "tool_call_id": "tool",
        **dict.fromkeys(THOUGHTS, "assistant"),
    }.items():
        if key in made and role != owner:
            raise wrong(f"{place}.{key}", f"is in a message of role {role}; only role {owner} has it", "remove the key")
    return made


def weight_of(value: Mapping[str, Any], place: str) -> float:
    """The factor of a message's loss if it is an answer: 1 where it has none, 0 where it is context only.

    Raises RowError for a weight out of range, and for a weight other than 0 of a message that is not an answer.
    """
    found = {key: _weight(value[key], key, f"{place}.{key}") for key in WEIGHTS if value.get(key) is not None}
    if len(set(found.values())) > 1:
        raise wrong(place, f"has {' and '.join(found)} that contradict each other", "remove all but one")
    key, weight = next(iter(found.items()), ("", 1.0))
    if key and weight and value.get("role") != "assistant":
        raise wrong(f"{place}.{key}", f"is {weight:g} in a message that is not an answer", "remove the key")
    return weight


def _weight(weight: Any, key: str, place: str) -> float:
    """The weight at a key of a message. Raises RowError."""
    is_number = isinstance(weight, int | float)
    if is_number and (weight in (0, 1) or (key in SCALES and 0 <= weight <= MOST_WEIGHT)):
        return float(weight)
    if is_number and key not in SCALES:
        raise wrong(
            place, f"is {weight!r:.40}; expected 0 (context only) or 1 (learned)", f"rename the key to {SCALES[0]}"
        )
    expected = f"0 (context only), 1 (learned) or another factor of the loss up to {MOST_WEIGHT:g}"
    raise wrong(place, f"is {weight!r:.40}; expected {expected}", f"write a number from 0 to {MOST_WEIGHT:g}")


def tools(value: Any, place: str = "tools") -> list[dict[str, Any]] | None:
    """Function schemas in OpenAI's form, from a list or its JSON text. A schema without the wrapper gets it.

    Raises RowError that names the schema.
    """
    if value in (None, [], ""):
        return None
    listed = _parsed(value, place) if isinstance(value, str) else without_nulls(value)
    if not isinstance(listed, list):
        holds = f" that holds {kind_of(listed)}" if isinstance(value, str) else ""
        raise RowError(f"'{place}' is {kind_of(value)}{holds}; expected a list of function schemas", field=place)
    return [_schema(each, f"{place}[{index}]") for index, each in enumerate(listed)] or None


def unknown(value: Any, place: str, known: frozenset[str]) -> Iterator[str]:
    """Yield the keys in a list of messages that are not read, such as `messages[].id`. A key whose value is null is absent."""
    for each in value if isinstance(value, list) else ():
        if not isinstance(each, dict):
            continue
        yield from _others(each, f"{place}[]", known | REFUSED.keys())
        for part in each.get("content") or () if isinstance(each.get("content"), list) else ():
            yield from _others(part, f"{place}[].content[]", frozenset({"type", "text"}))
        for call in each.get("tool_calls") or () if isinstance(each.get("tool_calls"), list) else ():
            nested = isinstance(call, dict) and has(call, "function")
            bare = frozenset() if nested else frozenset({"name", "arguments"})
            yield from _others(call, f"{place}[].tool_calls[]", frozenset({"id", "type", "function", "index"}) | bare)
            if nested:
                yield from _others(
                    call["function"], f"{place}[].tool_calls[].function", frozenset({"name", "arguments"})
                )


def unwritten(
    messages: Iterable[Mapping[str, Any]], schemas: Iterable[Mapping[str, Any]] | None, text: str
) -> str | None:
    """Describe the first part of the messages that is missing in `text`, the output of a chat template; None if it is complete.

    Templates silently skip content that they do not support: tool calls, tools, names of speakers, a role's content, or all
    content if they expect parts of images and text. Earlier content of the assistant may be a thought that they remove.
    """
    named = [("tools", schema["function"]["name"]) for schema in schemas or ()]
    for each in messages:
        named += [("tool_calls", call["function"]["name"]) for call in each.get("tool_calls", ())]
        if each["role"] != "tool" and "name" in each:  # the tool call has the tool's name
            named.append(("name", each["name"]))
        if each["role"] != "assistant" and (word := longest_word(each)):
            named.append((f"the content of role {each['role']}", word))
    return next((left_out(key, name) for key, name in named if not writes(text, name)), None)


def left_out(key: str, value: str) -> str:
    """Describe a value that the chat template does not write."""
    return f"the model's chat template does not write {key}: {value!r:.80} is not in its text"


def longest_word(message: Mapping[str, Any]) -> str:
    """The longest word of the content without the assistant's thoughts, which templates remove; empty if it has no word.

    A word survives the trimming and indenting of templates; a line may not.
    """
    return max(message["content"].rpartition("</think>")[2].split(), key=len, default="")


def writes(text: str, name: str) -> bool:
    """Whether the text contains the name, unchanged or in JSON."""
    return name in text or any(json.dumps(name, ensure_ascii=ascii)[1:-1] in text for ascii in (True, False))


def _role(value: Mapping[str, Any], place: str) -> str:
    role = value.get("role")
    if isinstance(role, str) and role in ROLES:
        return ROLES[role]
    hint = None
    if role is None and has(value, "from", "value"):
        hint = "write role and content for from and value, or rename messages to conversations (format sharegpt)"
    if isinstance(role, str):
        known = ROLES.get(role.strip().lower())
        hint = f"write role {known}" if known else OTHER_ROLES.get(role.strip().lower())
    shown = "no role" if role is None else f"role {role!r:.80}"
    raise RowError(f"{place} has {shown}; expected one of {', '.join(sorted(ROLES))}", hint, f"{place}.role")


def _content(value: Mapping[str, Any], place: str, optional: bool) -> str:
    content = value.get("content")
    if content is None and optional:
        return ""
    if isinstance(content, list):
        return "".join(_part(part, f"{place}.content[{index}]") for index, part in enumerate(content))
    if not isinstance(content, str):
        what = kind_of(content) if content is not None else "missing"
        hint = "write it as a string of JSON" if isinstance(content, dict) else None
        raise wrong(f"{place}.content", f"is {what}; expected a string", hint)
    return content


def _part(part: Any, place: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise wrong(place, 'is not {"type": "text", "text": …}; only text can be learned or asked')
    return str(part["text"])


def _calls(value: Any, place: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise wrong(place, f"is {kind_of(value)}; expected a list of tool calls")
    return [call(each, f"{place}[{index}]") for index, each in enumerate(value)]


def call(value: Any, place: str) -> dict[str, Any]:
    """A tool call in OpenAI's form, with its arguments as an object. Raises RowError that names the field."""
    if not isinstance(value, dict):
        raise wrong(place, f"is {kind_of(value)}; expected {{type: function, function: {{name, arguments}}}}")
    if value.get("type") not in (None, "function"):
        raise wrong(f"{place}.type", f"is {value['type']!r:.80}; expected function")
    nested = has(value, "function")
    function, within = (value["function"], f"{place}.function") if nested else (value, place)
    if not isinstance(function, dict):
        raise wrong(within, f"is {kind_of(function)}; expected {{name, arguments}}")
    made: dict[str, Any] = {"id": text_at(value["id"], f"{place}.id")} if has(value, "id") else {}
    name, arguments = function.get("name"), _arguments(function.get("arguments"), f"{within}.arguments")
    if not isinstance(name, str) or not name:
        raise wrong(f"{within}.name", f"is {kind_of(name) if name != '' else 'empty'}; expected the function's name")
    return {**made, "type": "function", "function": {"name": name, "arguments": arguments}}


def _arguments(value: Any, place: str) -> dict[str, Any]:
    """Arguments as an object: templates write them with `tojson`, which would quote a string again."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return {}
    found = _parsed(value, place) if isinstance(value, str) else without_nulls(value)
    if not isinstance(found, dict):
        holds = f" that holds {kind_of(found)}" if isinstance(value, str) else ""
        raise wrong(place, f"is {kind_of(value)}{holds}; expected a JSON object, or a string that holds a JSON object")
    return found


def without_nulls(value: Any) -> Any:
    """JSON data without the keys whose value is null: libraries such as datasets add all keys of a column to every row."""
    if isinstance(value, dict):
        return {key: without_nulls(entry) for key, entry in value.items() if entry is not None}
    return [without_nulls(entry) for entry in value] if isinstance(value, list) else value


def _parsed(text: str, place: str) -> Any:
    try:
        return parse(text)
    except RowError as error:
        raise wrong(place, f"is a string that is not JSON: {error}") from error


def _schema(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong(place, f"is {kind_of(value)}; expected {{type: function, function: {{name, parameters}}}}")
    kind = value.get("type") or "function"
    beside = {key: entry for key, entry in value.items() if key not in ("type", "function")}
    function, beside = (value["function"], beside) if has(value, "function") else (beside, {})
    if kind != "function" or not isinstance(function, dict):
        raise wrong(place, "is not a function schema; expected {type: function, function: {name, parameters}}")
    if not isinstance(function.get("name"), str) or not function["name"]:
        raise wrong(f"{place}.function", "has no name; expected {name, description, parameters}")
    if not isinstance(function.get("parameters"), dict | None):
        raise wrong(f"{place}.function.parameters", f"is {kind_of(function['parameters'])}; expected a JSON schema")
    made = {key: entry for key, entry in function.items() if entry is not None}
    return {**beside, "type": "function", "function": made}


def _others(value: Any, place: str, known: frozenset[str] | set[str]) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (f"{place}.{key}" for key, entry in value.items() if key not in known and entry is not None)
