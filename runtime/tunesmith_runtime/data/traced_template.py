"""Renders a conversation once, and proves which part of the text is that of its first messages alone.

For each answer an encoder needs the text up to it. Most templates write one message after the other and then, if asked for, the
prompt of an answer. For such a template (`Sequential`) the messages are handed out one at a time: what is written before the
template asks for the next one cannot depend on it, and is what the template writes of the messages so far. A conversation of
which the template asks for the number of messages, or for later ones in the meantime, has to be rendered for each answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NoReturn

from jinja2 import nodes

from tunesmith_runtime.data.tokenizer_file import TokenizerFile

if TYPE_CHECKING:
    from jinja2 import Template

GENERATION = "add_generation_prompt"
MESSAGES = "messages"
AHEAD = ("last", "length", "nextitem", "revindex", "revindex0")
"""Attributes of jinja's variable `loop` that depend on what follows."""


@dataclass(frozen=True)
class Traced:
    """The text of a conversation."""

    text: str
    ends: Mapping[int, int]
    """Length of the text of the first messages, by their number."""
    prompt: str
    """What follows messages with the prompt of an answer."""
    end: str
    """What follows messages without it."""

    def render(self, count: int, add_generation_prompt: bool) -> str:
        """The first `count` messages as the template writes them."""
        return self.text[: self.ends[count]] + (self.prompt if add_generation_prompt else self.end)


@dataclass(frozen=True)
class Sequential:
    """A template that ends with a loop over the messages and text that does not depend on them."""

    template: Template
    prompt: str
    """What it writes behind the loop for the prompt of an answer."""
    end: str
    """What it writes behind the loop otherwise."""

    @classmethod
    def of(cls, template: Template, source: str, constants: Mapping[str, Any]) -> Sequential | None:
        """The template if its nodes prove that it is of this kind. `constants` are the variables that no conversation changes."""
        tree = template.environment.parse(source)
        _show_lookahead(tree)
        at = next((at for at, node in enumerate(tree.body) if isinstance(node, nodes.For)), None)
        if at is None:
            return None
        before, loop, after = tree.body[:at], tree.body[at], tree.body[at + 1 :]
        assert isinstance(loop, nodes.For)
        closing = nodes.Template(after, lineno=1)
        read = {name.name for name in closing.find_all(nodes.Name)}
        written = {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"}
        opening = nodes.Template([*before, loop], lineno=1)
        if (
            not _is_of_messages(loop.iter, before)
            or any(not _is_name(each.iter, "tools") for node in before for each in _loops(node))
            or any(name.name == GENERATION for name in opening.find_all(nodes.Name))
            or not read <= constants.keys() | {GENERATION}
            or read & written
            or any(closing.find_all((nodes.Call, nodes.For)))
            or not _loop_is_read_by_attributes(tree)
        ):
            return None
        behind = template.environment.from_string(closing)
        prompt, end = (behind.render({**constants, GENERATION: wanted}) for wanted in (True, False))
        return cls(template.environment.from_string(tree), prompt, end)

    def trace(self, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> Traced | None:
        """Render messages; None if the text of the first ones may depend on later ones, or if the template raises an error."""
        blocks: list[str] = []
        given = _Messages(messages, blocks)
        try:
            for block in self.template.generate({**variables, MESSAGES: given, GENERATION: False}):
                blocks.append(block)  # noqa: PERF402  # `given` reads their number in the meantime
        except Exception:  # noqa: BLE001  # rendered without tracing, the template raises it again
            return None
        behind = given.marks.get(len(messages))
        if given.looked_ahead or behind is None or "".join(blocks[behind:]) != self.end:
            return None
        lengths = list(accumulate(map(len, blocks), initial=0))
        ends = {count: lengths[mark] for count, mark in given.marks.items()}
        return Traced("".join(blocks), ends, self.prompt, self.end)


class TracedTemplate:
    """The chat templates of a tokenizer, rendered once where that is proved to be enough."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._variables = {**getattr(tokenizer, "special_tokens_map", {}), "documents": None}
        self._sequential: dict[str, Sequential | None] = {}

    def trace(self, messages: Sequence[Mapping[str, Any]], tools: Any) -> Traced | None:
        """Render messages; None if they have to be rendered for each answer, or if the template raises an error."""
        try:
            found = self._of(tools)
        except Exception:  # noqa: BLE001  # rendered without tracing, the template raises it again
            return None
        return found.trace(messages, {**self._variables, "tools": tools}) if found else None

    def _of(self, tools: Any) -> Sequential | None:
        """The template for rows with these tools."""
        template, source = _compiled(self._tokenizer, tools)
        if source not in self._sequential:
            self._sequential[source] = Sequential.of(template, source, self._variables) if template else None
        return self._sequential[source]


def _compiled(tokenizer: Any, tools: Any) -> tuple[Template | None, str]:
    """The template that a tokenizer renders, and its text; None if the tokenizer has a way of its own."""
    if isinstance(tokenizer, TokenizerFile):
        return tokenizer.compiled, tokenizer.chat_template or ""
    from transformers import PreTrainedTokenizerBase
    from transformers.utils import chat_template_utils

    if getattr(tokenizer.apply_chat_template, "__func__", None) is not PreTrainedTokenizerBase.apply_chat_template:
        return None, ""
    source = tokenizer.get_chat_template(tools=tools)
    return chat_template_utils._compile_jinja_template(source), source


class _LookedAhead(Exception):
    """The template asks for the number of messages or for a later one."""


class _Messages(Sequence[Any]):
    """Messages that are handed out one at a time, once, with the number of blocks that are written before each."""

    def __init__(self, messages: Sequence[Any], blocks: list[str]) -> None:
        self.marks: dict[int, int] = {}
        """Number of messages handed out -> number of blocks written when the next one was asked for."""
        self.looked_ahead = False
        self._messages, self._blocks = messages, blocks
        self._last = 0

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice) and index.start in (0, 1) and index.stop is None and index.step in (None, 1):
            return _Rest(self, index.start)
        if not isinstance(index, int) or not 0 <= index <= self._last:
            raise self.refused()
        return self._messages[index]

    def __len__(self) -> int:
        raise self.refused()

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        raise self.refused()

    def __iter__(self) -> Iterator[Any]:
        return self.begin(0)

    def begin(self, start: int) -> Iterator[Any]:
        """Hand out the messages from `start`."""
        if self.marks:
            raise self.refused()
        for index in range(start, len(self._messages)):
            self.marks[index] = len(self._blocks)
            self._last = index
            yield self._messages[index]
        self.marks[len(self._messages)] = len(self._blocks)

    @property
    def ahead(self) -> NoReturn:
        """What a template reads in place of the attributes AHEAD."""
        raise self.refused()

    def refused(self) -> _LookedAhead:
        """The error to raise. Some tests of jinja catch it, so it is remembered."""
        self.looked_ahead = True
        return _LookedAhead()


class _Rest(Sequence[Any]):
    """The messages without the first ones."""

    def __init__(self, messages: _Messages, start: int) -> None:
        self._messages, self._start = messages, start

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, int) or index < 0:
            raise self._messages.refused()
        return self._messages[self._start + index]

    def __len__(self) -> int:
        raise self._messages.refused()

    def __str__(self) -> str:
        raise self._messages.refused()

    def __iter__(self) -> Iterator[Any]:
        return self._messages.begin(self._start)


def _show_lookahead(tree: nodes.Template) -> None:
    """Let a template read `messages.ahead` where it reads an attribute AHEAD, as the loop itself fetches the next message then."""
    for each in tree.find_all(nodes.Getattr):
        if _is_name(each.node, "loop") and each.attr in AHEAD:
            each.node, each.attr = nodes.Name(MESSAGES, "load", lineno=each.lineno), "ahead"


def _loop_is_read_by_attributes(tree: nodes.Template) -> bool:
    """Whether the template reads only attributes of the variable `loop`."""
    reads = sum(name.name == "loop" for name in tree.find_all(nodes.Name))
    return reads == sum(_is_name(each.node, "loop") for each in tree.find_all(nodes.Getattr))


def _loops(node: nodes.Node) -> Iterator[nodes.For]:
    if isinstance(node, nodes.For):
        yield node
    yield from node.find_all(nodes.For)


def _is_name(node: nodes.Node | None, name: str) -> bool:
    return isinstance(node, nodes.Name) and node.name == name


def _is_of_messages(node: nodes.Node, before: Sequence[nodes.Node]) -> bool:
    """Whether an expression is a variable with the messages or a slice of them, whatever assignment was carried out."""
    if not isinstance(node, nodes.Name):
        return False
    assigned = [each.node for tree in before for each in _assignments(tree) if _is_name(each.target, node.name)]
    sources = (each.node if isinstance(each, nodes.Getitem) else each for each in assigned)
    return (bool(assigned) or node.name == MESSAGES) and all(_is_name(each, MESSAGES) for each in sources)


def _assignments(node: nodes.Node) -> Iterator[nodes.Assign]:
    if isinstance(node, nodes.Assign):
        yield node
    yield from node.find_all(nodes.Assign)
