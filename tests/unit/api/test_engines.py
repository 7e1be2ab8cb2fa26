"""Which engine `auto` stands for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunesmith_api.engines import RUNS_ON, resolve_engine
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
