"""A training by one contestant, in a process and an environment of its own, which needs none of our packages but for our own.

`python contestant.py NAME FOLDER STEPS BATCH`. FOLDER has model/ and rows.jsonl, and receives NAME/ with the adapter. Prints, as
the last line, the times at which steps end, by CLOCK_MONOTONIC and by CPU time, the tokens of each, and the peak memory as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

RANK, ALPHA, RATE, LENGTH, SEED = 16, 32, 1e-3, 512, 42
ENDS: list[float] = []
CPU: list[float] = []
TOKENS: list[int] = []


def watch_trainers() -> None:
    """Note the time at which each step of a Trainer of transformers ends, and its tokens without padding."""
    import transformers.trainer as module

    train = module.Trainer.training_step

    def training_step(self: Any, model: Any, inputs: dict[str, Any], *rest: Any, **options: Any) -> Any:
        mask = inputs.get("attention_mask")
        TOKENS.append(int(inputs["input_ids"].numel() if mask is None else mask.sum()))
        return train(self, model, inputs, *rest, **options)

    class Clock(module.TrainerCallback):  # type: ignore[name-defined, misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            note_end()

    module.Trainer.training_step = training_step
    module.DEFAULT_CALLBACKS.append(Clock)


def note_end() -> None:
    """Note the end of a step, by the clock and by the time of the processors."""
    ENDS.append(time.monotonic())
    CPU.append(time.process_time())


def tunesmith(folder: Path, steps: int, batch: int) -> None:
    """The verb train of a pod."""
    from tests.unit.runtime.train.support import make_run
    from tunesmith_runtime import train
    from tunesmith_runtime.progress_push import ProgressPusher
    from tunesmith_runtime.train import imports

    settings = {
        "maxSteps": steps, "globalBatchSize": batch, "microBatchSize": batch, "maxLength": LENGTH, "learningRate": RATE,
        "precision": "fp32", "scheduler": "constant", "warmupRatio": 0, "seed": SEED, "epochs": None,
    }  # fmt: skip
    rows = read_rows(folder)
    run = make_run(folder / "tunesmith", folder / "model", rows, settings, lora={"rank": RANK, "alpha": ALPHA})
    imports.sleep_when_idle()
    with imports.hidden():
        watch_trainers()
    report = train.run(run.spec, run.work, ProgressPusher(None, None))
    (folder / "tunesmith" / "adapter").symlink_to(run.directory.local / report.artifacts[0].name)


def bare(folder: Path, steps: int, batch: int) -> None:
    """A loop as in the documentation of PEFT."""
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.utils.data import DataLoader
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32),
        LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    examples = [encode(tokenizer, row["messages"]) for row in read_rows(folder)]

    def collate(rows: list[tuple[list[int], list[int]]]) -> dict[str, torch.Tensor]:
        longest = max(len(ids) for ids, _ in rows)
        return {
            "input_ids": torch.tensor([ids + [tokenizer.pad_token_id] * (longest - len(ids)) for ids, _ in rows]),
            "attention_mask": torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows]),
            "labels": torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in rows]),
        }

    loader = DataLoader(examples, batch_size=batch, shuffle=True, collate_fn=collate)
    optimizer = torch.optim.AdamW(
        [each for each in model.parameters() if each.requires_grad], lr=RATE, weight_decay=0.0
    )
    model.train()
    while len(ENDS) < steps:
        for inputs in loader:
            model(**inputs).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            TOKENS.append(int(inputs["attention_mask"].sum()))
            note_end()
            if len(ENDS) == steps:
                break
    model.save_pretrained(folder / "bare" / "adapter")


def trl(folder: Path, steps: int, batch: int) -> None:
    """TRL's SFTTrainer."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    watch_trainers()
    rows = [{"prompt": each["messages"][:1], "completion": each["messages"][1:]} for each in read_rows(folder)]
    arguments = SFTConfig(
        output_dir=str(folder / "trl"), max_steps=steps, per_device_train_batch_size=batch, max_length=LENGTH,
        learning_rate=RATE, lr_scheduler_type="constant", use_cpu=True, bf16=False, gradient_checkpointing=False,
        report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True, seed=SEED,
    )  # fmt: skip
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.train()
    trainer.save_model(str(folder / "trl" / "adapter"))


def swift(folder: Path, steps: int, batch: int) -> None:
    """`swift sft`."""
    from swift.pipelines import sft_main

    watch_trainers()  # after the import, which replaces transformers' Trainer
    sft_main(
        [
            "--model", str(folder / "model"), "--model_type", "llama", "--template", "chatml", "--dataset", str(folder / "rows.jsonl"),
            "--tuner_type", "lora", "--lora_rank", str(RANK), "--lora_alpha", str(ALPHA), "--lora_dropout", "0",
            "--target_modules", "all-linear", "--torch_dtype", "float32", "--max_steps", str(steps),
            "--per_device_train_batch_size", str(batch), "--gradient_accumulation_steps", "1", "--learning_rate", str(RATE),
            "--lr_scheduler_type", "constant", "--weight_decay", "0", "--max_length", str(LENGTH), "--use_cpu", "true",
            "--bf16", "false", "--fp16", "false", "--gradient_checkpointing", "false", "--save_strategy", "steps", "--save_steps", str(steps), "--logging_steps", "1",
            "--report_to", "none", "--split_dataset_ratio", "0", "--output_dir", str(folder / "swift"), "--add_version", "false",
            "--dataloader_num_workers", "0", "--seed", str(SEED), "--check_model", "false",
        ]
    )  # fmt: skip


def llamafactory(folder: Path, steps: int, batch: int) -> None:
    """`llamafactory-cli train`."""
    watch_trainers()
    from llamafactory.train.tuner import run_exp

    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    info = {
        "rows": {"file_name": "rows.jsonl", "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    run_exp(
        {
            "model_name_or_path": str(folder / "model"), "stage": "sft", "do_train": True, "finetuning_type": "lora", "lora_rank": RANK,
            "lora_alpha": ALPHA, "lora_dropout": 0.0, "lora_target": "all", "dataset": "rows", "dataset_dir": str(folder),
            "template": "chatml", "cutoff_len": LENGTH, "output_dir": str(folder / "llamafactory" / "adapter"), "max_steps": steps,
            "per_device_train_batch_size": batch, "gradient_accumulation_steps": 1, "learning_rate": RATE,
            "lr_scheduler_type": "constant", "use_cpu": True, "bf16": False, "save_strategy": "no", "logging_steps": 1,
            "report_to": "none", "disable_gradient_checkpointing": True, "overwrite_cache": True, "seed": SEED,
            "preprocessing_num_workers": 1, "dataloader_num_workers": 0,
        }
    )  # fmt: skip


def axolotl(folder: Path, steps: int, batch: int) -> None:
    """`axolotl train`."""
    watch_trainers()
    from axolotl.cli.train import do_cli

    config = {
        "base_model": str(folder / "model"), "adapter": "lora", "lora_r": RANK, "lora_alpha": ALPHA, "lora_dropout": 0.0,
        "lora_target_linear": True, "datasets": [{"path": str(folder / "rows.jsonl"), "type": "chat_template", "ds_type": "json"}],
        "chat_template": "tokenizer_default", "sequence_len": LENGTH, "micro_batch_size": batch, "gradient_accumulation_steps": 1,
        "max_steps": steps, "learning_rate": RATE, "lr_scheduler": "constant", "optimizer": "adamw_torch", "weight_decay": 0.0,
        "bf16": False, "fp16": False, "tf32": False, "float32": True, "gradient_checkpointing": False, "flash_attention": False,
        "sdp_attention": True, "lora_mlp_kernel": False, "lora_qkv_kernel": False, "lora_o_kernel": False, "save_strategy": "no", "logging_steps": 1, "output_dir": str(folder / "axolotl" / "adapter"),
        "dataset_prepared_path": str(folder / "axolotl" / "prepared"), "seed": SEED, "dataset_num_proc": 1,
    }  # fmt: skip
    path = folder / "axolotl.yaml"
    path.write_text(json.dumps(config))
    do_cli(str(path))


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the training rows."""
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def encode(tokenizer: Any, messages: list[dict[str, str]]) -> tuple[list[int], list[int]]:
    """Return the tokens of a conversation, and the labels of its last message."""
    prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    start = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    return ids, [-100] * start + ids[start:]


def main() -> None:
    """Train, and print the figures."""
    name, folder, steps, batch = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    globals()[name](folder, steps, batch)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print("\n" + json.dumps({"ends": ENDS, "cpu": CPU, "tokens": TOKENS[: len(ENDS)], "rss_bytes": memory}), flush=True)


if __name__ == "__main__":
    main()
