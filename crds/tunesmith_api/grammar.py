"""Grammars of text fields, and the refusals of other texts: the same sentences from the API server and from Python.

An OpenAPI `pattern` is reported as a bare regular expression. A `Grammar` becomes a CEL rule (KEP-2876) instead, whose
`messageExpression` names the fault of the value and, if it can be guessed, the text to write. All patterns are RE2
(https://github.com/google/re2/wiki/Syntax) that `compiled` translates for Python's `re`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
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
"""Context of a pydantic validation of stored objects: tightened grammars accept any text."""

CONTROLS = r"\pC\pZ"
INVISIBLE = CONTROLS + (
    r"\x{34f}\x{115f}\x{1160}\x{17b4}\x{17b5}\x{180b}-\x{180f}\x{2800}\x{3164}\x{fe00}-\x{fe0f}\x{ffa0}\x{e0100}-\x{e01ef}"
)
"""Control characters, separators and invisible characters, for use in brackets of a pattern. The key of an object may
have letters of every script."""


@dataclass(frozen=True)
class Slip:
    """A common mistake."""

    pattern: str
    problem: str
    """The fault; in the refusal it follows the quoted text."""
    advice: str = ""
    """What to do. Default: the advice of the grammar."""


@dataclass(frozen=True)
class Grammar:
    """The texts that a field accepts, and how others are refused."""

    pattern: str
    """Pattern of the whole text."""
    problem: str
    """The fault of a text that does not match, if no slip explains it."""
    advice: str
    """What to do, if the repairs give no accepted text."""
    slips: tuple[Slip, ...] = ()
    """The first slip that matches explains the refusal."""
    refused: str = ""
    """Pattern that no part of the text may match."""
    prefix: tuple[str, str] = ("", "")
    """(pattern, text): a value that matches gets the text as a prefix, before the repairs."""
    repairs: tuple[tuple[str, str], ...] = ()
    """(part, replacement), applied in this order to guess the intended text."""
    lower: bool = False
    """Whether the guess is converted to lower case."""
    secret: str = ""
    """Pattern of texts that may hold a password: they are not quoted."""
    number: bool = False
    """Whether the field also accepts an integer."""
    tightened: bool = False
    """Whether an earlier release accepted more."""
    terse: bool = False
    """Whether the API server's message does not quote the value, which keeps the CRD small."""

    def admits(self, text: str) -> bool:
        """Return whether a field accepts `text`."""
        return found(self.pattern, text) and not (self.refused and found(self.refused, text))

    def sentence(self, text: str) -> str:
        """Return why `text` is refused, and what to write."""
        slip = next((slip for slip in self.slips if found(slip.pattern, text)), Slip("", self.problem))
        guess = self._guess(text)
        hidden = self.secret and found(self.secret, text)
        seen = None if self.number else compiled(self._quoted).match(text)
        shown = "the value" if hidden else f'"{seen[0] if seen else text}"'
        return f"{shown} {slip.problem}: {f'write {guess}' if self.admits(guess) else slip.advice or self.advice}"

    def check(self, value: Any, info: ValidationInfo) -> Any:
        """Return `value` if it is accepted. Raises PydanticCustomError with the refusal."""
        lenient = self.tightened and info.context is ADMITTED
        if isinstance(value, str) and not lenient and not self.admits(value):
            raise PydanticCustomError("grammar", "{sentence}", {"sentence": self.sentence(value)})
        return value

    def rule(self) -> dict[str, str]:
        """Return the entry of `x-kubernetes-validations`."""
        holds = self._admits_in_cel("self")
        rule = {"rule": f"type(self) == int || {holds}" if self.number else holds}
        # The API server falls back to the message where the sentence has a line break or more than 5 KiB.
        if self.terse or self.number or self.secret:
            rule["message"] = f"the value {self.problem}: {self.advice}"
        return rule if self.terse else {**rule, "messageExpression": self._sentence_in_cel()}

    @property
    def _quoted(self) -> str:
        """Pattern of the part of a text that a refusal quotes: up to the first control character, separator, or invisible letter
        where the grammar refuses those."""
        return f"^( |[^{INVISIBLE if INVISIBLE in self.refused else CONTROLS}])*"

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
        """CEL of `sentence`: g is the guess, and t what is wrong with what to do, cut after the fault if g is accepted."""
        # CEL estimates the cost of an int-or-string by the size of a request, so each further function is expensive.
        text = "self" if self.number else f"self.find({cel(self._quoted)})"
        admitted, guess = self._admits_in_cel("g"), self._guess_in_cel()
        if not self.slips:
            fault = cel(f'" {self.problem}: ')
            return f"[{guess}].map(g, '\"' + {text} + {fault} + ({admitted} ? 'write ' + g : {cel(self.advice)}))[0]"
        shown = f"'\"' + {text} + '\"'"
        if self.secret:
            shown = f"(self.matches({cel(self.secret)}) ? 'the value' : {shown})"
        faults = "".join(f"self.matches({cel(slip.pattern)}) ? {self._fault_in_cel(slip)} : " for slip in self.slips)
        faults += self._fault_in_cel(Slip("", self.problem))
        # CEL does not know the size of what comes out of a list of literals, but that of a variable of map.
        return (
            f"[{guess}].map(g, [{faults}].map(t, {shown} + ({admitted} ? t.find('^.*?: ') + 'write ' + g : t))[0])[0]"
        )

    def _fault_in_cel(self, slip: Slip) -> str:
        return cel(f" {slip.problem}: {slip.advice or self.advice}")

    def _guess_in_cel(self) -> str:
        text = (
            f"((self.matches({cel(self.prefix[0])}) ? {cel(self.prefix[1])} : '') + self)" if self.prefix[1] else "self"
        )
        text += ".trim().lowerAscii()" if self.lower else ".trim()"
        return text + "".join(f".replace({cel(old)}, {cel(new)})" for old, new in self.repairs)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "x-kubernetes-validations": [self.rule()]}


def found(pattern: str, text: str) -> bool:
    """Return whether `pattern` (RE2) matches somewhere in `text`."""
    return compiled(pattern).search(text) is not None


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """Compile an RE2 pattern with `re`, which has other names for characters, and whose $ also matches before a final line feed."""
    for name, ranges in CLASSES.items():
        pattern = pattern.replace(name, ranges)
    pattern = re.sub(r"\\x\{([0-9a-f]+)\}", lambda code: chr(int(code[1], 16)), pattern)
    return re.compile(re.sub(r"(?<!\\)\$", r"\\Z", pattern), re.ASCII)


def cel(text: str) -> str:
    """Return `text` as a string literal of CEL, in ASCII: a raw one if it has backslashes."""
    quote = '"' if "'" in text else "'"
    if "\\" in text and quote not in text and text.isascii() and text.isprintable():
        return f"r{quote}{text}{quote}"
    return quote + "".join(_escaped(character, quote) for character in text) + quote


def cel_literal(value: str | bool | Sequence[str | bool]) -> str:
    """Return a value, or a list of values, as a literal of CEL."""
    if isinstance(value, str):
        return cel(value)
    return str(value).lower() if isinstance(value, bool) else f"[{', '.join(map(cel_literal, value))}]"


def _escaped(character: str, quote: str) -> str:
    if character in ("\\", quote):
        return f"\\{character}"
    if " " <= character <= "~":
        return character
    return f"\\u{ord(character):04x}" if character <= "\uffff" else f"\\U{ord(character):08x}"
