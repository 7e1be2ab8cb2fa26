"""Loss on held-out rows of a model with the adapter of each contestant: `python -m tests.bench.training.heldout FOLDER NAME...`.

Prints a JSON object. `base` is the model without an adapter. A contestant that has saved none is left out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.bench.training.contestant import encode


def main() -> None:
    """Print the loss of each adapter."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, names = Path(sys.argv[1]), sys.argv[2:]
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    rows = [
        encode(tokenizer, json.loads(line)["messages"]) for line in (folder / "held-out.jsonl").read_text().splitlines()
    ]

    @torch.no_grad()
    def loss(model: Any) -> float:
        total = count = 0.0
        for ids, labels in rows:
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-2]
            targets = torch.tensor(labels[1:-1])  # not the line break behind the answer, which some do not learn
            total += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
            count += int((targets != -100).sum())
        return total / count

    def base() -> Any:
        return AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()

    found = {"base": loss(base())}
    for name in names:
        saved = next((folder / name).rglob("adapter_model.safetensors"), None)
        if saved:
            found[name] = loss(PeftModel.from_pretrained(base(), str(saved.parent)).eval())
    print(json.dumps(found))


if __name__ == "__main__":
    main()
