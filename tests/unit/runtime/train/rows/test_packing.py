"""Packed rows do not see each other: logits and gradients equal those of separate rows, or the model is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.unit.runtime.modelcheck.families import DECODER, FAMILIES
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.example_file import open_examples, write_examples
from tunesmith_runtime.data.examples import IGNORED, Example
from tunesmith_runtime.data.packing import PackedRows
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.losses.cross_entropy import answer_loss
from tunesmith_runtime.train.rows.forms import fill_batches
from tunesmith_runtime.train.rows.packing import PackedCollator, check_separate_rows, two_rows, without_mask

SEPARATE = FAMILIES | {"mistral": DECODER | {"sliding_window": 6}, "gemma2": FAMILIES["gemma2"] | {"sliding_window": 6}}
MIXING: dict[str, dict[str, Any]] = {
    "mamba": {"vocab_size": 520, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "use_mambapy": False},
    "bloom": {"vocab_size": 520, "hidden_size": 32, "n_layer": 2, "n_head": 4},
}
"""A state that goes from token to token, and attention that knows distances but no position ids."""
LENGTHS = [9, 4, 12, 1, 7, 3, 2]
CPU = torch.device("cpu")


def make(family: str, sizes: dict[str, Any]) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(family, **{"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, **sizes})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def rows(seed: int = 0) -> list[Example]:
    """Rows whose first third is a prompt."""
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(3, 512, (length,), generator=generator).tolist() for length in LENGTHS]
    return [Example(row, [IGNORED if at < len(row) // 3 else token for at, token in enumerate(row)]) for row in ids]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedRows:
    path = tmp_path_factory.mktemp("packed") / "train.arrow"
    with write_examples(path) as writer:
        for row in rows():
            writer.write([row])
    return PackedRows.of(open_examples(path), 14, seed=0)


def collate(sequences: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return PackedCollator(0, unpacked=lambda _: {})(sequences)


def gradients(model: Any, losses: list[torch.Tensor]) -> list[torch.Tensor]:
    model.zero_grad()
    for loss in losses:
        loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def alone(row: Example) -> dict[str, torch.Tensor]:
    ids = torch.tensor([row.input_ids])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor([row.labels])}


@pytest.mark.parametrize("family", SEPARATE)
def test_logits_of_packed_rows_equal_those_of_separate_rows(packed: PackedRows, family: str) -> None:
    model = make(family, SEPARATE[family])
    batch = without_mask(collate([packed[index] for index in range(len(packed))]))
    assert max(len(packed[index]["seq_lengths"]) for index in range(len(packed))) > 1
    batch.pop("labels")
    with torch.no_grad():
        together = model(**batch, use_cache=False).logits
        for index in range(len(packed)):
            at = 0
            for length in packed[index]["seq_lengths"]:
                ids = torch.tensor([packed[index]["input_ids"][at : at + length]])
                separate = model(input_ids=ids, use_cache=False).logits[0]
                torch.testing.assert_close(together[index, at : at + length], separate, atol=1e-5, rtol=1e-5)
                at += length
    pair = two_rows(packed)
    assert pair
    check_separate_rows(model, *pair, CPU)


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_loss_and_gradients_equal_those_of_separate_rows(packed: PackedRows, family: str) -> None:
    model = make(family, SEPARATE[family])
    head, tokens = model.get_output_embeddings(), 20
    separate = [answer_loss(model, head, alone(row), tokens) for row in rows()]
    expected = gradients(model, separate)
    batch = without_mask(collate([packed[index] for index in range(len(packed))]))
    loss = answer_loss(model, head, batch, tokens)
    torch.testing.assert_close(loss, torch.stack(separate).sum(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients(model, [loss]), expected, atol=1e-5, rtol=1e-5)


def test_with_a_mask_rows_would_leak(packed: PackedRows) -> None:
    """What the promise hangs on: beside an attention mask, position ids alone do not keep rows apart."""
    model, head = make("qwen3", SEPARATE["qwen3"]), None
    head = model.get_output_embeddings()
    batch = collate([packed[index] for index in range(len(packed))])
    leaking = answer_loss(model, head, batch, 20)
    assert abs(float(leaking - answer_loss(model, head, without_mask(batch), 20))) > 1e-3


@pytest.mark.parametrize("family", MIXING)
def test_a_model_that_mixes_rows_is_refused(packed: PackedRows, family: str) -> None:
    pair = two_rows(packed)
    assert pair
    with pytest.raises(RunFailure, match=r"training\.packing: this model mixes the rows of a sequence") as caught:
        check_separate_rows(make(family, MIXING[family]), *pair, CPU)
    assert (caught.value.failure, caught.value.hint) == (FailureClass.BAD_SPEC, "set spec.training.packing: false")


def test_a_batch_counts_its_tokens_and_pads_with_rows_of_their_own(packed: PackedRows) -> None:
    sequences = [packed[index] for index in range(len(packed))]
    batch = collate(sequences)
    assert int(batch["attention_mask"].sum()) == sum(LENGTHS)
    for index, sequence in enumerate(sequences):
        size = len(sequence["input_ids"])
        expected = [at for length in sequence["seq_lengths"] for at in range(length)]
        assert batch["position_ids"][index].tolist() == expected + [0] * (batch["input_ids"].shape[1] - size)
        assert (batch["labels"][index, size:] == IGNORED).all()
    assert "attention_mask" not in without_mask(batch)
    assert "attention_mask" in without_mask(alone(rows()[0]))


def test_a_blank_sequence_has_no_label(packed: PackedRows) -> None:
    longer = fill_batches(packed, 7)
    assert isinstance(longer, PackedRows)
    assert len(longer) == len(packed) + 1
    assert longer[len(packed)] == {"input_ids": [7, 7], "labels": [IGNORED, IGNORED], "seq_lengths": [2]}
    assert [longer[index] for index in range(len(packed))] == [packed[index] for index in range(len(packed))]
