"""Rows in a batch have the answers that they have alone, and failures affect no other row."""

from __future__ import annotations

import math
import queue
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tinymodel import make_tokenizer
from tests.unit.runtime.serve.conftest import ADAPTERS
from tunesmith_runtime.serve.generation.batch import NO_INPUTS, Batch
from tunesmith_runtime.serve.generation.loop import MAX_ROWS, MAX_WAITING, Finish, Loop, Piece, QueueFull, Row
from tunesmith_runtime.serve.generation.model import LoadedModel, load
from tunesmith_runtime.serve.generation.sampling import Sampling

GREEDY = Sampling(temperature=0)


@pytest.fixture
def loop(model: LoadedModel) -> Iterator[Loop]:
    loop = Loop(model.forward, model.decode, model.eos)
    loop.start()
    yield loop
    loop.close()


class Asked:
    """A submitted row and its tokens."""

    def __init__(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        adapter: str | None = None,
        sampling: Sampling = GREEDY,
        inputs: Mapping[str, torch.Tensor] = NO_INPUTS,
    ) -> None:
        self.pieces: queue.Queue[Piece] = queue.Queue()
        self.row = Row(prompt, max_tokens, sampling, adapter, (), self.pieces.put, inputs)

    def tokens(self) -> list[int]:
        tokens: list[int] = []
        while True:
            piece = self.pieces.get(timeout=120)
            assert piece.error is None
            assert piece.choice is not None
            tokens.append(piece.choice.token)
            if piece.finish is not None:
                return tokens


def prompts(model: LoadedModel, count: int) -> list[list[int]]:
    """Prompts of different lengths."""
    choose = random.Random(7)
    return [[choose.randrange(3, 512) for _ in range(choose.randrange(1, 40))] for _ in range(count)]


def test_a_single_row_equals_the_output_of_transformers(work: Path, model: LoadedModel, loop: Loop) -> None:
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(work / "model")
    for prompt in prompts(model, 5):
        expected = plain.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False)[0, len(prompt) :].tolist()
        asked = Asked(prompt, 20)
        loop.submit([asked.row])
        assert asked.tokens() == expected


def test_rows_that_join_and_leave_a_batch_have_independent_answers(model: LoadedModel, loop: Loop) -> None:
    choose = random.Random(1)
    plans = [
        (
            prompt,
            choose.randrange(1, 30),
            choose.choice([None, *ADAPTERS]),
            choose.choice([GREEDY, Sampling(0.8, 0.9, seed=index)]),
        )
        for index, prompt in enumerate(prompts(model, 40))
    ]
    alone = []
    for plan in plans:
        asked = Asked(*plan)
        loop.submit([asked.row])
        alone.append(asked.tokens())
    together = [Asked(*plan) for plan in plans]
    for asked in together:
        loop.submit([asked.row])
    assert [asked.tokens() for asked in together] == alone


def test_adapters_answer_differently_from_their_base(model: LoadedModel, loop: Loop) -> None:
    asked = [Asked(prompts(model, 1)[0], 12, adapter) for adapter in (None, *ADAPTERS)]
    loop.submit([request.row for request in asked])
    assert len({tuple(request.tokens()) for request in asked}) == 3


def test_an_adapter_in_a_mixed_batch_computes_what_peft_computes(work: Path, model: LoadedModel, loop: Loop) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(work / "model")
    adapted = PeftModel.from_pretrained(base, work / "adapters" / "fr").eval()
    prompt = prompts(model, 1)[0]
    expected = adapted.generate(input_ids=torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[
        0, len(prompt) :
    ].tolist()
    asked = [Asked(prompt, 12, adapter) for adapter in ("de", "fr", None)]
    loop.submit([request.row for request in asked])
    assert asked[1].tokens() == expected


def test_a_cancelled_row_leaves_and_the_others_continue(model: LoadedModel, loop: Loop) -> None:
    gone, stays = Asked(prompts(model, 1)[0], 400), Asked(prompts(model, 2)[1], 60)
    loop.submit([gone.row, stays.row])
    gone.pieces.get(timeout=60)
    gone.row.cancelled = True
    assert len(stays.tokens()) <= 60
    assert gone.pieces.qsize() < 390


def test_a_row_ends_at_any_end_token_with_its_reason(model: LoadedModel, loop: Loop) -> None:
    end = next(iter(model.eos))
    pieces: queue.Queue[Piece] = queue.Queue()
    loop.submit([Row([5, 6], 9, Sampling(temperature=0, logit_bias={end: 100.0}), None, (), pieces.put)])
    assert pieces.get(timeout=60).finish is Finish.STOP
    loop.submit([Row([5, 6], 1, Sampling(temperature=0, logit_bias={end: -100.0}), None, (), pieces.put)])
    assert pieces.get(timeout=60).finish is Finish.LENGTH


def test_a_stop_string_that_ends_in_the_end_of_turn_cuts_the_text_before_it(model: LoadedModel) -> None:
    letter, end = model.tokenizer("Q")["input_ids"][0], model.tokenizer.eos_token_id
    then_end = Sampling(temperature=0, logit_bias={letter: 200.0, end: 100.0}, presence_penalty=200.0)
    specials = model.tokens.specials
    loop = Loop(model.forward, model.decode, model.eos, specials)
    loop.start()
    text = {}
    for stop in ("Q<|im_end|>", "Q<|im_start|>"):
        pieces: queue.Queue[Piece] = queue.Queue()
        loop.submit([Row([5, 6], 4, then_end, None, [stop], pieces.put)])
        emitted = [pieces.get(timeout=60), pieces.get(timeout=60)]
        assert emitted[-1].finish is Finish.STOP
        text[stop] = "".join(piece.text for piece in emitted)
    loop.close()
    assert text == {"Q<|im_end|>": "", "Q<|im_start|>": "Q"}


def test_a_request_with_many_rows_does_not_delay_the_others(model: LoadedModel) -> None:
    order: list[str] = []
    loop = Loop(model.forward, model.decode, model.eos)
    endless = Sampling(temperature=0, logit_bias=dict.fromkeys(model.eos, -100.0))
    rows = [
        Row([5, 6], 8, endless, None, (), lambda piece: order.append("many") if piece.finish else None)
        for _ in range(4 * MAX_ROWS)
    ]
    request = Asked([5, 6], 8, sampling=endless)
    loop.submit(rows)
    loop.submit([request.row])
    loop.start()
    request.tokens()
    assert len(order) <= 2 * MAX_ROWS
    loop.close()


def test_rows_of_disconnected_readers_do_not_count_as_waiting(model: LoadedModel) -> None:
    loop = Loop(model.forward, model.decode, model.eos)
    gone = [Asked([5, 6], 4).row for _ in range(MAX_WAITING)]
    loop.submit(gone)
    with pytest.raises(QueueFull):
        loop.submit([Asked([5, 6], 4).row])
    for row in gone:
        row.cancelled = True
    stays = Asked([5, 6], 4)
    loop.submit([stays.row])
    loop.start()
    assert stays.tokens()
    loop.close()


def test_a_failed_step_fails_its_rows_and_not_the_loop(model: LoadedModel, loop: Loop) -> None:
    wrong, right = Asked([10**9], 4), Asked([5, 6], 4)
    loop.submit([wrong.row])
    assert wrong.pieces.get(timeout=60).error
    loop.submit([right.row])
    assert right.tokens()


def test_a_failed_row_does_not_affect_the_others(model: LoadedModel, loop: Loop) -> None:
    beside = Asked([5, 6], 8)
    loop.submit([beside.row])
    alone = beside.tokens()
    wrong, right = Asked([5, 6], 8, sampling=Sampling(logit_bias={7: math.nan})), Asked([5, 6], 8)
    loop.submit([wrong.row, right.row])
    assert "not numbers" in (wrong.pieces.get(timeout=60).error or "")
    assert right.tokens() == alone
    assert wrong.pieces.empty()


POISON = 509
"""A token that a faulty forward fails for."""


class Faulty:
    """A forward that fails in its second layer, when the first has kept its keys and values, where a row's new tokens have POISON."""

    def __init__(self, model: LoadedModel, error: type[Exception] = RuntimeError) -> None:
        self._forward, self._error = model.forward, error
        self._layer = model.forward._model.get_base_model().model.layers[1]
        self.config, self.device = model.forward.config, model.forward.device
        self.positions = model.forward.positions
        self.failures = 0

    def __call__(self, tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        def fail(*_: Any) -> None:
            if bool((tokens == POISON).any()):
                self.failures += 1
                raise self._error("no memory for this row")

        handle = self._layer.register_forward_pre_hook(fail)
        try:
            return self._forward(tokens, *rest)
        finally:
            handle.remove()


def loop_with(model: LoadedModel, faulty: Faulty) -> Loop:
    loop = Loop(faulty, model.decode, model.eos)  # type: ignore[arg-type]
    loop.start()
    return loop


def error_of(asked: Asked) -> str:
    """The error that ends a failed row, after its tokens."""
    while (piece := asked.pieces.get(timeout=120)).error is None:
        assert piece.finish is None
    return piece.error


@pytest.mark.parametrize("guilty", [{0}, {6}, {3, 4}, {0, 2, 5}, {1, 2, 3, 4, 5, 6}, set(range(7))])
@pytest.mark.parametrize("when", ["its prompt", "an answer"])
def test_only_the_rows_that_make_a_step_fail_are_dropped(
    model: LoadedModel, loop: Loop, guilty: set[int], when: str
) -> None:
    plans = [(prompt, 8, (None, *ADAPTERS)[index % 3]) for index, prompt in enumerate(prompts(model, 7))]
    alone = []
    for plan in plans:
        asked = Asked(*plan)
        loop.submit([asked.row])
        alone.append(asked.tokens())
    poisoned = Sampling(temperature=0, logit_bias={POISON: 100.0})
    rows = [
        Asked(*plan) if index not in guilty else
        Asked([*plan[0], POISON], *plan[1:]) if when == "its prompt" else Asked(*plan, poisoned)
        for index, plan in enumerate(plans)
    ]  # fmt: skip
    faulty = Faulty(model)
    broken = loop_with(model, faulty)
    try:
        broken.submit([asked.row for asked in rows])
        for index, asked in enumerate(rows):
            if index in guilty:
                assert error_of(asked) == "RuntimeError: no memory for this row"
            else:
                assert asked.tokens() == alone[index]
        after = Asked(*plans[0])
        broken.submit([after.row])
        assert after.tokens() == alone[0]
    finally:
        broken.close()
    assert faulty.failures


def test_a_failed_step_does_not_change_the_batch(model: LoadedModel) -> None:
    faulty = Faulty(model)
    given, adapters = prompts(model, 3), [None, *ADAPTERS]
    broken, plain = Batch(faulty), Batch(model.forward)  # type: ignore[arg-type]
    broken.begin(given, adapters)
    plain.begin(given, adapters)
    with pytest.raises(RuntimeError, match="no memory"):
        broken.step([5, POISON, 7])
    assert (len(broken), broken.width) == (len(plain), plain.width)
    for tokens in ([5, 6, 7], [8, 9, 10]):
        assert torch.equal(broken.step(tokens), plain.step(tokens))


def test_a_failed_merge_does_not_change_either_batch(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith_runtime.serve.generation import batch as module

    widen, calls = module._widen, 0

    def failing(states: torch.Tensor, width: int) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 6:  # the second layer's keys
            raise RuntimeError("no memory")
        return widen(states, width)

    first, second = prompts(model, 2)
    merged, expected = [Batch(model.forward) for _ in range(2)], [Batch(model.forward) for _ in range(2)]
    for batches in (merged, expected):
        for batch, prompt in zip(batches, (first, second), strict=True):
            batch.begin([prompt], [None])
    with monkeypatch.context() as context:
        context.setattr(module, "_widen", failing)
        with pytest.raises(RuntimeError, match="no memory"):
            merged[0].merge(merged[1])
    for batch, other in zip(merged, expected, strict=True):
        assert torch.equal(batch.step([5]), other.step([5]))


def test_rows_that_do_not_fit_into_a_batch_continue_separately(
    model: LoadedModel, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def merge(self: Batch, other: Batch) -> None:
        raise RuntimeError("no memory")

    plans = [(prompt, 12) for prompt in prompts(model, 3)]
    alone = []
    for plan in plans:
        asked = Asked(*plan)
        loop.submit([asked.row])
        alone.append(asked.tokens())
    monkeypatch.setattr(Batch, "merge", merge)
    together = [Asked(*plan) for plan in plans]
    for asked in together:
        loop.submit([asked.row])
    assert [asked.tokens() for asked in together] == alone


def test_a_device_that_has_failed_ends_the_loop_so_that_the_pod_is_restarted(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    broken = loop_with(model, Faulty(model, torch.AcceleratorError))
    runs, wrong = Asked([5, 6], 400, sampling=Sampling(temperature=0, logit_bias={2: -100.0})), Asked([POISON], 4)
    broken.submit([runs.row])
    runs.pieces.get(timeout=60)
    broken.submit([wrong.row])
    assert error_of(runs)
    assert error_of(wrong)
    broken.close()
    assert not broken.alive


def test_a_batch_that_cannot_drop_rows_fails_them_and_not_the_loop(
    model: LoadedModel, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep(self: Batch, rows: list[int]) -> None:
        raise RuntimeError("out of memory")

    first, after = Asked([5, 6], 4), Asked([5, 6], 4)
    with monkeypatch.context() as broken:
        broken.setattr(Batch, "keep", keep)
        loop.submit([first.row])
        emitted = [first.pieces.get(timeout=60), first.pieces.get(timeout=60)]
        assert emitted[1].error == "RuntimeError: out of memory"
    loop.submit([after.row])
    assert after.tokens()
    assert loop.alive


def test_no_reader_waits_after_an_error_has_ended_the_thread(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, asked = Loop(model.forward, model.decode, model.eos), Asked([5, 6], 4)
    monkeypatch.setattr(loop, "_next_rows", lambda active_rows: 1 / 0)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    loop.start()
    loop.submit([asked.row])
    assert asked.pieces.get(timeout=60).error
    loop.close()
    assert not loop.alive
    with pytest.raises(QueueFull):
        loop.submit([asked.row])


def test_a_closed_loop_refuses_rows(model: LoadedModel) -> None:
    loop = Loop(model.forward, model.decode, model.eos)
    loop.start()
    loop.close()
    with pytest.raises(QueueFull):
        loop.submit([Asked([5], 1).row])


def test_a_sliding_window_applies_within_a_batch(tmp_path: Path) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=256, sliding_window=8, initializer_range=0.3, eos_token_id=2, bos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    plain = MistralForCausalLM(config).eval()
    plain.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    model = load(tmp_path, {}, None, trust_remote_code=False)
    loop = Loop(model.forward, model.decode, model.eos)
    loop.start()
    asked = [Asked(prompt, 20) for prompt in prompts(model, 6)]
    loop.submit([request.row for request in asked])
    for request in asked:
        ids = torch.tensor([list(request.row.prompt)])
        expected = plain.generate(ids, max_new_tokens=20, do_sample=False)[0, ids.shape[1] :].tolist()
        assert request.tokens() == expected
    loop.close()


def test_a_recurrent_model_generates_a_single_row_at_a_time(tmp_path: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(
        vocab_size=512, hidden_size=32, num_hidden_layers=2, state_size=4, eos_token_id=2, pad_token_id=0
    )
    torch.manual_seed(0)
    plain = MambaForCausalLM(config).eval()
    plain.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    model = load(tmp_path, {}, None, trust_remote_code=False)
    loop = Loop(model.forward, model.decode, model.eos)
    loop.start()
    asked = [Asked(prompt, 8) for prompt in prompts(model, 3)]
    loop.submit([request.row for request in asked])
    for request in asked:
        ids = torch.tensor([list(request.row.prompt)])
        assert request.tokens() == plain.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :].tolist()
    loop.close()
