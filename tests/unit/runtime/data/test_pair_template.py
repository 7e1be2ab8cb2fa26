"""Two texts are joined as a call of the tokenizer joins them, whatever it puts around them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tunesmith_api.failures import FailureClass
from tunesmith_api.method_facts import Method
from tunesmith_api.training import Training
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.encode import Encoder
from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.data.pair_template import pair_template
from tunesmith_runtime.data.records import Contrast
from tunesmith_runtime.data.tokenizer_file import TokenizerFile
from tunesmith_runtime.errors import RunFailure

TEMPLATES = {
    "none": None,
    "begin": ("<|im_start|> $A", "<|im_start|> $A $B"),
    "of Llama": ("<|im_start|> $A", "<|im_start|> $A <|im_start|>:1 $B:1"),
    "of BERT": ("<|im_start|> $A <|im_end|>", "<|im_start|> $A <|im_end|> $B:1 <|im_end|>:1"),
    "end alone": ("$A <|im_end|>", "$A <|im_end|> <|im_end|> $B:1 <|im_end|>:1"),
}
"""Post-processors of tokenizers: the template of a text, and of a pair."""
RECORD = Contrast("What is a kiwi?", ("A fruit.", "It grows."), ("What is a kiwi?",))


def tokenizer(name: str) -> Any:
    """Return the tokenizer of the tiny model with a template."""
    from tokenizers.processors import TemplateProcessing

    made = tinymodel.make_tokenizer()
    if template := TEMPLATES[name]:
        tokens = [(token, made.convert_tokens_to_ids(token)) for token in ("<|im_start|>", "<|im_end|>")]
        made.backend_tokenizer.post_processor = TemplateProcessing(
            single=template[0], pair=template[1], special_tokens=tokens
        )
    return made


def saved(made: Any, folder: Path) -> TokenizerFile:
    made.save_pretrained(folder)
    return TokenizerFile(folder)


@pytest.mark.parametrize("reads", [lambda made, _: made, saved], ids=["transformers", "file"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_query_is_encoded_with_its_passages_as_it_is_served(
    name: str, reads: Callable[[Any, Path], Any], tmp_path: Path
) -> None:
    made = tokenizer(name)
    examples = Encoder.of(reads(made, tmp_path), frozenset(), Training(), method=Method.RERANK).encode(RECORD)
    assert not isinstance(examples, DropReason)
    passages = [*RECORD.positives, *RECORD.negatives]
    assert [each.input_ids for each in examples] == [made(RECORD.anchor, text)["input_ids"] for text in passages]
    learned = [[label for label in each.labels if label != IGNORED] for each in examples]
    assert learned == [made(text, add_special_tokens=False)["input_ids"] for text in passages]
    assert [each.columns for each in examples] == ["first", "positive", "negative"]


def test_a_tokenizer_that_changes_texts_when_it_joins_them_is_refused() -> None:
    class Merging:
        def __call__(self, text: str, pair: str | None = None, add_special_tokens: bool = True) -> dict[str, list[int]]:
            return {"input_ids": [len(text + pair)] if pair else [len(text)]}

    with pytest.raises(RunFailure) as found:
        pair_template(Merging())
    assert found.value.failure is FailureClass.BAD_MODEL
    assert "does not join 'query' and 'a passage'" in found.value.message
