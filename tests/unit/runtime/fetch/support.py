"""A store with what a fetch asks for, and the fetch itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
from safetensors.numpy import save

from tests.servers import run_spec
from tunesmith_api.hashing import spec_hash
from tunesmith_api.run import ResolvedModel, RunReport, RunSpec, Store, models_by_role
from tunesmith_runtime import fetch, prepare
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.storage import Storage, join, open_storage
from tunesmith_runtime.workdir import Work


def _ones(**shapes: tuple[int, ...]) -> bytes:
    return save({name.replace("__", "."): numpy.ones(shape, numpy.float32) for name, shape in shapes.items()})


LAYER = "model__layers__0__"
QUERY = "base_model__model__model__layers__0__self_attn__q_proj__"
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 8,
    "hidden_size": 4,
    "intermediate_size": 6,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": 0,
}
WEIGHTS = _ones(
    model__embed_tokens__weight=(8, 4),
    model__norm__weight=(4,),
    **{f"{LAYER}{name}_layernorm__weight": (4,) for name in ("input", "post_attention")},
    **{f"{LAYER}self_attn__{name}_proj__weight": (4, 4) for name in "qkvo"},
    **{f"{LAYER}mlp__{name}_proj__weight": (6, 4) for name in ("gate", "up")},
    **{f"{LAYER}mlp__down_proj__weight": (4, 6)},
)
TOKENIZER = {
    "version": "1.0",
    "added_tokens": [],
    "model": {"type": "WordLevel", "vocab": {"</s>": 0, "a": 1, "b": 2}, "unk_token": "a"},
}
MODEL = {
    "config.json": json.dumps(CONFIG).encode(),
    "model.safetensors": WEIGHTS,
    "tokenizer.json": json.dumps(TOKENIZER).encode(),
    "tokenizer_config.json": b'{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}',
}
"""A Llama with a single layer, and its tokenizer with three words."""
PARAMETERS = 8 * 4 + 4 * 3 + 4 * 16 + 3 * 24
"""Numbers in the weights of MODEL."""
ADAPTER_CONFIG = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "target_modules": ["q_proj"]}
ADAPTER = {
    "adapter_config.json": json.dumps(ADAPTER_CONFIG).encode(),
    "adapter_model.safetensors": _ones(**{f"{QUERY}lora_A__weight": (2, 4), f"{QUERY}lora_B__weight": (4, 2)}),
}
"""A LoRA adapter on it."""
ROWS = b'{"prompt": "a", "completion": "b"}\n'


class Fetcher:
    """Resources over one store, each fetched into a separate work directory."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.storage: Storage = open_storage(store)
        self.pods = 0

    def put(self, name: str, files: dict[str, bytes]) -> str:
        """Objects below a folder of the store; its URI."""
        for path, content in files.items():
            self.storage.write_bytes(join(self.store.uri, name, path), content)
        return join(self.store.uri, name)

    def spec(self, kind: str, model: dict[str, Any] | str, spec: dict[str, Any], **fields: Any) -> RunSpec:
        """The RunSpec of a resource of `kind` with that (resolved) model."""
        resolved = ResolvedModel.model_validate({"uri": model} if isinstance(model, str) else model)
        whole = {"model": {"uri": resolved.uri}, **spec}
        models = {str(role): each.to_dict() for role, each in models_by_role(resolved).items()}
        data = run_spec(kind, "demo", whole, specHash=spec_hash(kind, whole), models=models, **fields)
        return RunSpec.model_validate(
            {**data, "store": self.store.to_dict(), "outputUri": join(self.store.uri, "runs")}
        )

    def job(self, model: dict[str, Any] | str, *data: str, **spec: Any) -> RunSpec:
        """The RunSpec of a FineTuneJob."""
        return self.spec("FineTuneJob", model, {"datasets": [{"uri": uri} for uri in data], **spec})

    def fetch(self, spec: RunSpec) -> tuple[RunReport, Work]:
        """Fetch in a new pod."""
        work = self._pod()
        return fetch.run(spec, work, ProgressPusher(None, None)), work

    def prepare(self, spec: RunSpec) -> tuple[RunReport, Work]:
        """Prepare in a new pod."""
        work = self._pod()
        return prepare.run(spec, work, ProgressPusher(None, None)), work

    def _pod(self) -> Work:
        self.pods += 1
        return Work(self.folder / f"pod-{self.pods}")

    def objects(self) -> dict[str, bytes]:
        """Path and content of all objects in the store."""
        return {
            entry.path: self.storage.read_bytes(join(self.store.uri, entry.path)) or b""
            for entry in self.storage.list(self.store.uri)
        }


def names(directory: Path) -> set[str]:
    """Files of a local folder."""
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]
