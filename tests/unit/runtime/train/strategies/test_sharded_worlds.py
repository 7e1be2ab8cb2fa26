"""Processes of one pod that divide a model: what they compute, save and publish equals what a single process does."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tests.unit.runtime.train.methods.preferences import feedback, preferences
from tests.unit.runtime.train.methods.samples import PROMPTS, VOWEL
from tests.unit.runtime.train.methods.texts import labelled, pairs
from tests.unit.runtime.train.support import Run, again, make_run
from tests.unit.runtime.train.test_best import noise as random_answers
from tests.unit.runtime.train.world.test_world import FP32, curve, losses
from tests.unit.runtime.train.worlds import tensors_of, train_together
from tunesmith_api.compatibility import refusals
from tunesmith_api.run import ModelRole, Outcome, RunReport
from tunesmith_runtime import train

ROWS = tinymodel.rows(90, seed=1)
LAYOUTS: dict[str, dict[str, Any]] = {
    **{strategy: {"strategy": strategy} for strategy in ("fsdp", "zero1", "zero2", "zero3")},
    "fsdp offload": {"strategy": "fsdp", "offload": "all"},
    "zero1 offload": {"strategy": "zero1", "offload": "optimizer"},
    "zero2 offload": {"strategy": "zero2", "offload": "optimizer"},
    "zero3 offload": {"strategy": "zero3", "offload": "all"},
    "tensor": {"tensorParallel": 2},
    "pipeline": {"pipelineParallel": 2},
    "context": {"contextParallel": 2},
}
"""Ways to divide a model: spec.parallelism."""
TOLERANCE = 2e-5
"""Of losses: gradients of two processes are summed in another order."""
EXACT = 1e-5
"""Of validation losses: each token counts once."""


def trained(run: Run, **options: Any) -> RunReport:
    """Train and return the report of process 0."""
    ended = train_together(run, **options)[0]
    assert ended.report, ended
    return ended.report


def divided(layout: str) -> dict[str, Any]:
    return {"parallelism": LAYOUTS[layout]}


def combinations(others: tuple[str, ...], quick: set[tuple[str, str]]) -> list[Any]:
    """Each layout with each of `others` as parameters; all but the quick ones are deep, as a world takes many seconds to start."""
    return [
        pytest.param(layout, other, marks=() if (layout, other) in quick else pytest.mark.deep)
        for layout in LAYOUTS
        for other in others
    ]


Alone = Callable[[str], tuple[Run, RunReport]]
TWICE = {**FP32, "epochs": 2, "maxGradNorm": 0.1}
HELD_OUT = {"validation": {"fraction": 0.2}}


@pytest.fixture(scope="module")
def alone(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """The run of a single process, by the tuner."""

    @cache
    def run(tuner: str) -> tuple[Run, RunReport]:
        made = make_run(tmp_path_factory.mktemp("alone"), tiny, ROWS, TWICE, tuner=tuner, **HELD_OUT)
        return made, trained(made, processes=1)

    return run


@pytest.mark.parametrize(
    ("layout", "tuner"),
    combinations(
        ("full", "lora"),
        {("fsdp", "lora"), ("zero2", "full"), ("tensor", "lora"), ("pipeline", "full"), ("context", "lora")},
    ),
)
def test_two_processes_that_divide_the_model_compute_the_steps_of_one(
    alone: Alone, tiny: Path, tmp_path: Path, layout: str, tuner: str
) -> None:
    """The artifact has the same tensors, whole, and the validation loss is the same."""
    run = make_run(tmp_path, tiny, ROWS, TWICE, tuner=tuner, **HELD_OUT, **divided(layout))
    assert_equal(run, trained(run), *alone(tuner))


def test_deepspeed_compiles_nothing(tiny: Path, tmp_path: Path) -> None:
    settings = {**FP32, "globalBatchSize": 8, "maxSteps": 1}
    run = make_run(tmp_path, tiny, ROWS[:16], settings, tuner="full", **divided("zero1 offload"))
    assert trained(run, patch=partial(compile_in, str(tmp_path / "extensions"))).outcome is Outcome.SUCCEEDED
    assert [*(tmp_path / "extensions").glob("**/*")] == []


def compile_in(folder: str) -> None:
    """In a process of a world: let torch compile extensions in a folder of the test."""
    os.environ["TORCH_EXTENSIONS_DIR"] = folder


@pytest.mark.deep
@pytest.mark.parametrize("lora", [{"modulesToSave": ["embed_tokens"], "plusRatio": 4}, {"init": "pissa"}], ids=str)
@pytest.mark.parametrize("strategy", ["zero1", "fsdp", "zero2", "zero3"])
def test_options_of_lora_are_published_whole_of_divided_models(
    tiny: Path, tmp_path: Path, strategy: str, lora: dict[str, Any]
) -> None:
    settings, spec = {**FP32, "epochs": 1, "maxGradNorm": 0.1}, {"lora": {"rank": 4, **lora}}
    expected = trained(make_run(tmp_path / "one", tiny, ROWS, settings, **spec), processes=1)
    ours = tensors_of(trained(make_run(tmp_path / "two", tiny, ROWS, settings, **spec, **divided(strategy))))
    theirs = tensors_of(expected)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.shape == theirs[name].shape
        assert float((tensor - theirs[name]).abs().max()) < 2e-3, name


@pytest.mark.deep
@pytest.mark.parametrize("tuner", ["full", "lora"])
@pytest.mark.parametrize("layout", ["tensor", "pipeline", "context"])
def test_two_groups_that_share_layers_compute_the_steps_of_one_process(
    alone: Alone, tiny: Path, tmp_path: Path, layout: str, tuner: str
) -> None:
    run = make_run(tmp_path, tiny, ROWS, TWICE, tuner=tuner, **HELD_OUT, **divided(layout))
    assert_equal(run, trained(run, processes=4), *alone(tuner))


@pytest.mark.deep
@pytest.mark.parametrize("tuner", ["full", "lora"])
def test_a_bias_of_outputs_that_are_summed_counts_once(tiny: Path, tmp_path: Path, tuner: str) -> None:
    model = with_biases(tiny, tmp_path / "model")
    one, two = (
        make_run(tmp_path / name, model, ROWS, TWICE, tuner=tuner, **HELD_OUT, **spec)
        for name, spec in (("one", {}), ("two", divided("tensor")))
    )
    expected = trained(one, processes=1)
    assert_equal(two, trained(two), one, expected)


def with_biases(model: Path, folder: Path) -> Path:
    """Save the model with biases in all linear layers of attention."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(model, attention_bias=True)
    made = AutoModelForCausalLM.from_pretrained(model, config=config)
    for name, weight in made.named_parameters():
        if name.endswith(".bias"):
            weight.data = torch.linspace(-0.5, 0.5, len(weight))
    made.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


def assert_equal(run: Run, report: RunReport, other: Run, expected: RunReport) -> None:
    """Losses, norms of gradients, tokens and tensors of a run are those of the other one."""
    assert losses(run) == pytest.approx(losses(other), abs=TOLERANCE)
    ours, theirs = ([value for _, value in curve(each, "grad_norm")] for each in (run, other))
    assert ours == pytest.approx(theirs, rel=1e-3)
    assert report.metrics
    assert expected.metrics
    assert report.metrics.tokens == expected.metrics.tokens
    assert report.metrics.eval_loss == pytest.approx(expected.metrics.eval_loss, abs=EXACT)
    tensors, others = tensors_of(report), tensors_of(expected)
    assert tensors
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert tensor.shape == others[name].shape
        assert float((tensor - others[name]).abs().max()) < 2e-3, name


GROUPS = {"numGenerations": 4, "maxCompletionLength": 6, "stepsPerRollout": 2}
METHODS: dict[str, list[dict[str, Any]]] = {
    "pretrain": [{"text": row["messages"][1]["content"] + row["messages"][0]["content"]} for row in ROWS],
    **dict.fromkeys(("dpo", "orpo", "simpo", "cpo", "reward"), preferences(22)),
    "kto": feedback(44),
    "classify": labelled(22),
    "embed": pairs(22, negatives=True),
    **dict.fromkeys(("grpo", "rloo", "ppo"), PROMPTS[:7]),
    "gkd": ROWS[:22],
}
"""Rows by method. The last step of an epoch lacks rows."""
BLOCKS: dict[str, dict[str, Any]] = {
    **{method: {method: GROUPS, "rewards": [VOWEL]} for method in ("grpo", "rloo")},
    "ppo": {"ppo": {"maxCompletionLength": 6, "epochs": 2, "minibatches": 1}, "rewards": [VOWEL]},
    "gkd": {"gkd": {"teacher": {"uri": "s3://models/teacher"}, "maxCompletionLength": 6}},
}
OFFLOADED = {"dpo", "grpo"}
"""Methods that are tested with what is offloaded: one that compares, and one that samples."""
FIGURES = ("reward", "kl", "value_loss", "rewards/margins", "accuracy", "recall")
"""What methods log beside the loss."""
Copies = Callable[[str, str], tuple[Run, RunReport]]


@pytest.fixture(scope="module")
def copies(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Copies:
    """The run of two processes that have whole models, by method and tuner."""

    @cache
    def run(method: str, tuner: str) -> tuple[Run, RunReport]:
        made = run_of(tmp_path_factory.mktemp("copies"), tiny, method, tuner, {"strategy": "ddp"})
        return made, trained(made)

    return run


def run_of(folder: Path, model: Path, method: str, tuner: str, parallelism: dict[str, Any], epochs: int = 1) -> Run:
    settings = {**FP32, "globalBatchSize": 8, "epochs": epochs}
    if method == "embed" and "tensorParallel" in parallelism:
        settings["microBatchSize"] = 8  # the rows that are compared, here on the devices of one group
    spec = {"method": method, "tuner": tuner, "parallelism": parallelism, **BLOCKS.get(method, {})}
    run = make_run(folder / "run", model, METHODS[method], settings, **spec)
    if method == "gkd":
        run.work.model(ModelRole.TEACHER).symlink_to(tinymodel.make_model(folder / "teacher", seed=5))
    return run


def methods_by_layout() -> list[Any]:
    """Each method with each layout, as far as the table admits them. All but one are deep."""
    quick = {("fsdp", "grpo", "lora")}
    found = [
        (layout, method, tuner)
        for layout, parallelism in LAYOUTS.items()
        for method in METHODS
        for tuner in ("full", "lora")
        if not refusals("FineTuneJob", {"method": method, "tuner": tuner, "parallelism": parallelism})
        and (method in OFFLOADED or "offload" not in parallelism)
    ]
    return [pytest.param(*each, marks=() if each in quick else pytest.mark.deep) for each in found]


@pytest.mark.parametrize(("layout", "method", "tuner"), methods_by_layout())
def test_every_method_computes_the_steps_of_two_whole_models(
    copies: Copies, tiny: Path, tmp_path: Path, layout: str, method: str, tuner: str
) -> None:
    run, (other, expected) = run_of(tmp_path, tiny, method, tuner, LAYOUTS[layout]), copies(method, tuner)
    assert_equal(run, trained(run), other, expected)
    for figure in FIGURES:
        ours, theirs = ([value for _, value in curve(each, figure)] for each in (run, other))
        assert ours == pytest.approx(theirs, abs=1e-4), figure


CONTINUED: list[tuple[str, str, dict[str, Any]]] = [
    ("tensor", "dpo", {}),
    ("fsdp", "dpo", {"modulesToSave": ["embed_tokens"]}),
    ("fsdp", "rloo", {}),
    ("fsdp", "ppo", {}),
    ("fsdp offload", "dpo", {}),
    ("zero1", "dpo", {}),
    ("zero2", "dpo", {"modulesToSave": ["embed_tokens"]}),
    ("tensor", "sft", {}),
    ("zero3", "sft", {}),
]
"""Layout, method and further settings of an adapter that processes go on with. The first is no deep test."""


@pytest.mark.parametrize(
    ("layout", "method", "options"),
    [
        pytest.param(*each, id=" ".join(each[:2]), marks=pytest.mark.deep if at else ())
        for at, each in enumerate(CONTINUED)
    ],
)
def test_processes_that_divide_a_model_go_on_with_an_adapter(
    tiny: Path, tmp_path: Path, layout: str, method: str, options: dict[str, Any]
) -> None:
    """The reference of dpo is the base with the adapter as it was, of which each process has a part too."""
    lora = {"rank": 4, **options}
    first = make_run(tmp_path / "first", tiny, ROWS, {**FP32, "epochs": 2}, lora=lora)
    first.do(train.run)
    rows = METHODS.get(method, ROWS)
    settings, initial = {**FP32, "globalBatchSize": 8, "epochs": 1}, first.work.run / "adapter"
    spec = {"method": method, "lora": {**lora, "from": {"fineTuneJob": {"name": "first"}}}, **BLOCKS.get(method, {})}
    one, two = (
        make_run(tmp_path / name, tiny, rows, settings, initial, **spec, **parallelism)
        for name, parallelism in (("one", {}), ("two", divided(layout)))
    )
    expected = trained(one, processes=1)
    assert_equal(two, trained(two), one, expected)
    if method == "dpo":
        assert losses(two)[0] == pytest.approx(math.log(2), abs=1e-4)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("layout", "method"), [("fsdp", "grpo"), ("zero3", "ppo"), ("zero2", "gkd"), ("tensor", "rloo")]
)
def test_a_divided_world_goes_on_within_a_rollout(tiny: Path, tmp_path: Path, layout: str, method: str) -> None:
    """It learns from the completions that were sampled before it stopped, with the value head of that time."""
    whole, run = (
        run_of(tmp_path / name, tiny, method, "lora", LAYOUTS[layout], epochs=4) for name in ("whole", "stopped")
    )
    expected = trained(whole)
    assert trained(run, stop_at=3).outcome is Outcome.PREEMPTED
    resumed = again(run, tiny, METHODS[method], 2)
    if method == "gkd":
        resumed.work.model(ModelRole.TEACHER).symlink_to(run.work.model(ModelRole.TEACHER))
    report = trained(resumed)
    assert report.resumed_from_step
    for figure in ("loss", *FIGURES):
        assert curve(run, figure) == curve(whole, figure)
    assert report.artifacts
    assert expected.artifacts
    assert report.artifacts[0].digest == expected.artifacts[0].digest


SETTINGS: dict[str, tuple[dict[str, Any], float]] = {
    "bf16": ({**FP32, "precision": "bf16", "epochs": 2}, 0.05),
    "packing": ({"precision": "fp32", "packing": True, "globalBatchSize": 4, "microBatchSize": 1}, TOLERANCE),
    "streaming": ({**FP32, "streaming": True, "epochs": None, "maxSteps": 8}, TOLERANCE),
    "checkpointing": ({**FP32, "gradientCheckpointing": True}, TOLERANCE),
}
"""Settings that change how a step is computed, and the tolerance of its loss: ZeRO rounds weights to bfloat16."""


@pytest.mark.deep
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("layout", ["fsdp", "zero1", "zero2", "zero3", "tensor", "pipeline", "context"])
def test_settings_of_a_step_are_those_of_two_whole_models(
    tiny: Path, tmp_path: Path, layout: str, setting: str
) -> None:
    training, tolerance = SETTINGS[setting]
    whole = make_run(tmp_path / "whole", tiny, ROWS, training, tuner="full", parallelism={"strategy": "ddp"})
    trained(whole)
    run = make_run(tmp_path / "parts", tiny, ROWS, training, tuner="full", **divided(layout))
    trained(run)
    assert losses(run) == pytest.approx(losses(whole), abs=tolerance)
    assert losses(run)[-1] < losses(run)[0] - 0.5


STOPPED_AT = 7
LONG: dict[str, Any] = {**FP32, "epochs": 4}
WITH_DROPOUT: dict[str, Any] = {"lora": {"dropout": 0.1}, "validation": {"fraction": 0.1}}


@pytest.mark.parametrize(("layout", "tuner"), combinations(("full", "lora"), {("fsdp", "lora")}))
def test_a_stopped_world_resumes_to_the_bit(tiny: Path, tmp_path: Path, layout: str, tuner: str) -> None:
    spec = {**(WITH_DROPOUT if tuner == "lora" else {}), "tuner": tuner, **divided(layout)}
    whole = make_run(tmp_path / "whole", tiny, ROWS, LONG, **spec)
    expected = trained(whole)
    run = make_run(tmp_path / "parts", tiny, ROWS, LONG, **spec)
    stopped = trained(run, stop_at=STOPPED_AT)
    assert stopped.outcome is Outcome.PREEMPTED
    assert stopped.last_checkpoint
    report = trained(again(run, tiny, ROWS, 2))
    assert report.resumed_from_step == stopped.last_checkpoint.step
    assert curve(run) == curve(whole)
    assert curve(run, "eval_loss") == curve(whole, "eval_loss")
    assert report.artifacts
    assert expected.artifacts
    assert report.artifacts[0].digest == expected.artifacts[0].digest


@pytest.mark.parametrize(("layout", "other"), combinations(("ddp", "one"), {("fsdp", "one")}))
def test_another_world_goes_on_with_the_checkpoint_of_two(tiny: Path, tmp_path: Path, layout: str, other: str) -> None:
    """The losses go on as if nothing had happened: weights, moments and the learning rate are those of the checkpoint."""
    whole = make_run(tmp_path / "whole", tiny, ROWS, LONG, tuner="full", **divided(layout))
    trained(whole)
    run = make_run(tmp_path / "parts", tiny, ROWS, LONG, tuner="full", **divided(layout))
    trained(run, stop_at=STOPPED_AT)
    resumed = again(run, tiny, ROWS, 2)
    if other == "ddp":
        resumed.spec.spec["parallelism"] |= {
            "strategy": "ddp",
            "tensorParallel": 1,
            "pipelineParallel": 1,
            "contextParallel": 1,
        }
    report = trained(resumed, processes=1 if other == "one" else 2)
    assert report.resumed_from_step
    assert losses(run) == pytest.approx(losses(whole), abs=1e-4)


@pytest.mark.parametrize(("layout", "tuner"), combinations(("full", "lora"), {("fsdp", "full")}))
def test_the_best_weights_of_a_divided_model_are_published(tiny: Path, tmp_path: Path, layout: str, tuner: str) -> None:
    """They equal the last weights of a world that trains up to the best step; the schedule does not depend on the steps."""
    settings = {**FP32, "globalBatchSize": 8, "epochs": 12, "scheduler": "constant", "warmupRatio": 0}
    settings["learningRate"] = 2e-2 if tuner == "lora" else 3e-3
    spec = {"tuner": tuner, "validation": {"fraction": 0.25}, **divided(layout)}
    rows = random_answers(48, seed=3)
    best = trained(make_run(tmp_path / "best", tiny, rows, settings, export={"weights": "best"}, **spec))
    assert best.metrics
    assert best.metrics.best_step
    assert best.metrics.steps
    assert best.metrics.best_step < best.metrics.steps
    until_best = trained(
        make_run(tmp_path / "last", tiny, rows, {**settings, "maxSteps": best.metrics.best_step}, **spec)
    )
    assert best.artifacts
    assert until_best.artifacts
    assert best.artifacts[0].digest == until_best.artifacts[0].digest


TOKENS = [[5, 80, 300, 41, 7, 7, 200]]


RELOADED: dict[str, tuple[str, dict[str, Any]]] = {
    **{method: (method, {}) for method in ("sft", "reward", "classify", "embed")},
    "sft with embeddings": ("sft", {"lora": {"modulesToSave": ["embed_tokens"]}}),
}
"""Method, and options of the tuner."""


@pytest.mark.parametrize(
    ("layout", "case"),
    [
        each
        for each in combinations(tuple(RELOADED), {("zero3", "reward")})
        if each.values[0] not in ("pipeline", "context")  # whose processes give no logits of whole rows
        and each.values != ("tensor", "sft with embeddings")  # which the table refuses
    ],
)
def test_a_reloaded_adapter_has_the_logits_of_the_divided_model(
    tiny: Path, tmp_path: Path, layout: str, case: str
) -> None:
    """Every saved tensor is whole, also that of a head or an embedding, which is trained beside the adapter."""
    method, options = RELOADED[case]
    rows = METHODS.get(method, ROWS)[:16]
    settings = {**FP32, "globalBatchSize": 8, "epochs": 1}
    run = make_run(tmp_path / "run", tiny, rows, settings, method=method, **options, **divided(layout))
    report = trained(run, patch=partial(record_logits, str(tmp_path / "logits")))
    assert all(tensor.numel() for tensor in tensors_of(report).values())
    assert float((loaded_logits(report, tiny, method) - recorded(tmp_path / "logits")).abs().max()) < 1e-5


def record_logits(path: str) -> None:
    """In a process of a world: write the logits of the model as it is divided, after the last step."""
    import torch

    from tunesmith_runtime.train.strategies import STRATEGIES, Strategy

    def recording(make_whole: Callable[[Any, Any, bool], None]) -> Callable[[Any, Any, bool], None]:
        def record(strategy: Strategy, model: Any, keep: bool) -> None:
            with torch.no_grad():
                logits = model.eval()(input_ids=torch.tensor(TOKENS))[0]
            if keep:
                torch.save(logits, path)
            make_whole(strategy, model, keep)

        return record

    for kind in {type(each): None for each in STRATEGIES.values()}:
        setattr(kind, "make_whole", recording(kind.make_whole))  # noqa: B010


def recorded(path: Path) -> Any:
    import torch

    return torch.load(path, weights_only=True)


def loaded_logits(report: RunReport, base: Path, method: str) -> Any:
    """Return the logits of the published adapter on its base, loaded in this process; of an embedding model the hidden states."""
    import torch
    from peft import PeftModel
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

    assert report.artifacts
    folder = Path(report.artifacts[0].uri.removeprefix("file://"))
    loader = {"sft": AutoModelForCausalLM, "embed": AutoModel}.get(method, AutoModelForSequenceClassification)
    config = {} if method == "sft" else {"config": AutoConfig.from_pretrained(folder)}
    with torch.no_grad():
        model = PeftModel.from_pretrained(loader.from_pretrained(base, **config), folder).eval()
        return model(input_ids=torch.tensor(TOKENS))[0]


LAYOUTS_OF_TWO_ROWS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "one batch": (1, 2, {}),
    "accumulated": (1, 1, {}),
    **{layout: (2, 1, parallelism) for layout, parallelism in {"ddp": {"strategy": "ddp"}, **LAYOUTS}.items()},
}
"""Processes, rows of a forward pass, and spec.parallelism."""


@pytest.mark.parametrize(
    ("layout", "method"),
    [
        pytest.param(
            layout,
            method,
            marks=() if (layout, method) in {("accumulated", "sft"), ("ddp", "sft")} else pytest.mark.deep,
        )
        for layout in list(LAYOUTS_OF_TWO_ROWS)[1:]
        for method in ("sft", "pretrain")
    ],
)
def test_the_gradient_of_a_step_does_not_depend_on_how_its_rows_are_spread(
    gradient: Callable[[str, str], dict[int, Any]], layout: str, method: str
) -> None:
    """One row has few tokens to learn and the other many: each token counts the same."""
    expected, found = gradient("one batch", method), gradient(layout, method)
    assert found.keys() == expected.keys()
    for index, value in found.items():
        assert float((value - expected[index]).abs().max()) < 1e-5, index


@pytest.fixture(scope="module")
def gradient(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], dict[int, Any]]:
    """The gradient of the first step by layout and method, from the first moment of AdamW."""
    import torch

    words = " ".join(
        f"{word} {category}" for word, category in zip("abcdefghijklmnop", "qrstuvwxyzabcdef", strict=True)
    )

    @cache
    def of(layout: str, method: str) -> dict[int, Any]:
        processes, size, parallelism = LAYOUTS_OF_TWO_ROWS[layout]
        folder = tmp_path_factory.mktemp("rows")
        answers = ("tin", f"{words} {words} {words}")
        chats = [
            {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]}
            for answer in answers
        ]
        rows = chats if method == "sft" else [{"text": answer} for answer in answers]
        settings = {"precision": "fp32", "globalBatchSize": 2, "microBatchSize": size, "maxSteps": 2, "epochs": 2}
        settings |= {"maxLength": 256, "maxGradNorm": 1000}
        spec = {"tuner": "full", "method": method, "parallelism": parallelism, "checkpoint": {"everySteps": 1}}
        run = make_run(folder, tiny, rows, settings, **spec)
        trained(run, processes=processes)
        run.directory.fetch_checkpoint(1, folder / "checkpoint")
        state = torch.load(folder / "checkpoint" / "optimizer.pt", weights_only=True)["state"]
        return {index: values["exp_avg"] / 0.1 for index, values in state.items()}

    return of
