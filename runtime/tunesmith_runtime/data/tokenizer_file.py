"""The tokenizer of tokenizer.json with its chat template, without transformers: to count tokens before torch is loaded.

It has the functions of a transformers tokenizer that encoders call. A training never uses it: where the two differ, for example
in a template with functions of a newer transformers, the count is left to the training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template
    from tokenizers import Tokenizer

TOKENIZER, CONFIG, TEMPLATE, GENERATION = (
    "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json",
)  # fmt: skip
FILES = (TOKENIZER, CONFIG, TEMPLATE, GENERATION, "special_tokens_map.json")
"""Files of a model's folder that it reads."""


class TokenizerFile:
    """The tokenizer in a folder. Raises ValueError if the folder has no tokenizer.json that can be read."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        if not (folder / TOKENIZER).is_file():
            raise ValueError(f"{folder / TOKENIZER} is missing")
        try:
            self._tokenizer: Tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        except Exception as error:  # the Rust library raises plain exceptions
            raise ValueError(f"{folder / TOKENIZER}: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._config = {**_json(folder / "special_tokens_map.json"), **_json(folder / CONFIG)}
        self._generation = _json(folder / GENERATION)
        path = folder / TEMPLATE
        self.chat_template: str | None = path.read_text() if path.is_file() else template_of(self._config)

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """The tokenizer of the package tokenizers."""
        return self._tokenizer

    def __call__(
        self, text: str, text_pair: str | None = None, add_special_tokens: bool = True, **_: Any
    ) -> dict[str, list[int]]:
        """Return {"input_ids": tokens of `text`, or of both texts as a pair}."""
        return {"input_ids": self._tokenizer.encode(text, text_pair, add_special_tokens=add_special_tokens).ids}

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text: of the tokenizer, else of generation_config.json."""
        own = self._id("eos_token")
        return own if own is not None else next(iter(self.configured_ends), None)

    @property
    def bos_token_id(self) -> int | None:
        """The token that begins a text."""
        return self._id("bos_token")

    @property
    def configured_ends(self) -> list[int]:
        """The EOS tokens of generation_config.json."""
        ends = self._generation.get("eos_token_id")
        return ends if isinstance(ends, list) else [] if ends is None else [ends]

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of the special tokens."""
        added = self._tokenizer.get_added_tokens_decoder()
        return [token for token, content in added.items() if content.special]

    def get_added_vocab(self) -> dict[str, int]:
        """Return the added tokens with their ids."""
        return {content.content: token for token, content in self._tokenizer.get_added_tokens_decoder().items()}

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Return the text of tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def convert_ids_to_tokens(self, token: int) -> str | None:
        """Return the token with an id."""
        return self._tokenizer.id_to_token(token)

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Any = None,
        tokenize: bool = False,
        add_generation_prompt: bool = False,
    ) -> str:
        """Return the messages as the chat template writes them."""
        return self.compiled.render(
            messages=messages,
            tools=tools,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **self.special_tokens_map,
        )

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The special tokens that a template can name."""
        names = {f"{name}_token": self._text(f"{name}_token") for name in ("bos", "eos", "unk", "pad")}
        return {name: text for name, text in names.items() if text is not None}

    @cached_property
    def compiled(self) -> Template:
        """The chat template."""
        return compile_template(self.chat_template or "")

    def _text(self, name: str) -> str | None:
        """The text of a special token of tokenizer_config.json."""
        token = self._config.get(name)
        text = token.get("content") if isinstance(token, dict) else token
        return text if isinstance(text, str) else None

    def _id(self, name: str) -> int | None:
        text = self._text(name)
        return None if text is None else self._tokenizer.token_to_id(text)


def compile_template(text: str) -> Template:
    """Compile a chat template as transformers does (transformers.utils.chat_template_utils)."""
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """Ignores the marks {% generation %} around answers."""

        tags = {"generation"}  # noqa: RUF012  # jinja's own form

        def parse(self, parser: Any) -> Any:
            """Return the content of the block."""
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> None:
        raise jinja2.exceptions.TemplateError(message)

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(text)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def template_of(config: Mapping[str, Any]) -> str | None:
    """The chat template in tokenizer_config.json: a text, or the one named default of several."""
    template = config.get("chat_template")
    if isinstance(template, list):
        template = next((each.get("template") for each in template if each.get("name") == "default"), None)
    return template if isinstance(template, str) else None
