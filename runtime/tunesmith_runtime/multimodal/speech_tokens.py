"""The tokens before and after a transcript, by which Whisper is told what to write (Radford et al., 2022, https://arxiv.org/abs/2212.04356,
figure 1)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure

START, TASK, WITHOUT_TIMES = "<|startoftranscript|>", "<|transcribe|>", "<|notimestamps|>"
LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")
ENGLISH = "en"
ENGLISH_ONLY_SIZE = 51864
"""Tokens of OpenAI's models that write English alone. Their tokenizers have the tokens of all languages."""
UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""Languages that are written without spaces between words."""
SHOWN = 20
"""Languages that a message names."""


@dataclass(frozen=True)
class SpeechTokens:
    """The special tokens of a speech model."""

    start: int
    without_times: int
    task: int | None
    """None for models that write English alone, which have no tokens of languages and tasks in their prompt."""
    languages: Mapping[str, int]
    """Code of ISO 639 -> token; empty for models that write English alone."""
    default: str | None
    """The language that the model's files name; None where they name none."""
    special: frozenset[int]
    """All special tokens, which no transcript has."""

    @classmethod
    def read(cls, folder: Path, added: Mapping[str, int]) -> SpeechTokens:
        """Return the tokens of the model in `folder`, among the `added` tokens of its tokenizer. Raises RunFailure (BadModel)."""
        if missing := [token for token in (START, WITHOUT_TIMES) if token not in added]:
            raise RunFailure(
                FailureClass.BAD_MODEL,
                f"the base model: the tokenizer has no token {missing[0]}",
                "upload the tokenizer's files beside the weights",
            )
        generation = _json(folder / "generation_config.json")
        size = _json(folder / "config.json").get("vocab_size")
        found = {match[1]: token for name, token in added.items() if (match := LANGUAGE.fullmatch(name))}
        languages = found if generation.get("is_multilingual", size != ENGLISH_ONLY_SIZE) else {}
        named = generation.get("language") or _json(folder / "tokenizer_config.json").get("language")
        return cls(
            start=added[START],
            without_times=added[WITHOUT_TIMES],
            task=added.get(TASK) if languages else None,
            languages=languages,
            default=code_of(named, languages) if isinstance(named, str) else None,
            special=frozenset(added.values()),
        )

    def language(self, named: str | None) -> str:
        """Return the code of the language that a row or a request names, or of the model's own. Raises RowError."""
        code = ENGLISH if not self.languages else self.default if named is None else code_of(named, self.languages)
        if named is not None and not self.languages and code_of(named, {ENGLISH: 0}) is None:
            raise RowError(f"names the language {named!r:.80}, and the model writes English alone", LEFT_OUT)
        if code is None:
            known = ", ".join(sorted(self.languages)[:SHOWN]) + ("…" if len(self.languages) > SHOWN else "")
            found = "has no 'language'" if named is None else f"names the language {named!r:.80}"
            raise RowError(
                f"{found}, and the model writes {len(self.languages)} languages: {known}",
                'write its code of ISO 639, such as "language": "fr"',
                "language",
            )
        return code

    def prompt(self, language: str) -> list[int]:
        """Return the tokens before a transcript without times, in a language that `language` has returned."""
        if not self.languages:
            return [self.start, self.without_times]
        task = [] if self.task is None else [self.task]
        return [self.start, self.languages[language], *task, self.without_times]


LEFT_OUT = "remove the language, or name a multilingual model"


def spoken(text: str, language: str) -> str:
    """Return a transcript as the model writes it: with a space before its first word, where the language has spaces."""
    return text.strip() if language in UNSPACED else f" {text.strip()}"


def code_of(named: str, languages: Mapping[str, int]) -> str | None:
    """Return the code of a language from its code, such as fr or fr-CA, its token or its English name; None if it is not known."""
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    name = named.strip().lower().removeprefix("<|").removesuffix("|>")
    codes = (name, re.split(r"[-_]", name)[0], TO_LANGUAGE_CODE.get(name))
    return next((code for code in codes if code in languages), None)


def _json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text()) if path.is_file() else {}
    return content if isinstance(content, dict) else {}
