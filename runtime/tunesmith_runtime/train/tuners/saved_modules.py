"""Parts that LoRA trains beside its layers: whole modules (`lora.modulesToSave`), and the embeddings of single tokens
(`lora.trainableTokens`)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from torch import nn
from transformers import PreTrainedTokenizerBase

from tunesmith_api.failures import FailureClass
from tunesmith_api.training import ModelPart
from tunesmith_api.tuners import Lora
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.tasks import REWARD
from tunesmith_runtime.train.tuners.targets import FROZEN, LINEAR, Layers


def saved_modules(model: nn.Module, lora: Lora, frozen: Collection[ModelPart] = FROZEN) -> list[str]:
    """Return the full names of the modules that `lora.modulesToSave` names. Embedding and output head come together if they
    share their weight, as each would be trained to another end otherwise.

    Raises RunFailure (BadSpec) for names that cannot be trained as a whole, with those that can.
    """
    layers = Layers(model, frozenset(frozen))
    adapted = {*layers.full_names(lora.target_modules or ())}
    faults = [fault for name in lora.modules_to_save or () if (fault := _fault(layers, name, adapted))]
    table, tied = layers.name_of(layers.embedding), tied_names(layers)
    found = layers.full_names(lora.modules_to_save or ())
    if lora.trainable_tokens and {table, *tied} & {*found}:
        faults.append(f"{table!r} is trained as a whole, and lora.trainableTokens trains single rows of it")
    if faults:
        known = sorted({full.rsplit(".", 1)[-1] for full in layers.modules if not _fault(layers, full, set())})
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"lora.modulesToSave: {'; '.join(faults)}",
            f"choose spec.lora.modulesToSave from {', '.join(known)}, or remove it",
        )
    return list(dict.fromkeys([*found, *(tied if {*tied} & {*found} else ())]))


def tied_names(layers: Layers) -> list[str]:
    """Return the full names of embedding and output head if they share their weight; else an empty list."""
    table, head = layers.embedding, layers.head
    is_tied = table is not None and head is not None and getattr(head, "weight", None) is table.weight
    return [name for name in (layers.name_of(table), layers.name_of(head)) if name] if is_tied else []


def _fault(layers: Layers, name: str, adapted: set[str]) -> str | None:
    """Return the reason why the modules called `name` cannot be trained as a whole; None if they can."""
    modules = layers.named(name)
    if not modules:
        return f"no module of the model is named {name!r}"
    for full, module in modules.items():
        if full.rsplit(".", 1)[-1] in REWARD.heads and module is layers.head:
            return f"{name!r} is the head of this method, which is trained anyway"
        if full in adapted:
            return f"{name!r} is also in lora.targetModules"
        if isinstance(module, LINEAR) and module is not layers.head:
            return f"{name!r} is a linear layer, which the adapter trains"
        if next(module.parameters(recurse=False), None) is None or next(module.children(), None) is not None:
            return f"{name!r} is no single module with weights"
    return None


def token_ids(tokenizer: PreTrainedTokenizerBase, tokens: Iterable[str]) -> Sequence[int]:
    """Return the ids of tokens, each given as the vocabulary writes it or as the text that it stands for.

    Raises RunFailure (BadSpec) for a text that is not a single token.
    """
    vocabulary, found, faults = tokenizer.get_vocab(), [], []
    for token in tokens:
        ids = [vocabulary[token]] if token in vocabulary else tokenizer(token, add_special_tokens=False)["input_ids"]
        if len(ids) == 1:
            found.append(ids[0])
        else:
            parts = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(ids[:8])))
            faults.append(f"{token[:80]!r} is {len(ids)} tokens of the model ({parts})")
    if faults:
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"lora.trainableTokens: {'; '.join(faults)}",
            "write each entry of spec.lora.trainableTokens as one token of the vocabulary, or set spec.lora.modulesToSave: [embed_tokens]",
        )
    return sorted({*found})
