"""Figures of the cache of model files: the fetch container of a service's next pod on a node, with and without it.

`python -m tests.bench.bench_cache [--gigabytes 2]`. A real S3 server on this machine, a Llama with random weights in 4 shards, and
the verb `fetch` as a process, as in a pod. Prints a table; asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy
from safetensors.numpy import save_file

from tests import tinymodel
from tests.s3 import S3Server, run_server
from tests.servers import run_spec

SHARDS = 4
HIDDEN, INNER = 2048, 8192
LAYER_BYTES = 2 * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * INNER + 2 * HIDDEN)


def main(arguments: list[str] | None = None) -> None:
    """Print each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the weights (default: %(default)s)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-cache-") as folder:
        for name, value in figures(Path(folder), options.gigabytes):
            print(f"{name:<62}{value:>14}", flush=True)


def figures(folder: Path, gigabytes: float) -> list[tuple[str, str]]:
    """Time of each fetch. The first one without a cache checks the model, which no later one does."""
    with closing(run_server(folder / "s3")) as servers:
        server = next(servers)
        bucket = server.new_bucket()
        size = upload_model(server, bucket, folder / "model", round(gigabytes * 1e9 / LAYER_BYTES))
        title = f"fetch of {size / 1e9:.1f} GB"
        rows = [(f"{title}: first pod of a service, with its checks", fetch(server, bucket, folder, None))]
        rows += [(f"{title}: next pod, no cache", fetch(server, bucket, folder, None))]
        rows += [(f"{title}: first pod of the node, with a cache", fetch(server, bucket, folder, folder / "cache"))]
        rows += [(f"{title}: next pod of the node, with a cache", fetch(server, bucket, folder, folder / "cache"))]
    return [(name, f"{seconds:.1f} s") for name, seconds in rows]


def upload_model(server: S3Server, bucket: str, folder: Path, layers: int) -> int:
    """Put a model with that many layers into the bucket. Returns the size of its weights in bytes."""
    tinymodel.make_model(folder)
    config = json.loads((folder / "config.json").read_text())
    vocabulary = config["vocab_size"]
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "tie_word_embeddings": True,
        "dtype": "float16",
    }
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    (folder / "config.json").write_text(json.dumps(config))
    write_weights(folder, layers, vocabulary)
    client = server.client()
    for path in sorted(folder.iterdir()):
        client.upload_file(str(path), bucket, f"model/{path.name}")
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    shutil.rmtree(folder)
    return size


def write_weights(folder: Path, layers: int, vocabulary: int) -> None:
    """Write the weights in shards, with their index."""
    random = numpy.random.default_rng(1)
    shapes: list[tuple[str, tuple[int, ...]]] = [
        ("model.embed_tokens.weight", (vocabulary, HIDDEN)),
        ("model.norm.weight", (HIDDEN,)),
    ]
    for layer in range(layers):
        name = f"model.layers.{layer}"
        shapes += [(f"{name}.{norm}_layernorm.weight", (HIDDEN,)) for norm in ("input", "post_attention")]
        shapes += [(f"{name}.self_attn.{part}_proj.weight", (HIDDEN, HIDDEN)) for part in "qkvo"]
        shapes += [(f"{name}.mlp.{part}_proj.weight", (INNER, HIDDEN)) for part in ("gate", "up")]
        shapes += [(f"{name}.mlp.down_proj.weight", (HIDDEN, INNER))]
    index: dict[str, str] = {}
    for shard in range(SHARDS):
        file = f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        mine = shapes[shard::SHARDS]
        save_file(
            {name: random.random(shape, numpy.float32).astype(numpy.float16) for name, shape in mine}, folder / file
        )
        index |= dict.fromkeys((name for name, _ in mine), file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def fetch(server: S3Server, bucket: str, folder: Path, cache: Path | None) -> float:
    """Run fetch of an InferenceService in a new pod; return its time in seconds."""
    uri = f"s3://{bucket}/model"
    fields: dict[str, Any] = {"models": {"base": {"uri": uri}}, "store": server.store(bucket).to_dict()}
    if cache:
        fields["cache"] = {"path": str(cache), "leases": str(cache / "leases")}
    spec, work = folder / "run.json", folder / "work"
    spec.write_text(json.dumps(run_spec("InferenceService", "bench", {"model": {"uri": uri}}, **fields)))
    command = [sys.executable, "-m", "tunesmith_runtime", "fetch", "--spec", str(spec), "--work", str(work)]
    settings = {
        "TUNESMITH_TERMINATION_LOG": str(folder / "report"),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    start = time.monotonic()
    subprocess.run(command, env={**os.environ, **server.environment, **settings}, check=True, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - start
    shutil.rmtree(work)
    return seconds


if __name__ == "__main__":
    main()
