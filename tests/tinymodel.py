"""A trainable model of a few hundred thousand parameters, its tokenizer, and a task, generated in seconds.

    python -m tests.tinymodel FOLDER        # FOLDER/model, FOLDER/train.jsonl, FOLDER/test.jsonl

The task: "What is a kiwi? (17)" → "fruit". The number differs between training and test rows, so that a test prompt is
never seen in training, and what is asked for can be learned. The untrained model answers none of it.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

CATEGORIES = {
    "fruit": ("kiwi", "apple", "plum", "pear"),
    "animal": ("otter", "horse", "heron", "mole"),
    "tool": ("hammer", "saw", "chisel", "rasp"),
    "metal": ("iron", "copper", "tin", "zinc"),
}
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """`count` rows of messages; those of different seeds share no prompt."""
    choose = random.Random(seed)
    words = [(word, category) for category, members in CATEGORIES.items() for word in members]
    picked = [words[index % len(words)] for index in range(count)]
    choose.shuffle(picked)
    return [_row(word, f"{seed}{choose.randrange(100):02}", category) for word, category in picked]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """`rows` as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 512 tokens, trained on the task's text, with ChatML as its template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        min_frequency=1,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = [message["content"] for row in rows(400) for message in row["messages"]]
    tokenizer.train_from_iterator([*text, "system\n", "user\n", "assistant\n"], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=512
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_model(folder: Path, seed: int = 0) -> Path:
    """An untrained Qwen3 of about 240,000 parameters with its tokenizer, saved as safetensors; returns `folder`."""
    import torch
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    tokenizer = make_tokenizer()
    config = Qwen3Config(
        vocab_size=512,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.05,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def accuracy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tested: list[dict[str, Any]]) -> float:
    """Share of `tested` rows that the model answers word for word, with greedy decoding of the chat prompt."""
    return sum(answer(model, tokenizer, row) == row["messages"][-1]["content"] for row in tested) / len(tested)


def answer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, row: dict[str, Any]) -> str:
    """The answer of the model to the question of a row."""
    import torch

    prompt = tokenizer.apply_chat_template(
        row["messages"][:-1], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        tokens = model.generate(**prompt, max_new_tokens=8, do_sample=False)
    return str(tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))


def _row(word: str, number: str, category: str) -> dict[str, Any]:
    question = {"role": "user", "content": f"What is a {word}? ({number})"}
    return {"messages": [question, {"role": "assistant", "content": category}]}


def main() -> None:
    """Write model and data to the folder on the command line."""
    folder = Path(sys.argv[1])
    make_model(folder / "model")
    write_rows(folder / "train.jsonl", rows(256, seed=1))
    write_rows(folder / "test.jsonl", rows(32, seed=2))


if __name__ == "__main__":
    main()
