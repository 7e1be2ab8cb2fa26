"""Which engine `auto` stands for, and which adapters an engine serves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunesmith_api.engines import RUNS_ON, adapter_refusal, resolve_engine
from tunesmith_api.inferenceservice import Engine
from tunesmith_api.pods import Accelerator

ENGINES = [engine for engine in Engine if engine is not Engine.AUTO]


def test_every_engine_has_its_accelerators() -> None:
    assert set(RUNS_ON) == set(ENGINES)


@given(st.sampled_from(Accelerator), st.sets(st.sampled_from(ENGINES)))
def test_auto_runs_on_the_accelerator_and_is_available_or_the_engine_of_the_runtime_image(
    accelerator: Accelerator, available: set[Engine]
) -> None:
    chosen = resolve_engine(Engine.AUTO, accelerator, available)
    assert accelerator in RUNS_ON[chosen]
    assert chosen in {*available, Engine.TRANSFORMERS}
    better = list(RUNS_ON)[: list(RUNS_ON).index(chosen)]
    assert not [engine for engine in better if engine in available and accelerator in RUNS_ON[engine]]


@given(st.sampled_from(ENGINES), st.sampled_from(Accelerator), st.sets(st.sampled_from(ENGINES)))
def test_a_named_engine_is_never_replaced(engine: Engine, accelerator: Accelerator, available: set[Engine]) -> None:
    assert resolve_engine(engine, accelerator, available) is engine


@given(st.sampled_from(Accelerator), st.sets(st.sampled_from(ENGINES)), st.sampled_from(ENGINES))
def test_auto_keeps_the_previous_engine_while_it_is_available_and_runs_on_the_accelerator(
    accelerator: Accelerator, available: set[Engine], previous: Engine
) -> None:
    is_usable = previous in available and accelerator in RUNS_ON[previous]
    chosen = resolve_engine(Engine.AUTO, accelerator, available, previous)
    assert chosen is (previous if is_usable else resolve_engine(Engine.AUTO, accelerator, available))


def test_only_plain_lora_is_served_beside_a_base_by_any_engine() -> None:
    for engine in ENGINES:
        assert adapter_refusal("fr", None, [], engine, is_alone=False) is None
        refused = adapter_refusal("fr", "DoRA", [], engine, is_alone=True)
        assert refused
        assert refused.hint == "merge the adapter (export.merge: true) and serve the merged model"


def test_parts_of_the_base_are_served_by_transformers_without_other_adapters() -> None:
    parts = ["lm_head", "embeddings of tokens"]
    for engine in {*ENGINES} - {Engine.TRANSFORMERS}:
        refused = adapter_refusal("fr", None, parts, engine, is_alone=True)
        assert refused
        assert refused.message.startswith(
            f"adapter fr was trained with lm_head and embeddings of tokens beside its layers, which the engine {engine} does not"
        )
        assert refused.hint.endswith("or set spec.engine: transformers")
    assert adapter_refusal("fr", None, parts, Engine.TRANSFORMERS, is_alone=True) is None
    refused = adapter_refusal("fr", None, parts, Engine.TRANSFORMERS, is_alone=False)
    assert refused
    assert "only without other adapters" in refused.message
    assert "an InferenceService of its own" in refused.hint
