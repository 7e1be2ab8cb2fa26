r"""Read which choice an answer to a multiple-choice question names. Pure functions.

A choice is named by a whole line (`B`, `(b)`, `B) a fruit`, `a fruit`), or after words that announce an answer (`ANSWER: B`,
`The answer is B.`, `答案是B`, `\boxed{B}`), or by words that call it correct (`Option B is correct`). The last announced answer
counts. A letter within prose names nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tunesmith_runtime.answers.matching import bare, normalized

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

BOXED = re.compile(
    r"""\\(?:boxed|fbox)\s*\{([^{}]*)\}
      | <(answer|final_answer|choice)>(.*?)(?:</\2>|$)
      | ["'](?:final_?|correct_?|selected_?|chosen_?)?(?:answer|choice|option)["']\s*:\s*(?:"([^"\n]*)"|'([^'\n]*)'|(-?[\d.]+))\s*(?=[,}\]]|$)""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
"""An answer set apart: in a LaTeX box, in a tag, or in a JSON field."""
TYPESET = re.compile(r"\\(?:text|textbf|mathbf|mathrm)\s*\{([^{}]*)\}")
CONTROL_TOKEN = re.compile(r"<\|[^|<>]{1,40}\|>|</?s>|<(?:eos|end_of_turn)>")
MARKUP = re.compile(r"\*\*|__|[`$✅✔☑👉🎯\ufe0f]|\\[()\[\]]|</?(?:b|strong|i|em|p|span)>|<br\s*/?>", re.IGNORECASE)
BULLET = re.compile(r"^\s*[-•>*#]+\s+")
ARTICLE = re.compile(r"^(?:an?|the) ")

ANNOUNCEMENT = re.compile(
    r"""
      \b(?:answer|ans\.?|(?:correct|right)\s+(?:choice|option|letter|statement|one)|(?:my|final|best)\s+(?:choice|option|guess))(?!\w)["']?
        (?:\s+here|\s+to\s+(?:the|this|your)\s+(?:[\w-]+\s+){0,3}?question)?
        (?:\s+(?:is|was|would\s+be|must\s+be|should\s+be)\b\s*:?|\s*(?:[:=→]|->)|\s+[-\u2013—])
    | \b(?:I|we)(?:'d|\s+would|\s+will|'ll)?\s+(?:choose|pick|select|go\s+with)\b
    | \b(?:(?:I\s+am|I'm)\s+going|let's\s+go)\s+with\b
    | \bans\.(?=\s+[(\[]?[A-Z])
    | (?:[【\[](?:正确)?答案[】\]]|答案|答(?=\s*:)|正确选项|正确的选项|正确的(?:说法|描述|表述|叙述|一项)?(?=\s*[是为:])|符合题意的(?=[是为:]))\s*(?:应该是|应该为|应为|应是|就是|选择|是|为|选)?\s*[:=]?
    | (?:选择|选)(?![项题手出中取定])\s*:?
    """,
    re.IGNORECASE | re.VERBOSE,
)
DENIAL = re.compile(
    r"(?:\b(?:not|never|cannot|if|whether|unless|suppose|doubt|wrong|incorrect|false)\b|n't|不|不[能会应可要]|不应该|不可以|别|勿|非|如果|假如|若|错误)"
    r"(?:\s*(?:(?:the|an?|that|would|be|think|believe|say|true|correct|final|right|best|only)\b|认为|觉得|说|能|是))*\s*$",
    re.IGNORECASE,
)
"""Words before an announcement in the same line that negate it."""

FILLER = re.compile(
    r"(?:\b(?:so|thus|therefore|hence|yes|ok|okay|sure|certainly|clearly|definitely|probably|likely|most|the|my|final|correct|right"
    r"|in\s+conclusion|conclusion|solution|response|output|result|selected|chosen|assistant)\b"
    r"|因此|所以|故|结论|结果|回答|[,:!.\s])*",
    re.IGNORECASE,
)
LEAD = re.compile(
    rf"{FILLER.pattern}(?:I(?:'d|\s+would)?\s+(?:think|guess|say|believe)\s+)?(?:that\s+(?!is\b|would\b|must\b|should\b))?"
    r"(?:(?:(?:it|that|this)(?:'s|\s+(?:is|(?:would|must|should)\s+be))|answer|choice|choose|pick|select"
    r"|我(?:认为|觉得)是?|(?:应该|那就|当然|显然)?是)\s*:?\s*)?"
    rf"{FILLER.pattern}",
    re.IGNORECASE,
)
"""Words before an answer in its line that do not change its meaning."""
LABEL = re.compile(
    r"(?:(?:option|choice|letter|选项)\s*[:为是]?\s*)?[(\[{<\"']*(?<![A-Za-z\d])([A-Za-z])(?![A-Za-z\d])[)\]}>\"']*",
    re.IGNORECASE,
)
TRAIL = re.compile(
    r"(?:\s*(?:选项|项))?"
    r"(?:\s*(?:是|为)?\s*(?:正确|对)(?:的|答案|选项)*"
    r"|\s+(?:is|would\s+be)\s+(?:the\s+|my\s+)?(?:correct|right|best|final)?\s*(?:answer|choice|option)?"
    r"|\s*,\s*(?:I\s+(?:think|believe|guess)|of\s+course|definitely|obviously|probably))?[\s.!,;:。]*$",
    re.IGNORECASE,
)
"""Words after a letter in its line that do not change its meaning."""
MORE = re.compile(
    r"\s*(?:[,/&;、]|\band\b|\bor\b|和|或者|或|还是|与|及|\s)+\s*[(\[]?(?:[AI](?!\s+[a-z])|[B-HJ-Zb-hj-z])(?![A-Za-z\d'])"
)
"""A further letter in a list of letters. Before a word, `A` is an article and `I` a pronoun."""
STOP = re.compile(
    r"\s*[.!;。,、(—\n]|\s[-\u2013]\s|\s*\b(?:because|since|as|for|which|not|over|rather\s+than)\b|\s*(?:因为|由于|而不是)",
    re.IGNORECASE,
)
"""The end of an announced answer, where an explanation begins."""
EXPLAINED = re.compile(
    r"\s*(?:[(\[]([A-Z])[)\]]|([A-Z])[).:]|([A-Z]),?(?=\s+(?:because|since)\b|因为|由于))[\s:.]*(?!(?:is|are|was|were|isn't|can|can't|does|no|not|wrong|incorrect)\b|不|错)\S"
)
"""A letter, set off by a mark, followed by an explanation."""
VERDICT = re.compile(
    r"""(?:\b(?i:option|choice|statement)\s+|选项)?\s{0,3}[("']?(?<![A-Za-z\d])([A-Z])(?![A-Za-z\d])[)"']?\s*(?:选项|项)?\s*
        (?:is\s+(?:(?:indeed|clearly|therefore|thus|the|most|best)\s+)*(?:(?:correct|right|best)\s+(?:answer|choice|option)|correct)\b
          (?!,?\s+(?:only|if|when|or|and|but|that|in|about|to)\b)
        | (?:是|为)?正确的?(?![答吗么\w])
        | 符合题意)
        (?![^.!;。\n]{0,200}\?)""",
    re.VERBOSE,
)
"""A statement within a text that a choice is correct."""
LISTED = re.compile(
    r"(?:[A-Z][)\]]?\s*(?:[,/&、和与及或]|\band\b|\bor\b)|\b(?:neither|nor)\b)\s*(?:option\s+|选项)?$", re.IGNORECASE
)
"""Words before a choice that make it a member of a list."""
MENTION = re.compile(r"(?<![A-Za-z\d])([A-Z])(?![A-Za-z\d'])(?!\s+[a-z])")
RETRACTION = re.compile(
    r"\bno[,.!]|\b(?:no\s+wait|wait|sorry|correction|scratch\s+that)\b|不对|等等|更正", re.IGNORECASE
)

QUESTION = re.compile(r"[^.!;。\n]*\?")

NEAR = 80
"""Number of characters before an announcement that are searched for a denial."""

LAST = 100
"""Number of announcements that are read, from the end of the text."""

SEVERAL = "several"


def read_choice(text: str, choices: Sequence[str], cut_off: bool = False) -> str | None:
    """Return the letter of the choice that `text` names; None if it names no choice or several.

    Of a text that was cut off, only the first line is read, and only if it is complete. The rest may be a thought, and the
    last word may be half of another word.
    """
    reader = _Reader(choices)
    if cut_off:
        first, newline, _ = text.strip().partition("\n")
        found = reader.line(_plain(first)) if newline else None
    else:
        found = reader.whole(text) or reader.answer(_plain(text))
    return None if found == SEVERAL else found


def read_letter(text: str) -> str | None:
    """Return the letter of the choice that `text` names, where the texts of the choices are not known; None as of `read_choice`."""
    return read_choice(text, [""] * len(LETTERS))


def _plain(text: str) -> str:
    """Return `text` in NFKC without markup, control tokens and invisible characters; boxed answers become announcements."""
    text = unicodedata.normalize("NFKC", text)
    text = "".join(character for character in text if unicodedata.category(character) != "Cf")
    text = TYPESET.sub(r"\1", CONTROL_TOKEN.sub(" ", text))
    text = BOXED.sub(_announcement, text)
    return MARKUP.sub("", text)


def _announcement(boxed: re.Match[str]) -> str:
    """Return a match of BOXED as an announced answer on a separate line."""
    _, tag, *_ = groups = boxed.groups("")
    return f"answer: {''.join(groups).removeprefix(tag).strip()}\n"


def _unarticled(text: str) -> str:
    return ARTICLE.sub("", normalized(_plain(text)))


FORMS: Sequence[Callable[[str], str]] = (str.strip, normalized, lambda text: normalized(_plain(text)), _unarticled)
"""Forms in which an answer is compared with the choices' texts, the most exact form first."""


@dataclass(frozen=True)
class _Reader:
    """Reads which choice of a question some words name. Its methods return a letter, SEVERAL, or None."""

    choices: Sequence[str]

    @property
    def labels(self) -> Sequence[str]:
        """The letters of the choices."""
        return LETTERS[: len(self.choices)]

    @cached_property
    def longest(self) -> int:
        """Length above which a text cannot be a choice's; it bounds the time for models that repeat themselves."""
        return 4 * max(map(len, self.choices)) + 2 * NEAR

    @cached_property
    def _letters(self) -> list[Mapping[str, str]]:
        """For each form: text -> letter, without texts that several choices share."""
        forms = [[form(choice) for choice in self.choices] for form in FORMS]
        return [
            {text: letter for text, letter in zip(texts, LETTERS, strict=False) if Counter(texts)[text] == 1}
            for texts in forms
        ]

    def text(self, words: str) -> str | None:
        """Return the choice with this text."""
        if not words.strip() or len(words) > self.longest:
            return None
        found = (letters.get(form(words)) for form, letters in zip(FORMS, self._letters, strict=True))
        return next(filter(None, found), None)

    def label(self, words: str) -> tuple[str | None, str]:
        """Return the letter of a choice at the beginning, and the text after it."""
        match = LABEL.match(words)
        letter = match[1].upper() if match else None
        return (letter, words[match.end() :]) if match and letter in self.labels else (None, "")

    def whole(self, words: str) -> str | None:
        """Return the choice that `words` as a whole name: by letter, by text, or by a letter with its text."""
        for part in (bare(words.strip()), bare(LEAD.sub("", words, count=1).strip())):
            letter, rest = self.label(part)
            if letter and TRAIL.match(rest):
                return letter
            if found := self.text(part):
                return found
            if letter and (named := self.text(rest.lstrip(" \t).,:;=>→-\u2013—、"))):
                return letter if named == letter else SEVERAL
            if letter and MORE.match(rest):
                return SEVERAL
        return None

    def line(self, words: str) -> str | None:
        """Return the choice that a line as a whole names, with or without an announcement."""
        words = BULLET.sub("", words)
        announcement = ANNOUNCEMENT.search(words)
        if announcement and FILLER.fullmatch(words, 0, announcement.start()):
            words = words[announcement.end() :]
            return None if QUESTION.match(words) else self.whole(words)
        return self.whole(words)

    def announced(self, words: str) -> str | None:
        """Return the choice that the words after an announcement name. An explanation may follow."""
        if QUESTION.match(words):
            return None
        if found := self.whole(words):
            return found
        letter, rest = self.label(LEAD.sub("", words, count=1))
        if letter and STOP.match(rest):
            return letter
        stop = STOP.search(words)
        return self.text(words[: stop.start()]) if stop else None

    def answer(self, text: str) -> str | None:
        """Return the choice that a plain text names: in its last announcement, else in its lines, else in its first word."""
        for announcement in reversed(deque(ANNOUNCEMENT.finditer(text), LAST)):
            begin, end = announcement.span()
            before = text[max(0, begin - NEAR) : begin].rpartition("\n")[2]
            words = text[end : end + self.longest].strip().partition("\n")[0]
            if not DENIAL.search(before) and (named := self.announced(words)):
                return SEVERAL if RETRACTION.search(text, end) and self._others(named, text[end:]) else named
        lines = {named for line in text.splitlines() if (named := self.line(line))}
        called = self._called_correct(text)
        found = called if len(lines) > 1 and called else lines | called
        if found:
            return next(iter(found)) if len(found) == 1 else SEVERAL
        explained = EXPLAINED.match(text)
        letter = next(filter(None, explained.groups())) if explained else None
        return letter if letter and letter in self.labels and not self._others(letter, text) else None

    def _called_correct(self, text: str) -> set[str]:
        """Return the letters that `text` calls correct; SEVERAL for letters in a list."""
        called = set()
        for match in deque(VERDICT.finditer(text), LAST):
            before = text[max(0, match.start() - NEAR) : match.start()].rpartition("\n")[2]
            if match[1] in self.labels and not DENIAL.search(before):
                called.add(SEVERAL if LISTED.search(before) else match[1])
        return called

    def _others(self, letter: str, text: str) -> bool:
        """Whether `text` mentions another choice's letter."""
        return any(other in self.labels and other != letter for other in MENTION.findall(text))
