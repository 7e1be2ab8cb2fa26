"""Whether devices can hold some layers each of a model, and pass its hidden states on."""

from __future__ import annotations

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure

FAMILIES = frozenset(
    {
        "cohere", "gemma", "gemma2", "gemma3_text", "glm4", "granite", "llama", "mistral", "mixtral", "olmo2", "phi", "phi3", "qwen2",
        "qwen3", "qwen3_moe", "smollm3", "starcoder2",
    }
)  # fmt: skip
"""Model types whose layers exchange hidden states alone (tests/unit/runtime/train/strategies/test_stages.py)."""


def check_stages(kind: str, layers: int, stages: int) -> None:
    """Check that a model of type `kind` can be divided into `stages` stages. Raises RunFailure (BadSpec)."""
    if stages == 1:
        return
    if kind not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise not_pipelined(
            f"models of type {kind!r} are not divided into stages in this version, which does so with {known}"
        )
    if layers < stages:
        raise not_pipelined(f"num_hidden_layers of the model is {layers}, and each of {stages} stages needs a layer")


def not_pipelined(why: str) -> RunFailure:
    """Return the failure of a model whose layers are not divided among devices."""
    return RunFailure(
        FailureClass.BAD_SPEC,
        f"parallelism.pipelineParallel: {why}",
        "remove spec.parallelism.pipelineParallel, or set it to fewer stages; spec.parallelism.strategy: fsdp divides any model",
    )
