"""What a text must look like, and the sentence that says so: the same words from the API server and from our programs.

An OpenAPI `pattern` is reported as a bare regular expression. A `Grammar` becomes a CEL rule (KEP-2876) instead, whose
`messageExpression` names what is wrong with the value and, where that can be known, what to write. All patterns are RE2
(https://github.com/google/re2/wiki/Syntax) that Python's `re` reads in the same way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

CONTROL = (
    "\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064"
    "\u2066-\u206f\ud800-\uf8ff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f\U000f0000-\U000ffffd\U00100000-\U0010fffd"
)
SPACES = " \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
CLASSES = {r"\pC": CONTROL, r"\pZ": SPACES}
"""The classes of RE2 that `re` lacks, as ranges: Unicode's categories C (control, format, private use) and Z (separators)."""

ADMITTED: dict[str, Any] = {}
"""Context of a validation (pydantic) of what the API server holds: grammars that were tightened let it pass."""

INVISIBLE = "\\pC\\pZ\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef"
"""Characters, as in brackets of a pattern, that control, separate, or are shown as nothing. Letters of every script may
be in the key of an object."""

SHOWN = f"^( |[^{INVISIBLE}])*"
"""What a sentence repeats of a text: it ends before the first character that is not seen as what it is."""


@dataclass(frozen=True)
class Slip:
    """A mistake that is often made."""

    pattern: str
    problem: str
    """What is wrong: the sentence begins with the text."""
    advice: str = ""
    """What to do; by default what the grammar says."""


@dataclass(frozen=True)
class Grammar:
    """The texts that a field admits."""

    pattern: str
    """What the whole text must match."""
    problem: str
    """What is wrong with a text that does not match, if no slip says it better."""
    advice: str
    """What to do, if the repairs lead to nothing that is admitted."""
    slips: tuple[Slip, ...] = ()
    """The first that matches explains the refusal."""
    refused: str = ""
    """What no part of the text may match, where the pattern alone would admit it."""
    prefix: tuple[str, str] = ("", "")
    """(pattern, text): what matches gets the text in front, before all repairs."""
    repairs: tuple[tuple[str, str], ...] = ()
    """(part, other part): what is replaced, in this order, to guess what was meant."""
    lower: bool = False
    """Whether the guess has lower-case letters only."""
    secret: str = ""
    """A text that matches may hold a password: it is not repeated."""
    number: bool = False
    """Whether the field may hold an integer as well."""
    tightened: bool = False
    """Whether an older release has admitted more."""

    def admits(self, text: str) -> bool:
        """Whether a field may hold `text`."""
        return found(self.pattern, text) and not (self.refused and found(self.refused, text))

    def sentence(self, text: str) -> str:
        """Why `text` is refused, and what to write."""
        slip = next((slip for slip in self.slips if found(slip.pattern, text)), Slip("", self.problem))
        guess = self._guess(text)
        hidden = self.secret and found(self.secret, text)
        seen = None if self.number else re.match(_python(SHOWN), text)
        shown = "the value" if hidden else f'"{seen[0] if seen else text}"'
        return f"{shown} {slip.problem}: {f'write {guess}' if self.admits(guess) else slip.advice or self.advice}"

    def check(self, value: Any, info: ValidationInfo) -> Any:
        """`value`, if it is admitted; else the sentence as pydantic's error."""
        lenient = self.tightened and info.context is ADMITTED
        if isinstance(value, str) and not lenient and not self.admits(value):
            raise PydanticCustomError("grammar", "{sentence}", {"sentence": self.sentence(value)})
        return value

    def rule(self) -> dict[str, str]:
        """The entry of `x-kubernetes-validations`."""
        holds = self._admits_in_cel("self")
        return {
            "rule": f"type(self) == int || {holds}" if self.number else holds,
            "message": f"the value {self.problem}: {self.advice}",
            "messageExpression": self._sentence_in_cel(),
        }

    def _guess(self, text: str) -> str:
        text = f"{self.prefix[1]}{text}" if found(self.prefix[0], text) else text
        text = text.strip()
        text = text.lower() if self.lower else text
        for old, new in self.repairs:
            text = text.replace(old, new)
        return text

    def _admits_in_cel(self, name: str) -> str:
        refused = f" && !{name}.matches({cel(self.refused)})" if self.refused else ""
        return f"{name}.matches({cel(self.pattern)}){refused}"

    def _sentence_in_cel(self) -> str:
        """The same as `sentence`: g is the guess, w what to write, empty where the guess is not admitted."""
        # The length of an int-or-string counts as that of a whole request: each function more is dear.
        shown = "'\"' + self + '\"'" if self.number else f"'\"' + self.find({cel(SHOWN)}) + '\"'"
        if self.secret:
            shown = f"(self.matches({cel(self.secret)}) ? {cel('the value')} : {shown})"
        text = _in_cel(self.problem, self.advice)
        for slip in reversed(self.slips):
            text = f"self.matches({cel(slip.pattern)}) ? {_in_cel(slip.problem, slip.advice or self.advice)} : {text}"
        write = f'[{self._guess_in_cel()}].map(g, {self._admits_in_cel("g")} ? "write " + g : "")[0]'
        return f"[{write}].map(w, {shown} + ({text}))[0]"

    def _guess_in_cel(self) -> str:
        text = (
            f'((self.matches({cel(self.prefix[0])}) ? {cel(self.prefix[1])} : "") + self)' if self.prefix[1] else "self"
        )
        text += ".trim().lowerAscii()" if self.lower else ".trim()"
        return text + "".join(f".replace({cel(old)}, {cel(new)})" for old, new in self.repairs)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "x-kubernetes-validations": [self.rule()]}


def found(pattern: str, text: str) -> bool:
    """Whether `pattern` matches somewhere in `text`, as RE2 understands it."""
    return re.search(_python(pattern), text) is not None


@cache
def _python(pattern: str) -> str:
    """`pattern` as `re` understands it, where $ would match before a last line feed as well."""
    for name, ranges in CLASSES.items():
        pattern = pattern.replace(name, ranges)
    return re.sub(r"(?<!\\)\$", r"\\Z", pattern)


def _in_cel(problem: str, advice: str) -> str:
    return f'{cel(f" {problem}: ")} + (w == "" ? {cel(advice)} : w)'


def cel(text: str) -> str:
    """`text` as a string literal of CEL, in ASCII."""
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in '\\"':
        return f"\\{character}"
    if " " <= character <= "~":
        return character
    return f"\\u{ord(character):04x}" if character <= "\uffff" else f"\\U{ord(character):08x}"
