"""Strategy fsdp: a model that is not sharded is refused, and slices are put together and taken apart again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.strategies.fsdp import Fsdp, part_of, whole
from tunesmith_runtime.train.world.process_group import ALONE


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A process group of this process alone."""
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh

    store = distributed.FileStore(str(tmp_path_factory.mktemp("store") / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def trainer_of(model: Any) -> Any:
    args = SimpleNamespace(world_size=1, device=SimpleNamespace(type="cpu"), should_save=True)
    return SimpleNamespace(
        model=model,
        model_wrapped=model,
        args=args,
        group=ALONE,
        accelerator=SimpleNamespace(prepare_model=lambda: None),
    )


def loaded(tiny: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny)


def test_a_model_that_is_whole_in_each_process_is_refused(tiny: Path) -> None:
    with pytest.raises(RunFailure, match=r"strategy fsdp: model\.embed_tokens\.weight is whole") as refused:
        Fsdp().check(trainer_of(loaded(tiny)))
    assert refused.value.failure is FailureClass.PROCESS_ERROR


def test_a_sharded_model_passes_the_check_and_becomes_whole_again(tiny: Path, mesh: Any) -> None:
    import torch
    from torch.distributed.fsdp import FSDPModule

    model, original = loaded(tiny), loaded(tiny)
    trainer = trainer_of(model)
    Fsdp().shard(trainer)
    Fsdp().check(trainer)
    assert [type(each).__name__ for each in model.modules() if isinstance(each, FSDPModule)] == [
        "FSDPQwen3ForCausalLM",
        "FSDPQwen3DecoderLayer",
        "FSDPQwen3DecoderLayer",
    ]
    Fsdp().make_whole(model, keep=True)
    assert not [each for each in model.modules() if isinstance(each, FSDPModule)]
    assert model.lm_head.weight is model.model.embed_tokens.weight, "tied weights stay tied"
    for name, weight in original.named_parameters():
        assert torch.equal(model.get_parameter(name), weight), name


def test_a_slice_of_a_whole_tensor_makes_the_whole_again(mesh: Any) -> None:
    import torch
    from torch.distributed.tensor import Shard, distribute_tensor

    weight = distribute_tensor(torch.zeros(5, 3), mesh, [Shard(0)])
    moment, count = torch.rand(5, 3), torch.tensor(7.0)
    part = {"exp_avg": part_of(moment, weight), "step": part_of(count, weight)}
    assert part["exp_avg"].placements == weight.placements
    assert part["step"] is count
    assert torch.equal(whole(part, keep=True)["exp_avg"], moment)
    assert whole(part, keep=False)["exp_avg"].numel() == 0


def test_a_reference_has_the_adapter_as_it_was_whatever_a_pass_has_gathered(tiny: Path, mesh: Any) -> None:
    """A pass keeps the whole weights of the last norm, which is trained here beside the adapter."""
    import torch
    from peft import LoraConfig, get_peft_model

    from tunesmith_runtime.train.losses.log_probs import answer_log_probs
    from tunesmith_runtime.train.models.reference import WithInitialAdapter

    def log_prob() -> float:
        with torch.no_grad():
            return float(answer_log_probs(model, model.get_output_embeddings(), inputs).sums)

    ids = torch.tensor([[5, 80, 300, 41]])
    inputs = {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}
    adapter = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], modules_to_save=["norm"])
    model = get_peft_model(loaded(tiny), adapter).eval()
    reference, initial = WithInitialAdapter(model), log_prob()
    Fsdp().shard(trainer_of(model))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.1)
    first = float(reference(inputs).sums)
    changed = log_prob()
    assert abs(changed - initial) > 0.1
    assert first == pytest.approx(initial)
    assert float(reference(inputs).sums) == pytest.approx(initial)
    assert log_prob() == changed
