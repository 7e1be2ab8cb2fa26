"""Tuners of a FineTuneJob: which weights are trained, and the settings of adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from tunesmith_api.base import SET_LIST, ApiModel, Rule, ShortText
from tunesmith_api.common import AdapterSource


class Tuner(StrEnum):
    """Choice of the trained weights."""

    LORA = "lora"
    FULL = "full"
    QLORA = "qlora"
    DORA = "dora"
    ADALORA = "adalora"
    OFT = "oft"
    LOHA = "loha"
    LOKR = "lokr"
    VERA = "vera"
    IA3 = "ia3"
    MISS = "miss"
    PROMPT = "prompt"


class LoraInit(StrEnum):
    """Values with which a new adapter begins."""

    DEFAULT = "default"
    GAUSSIAN = "gaussian"
    PISSA = "pissa"
    OLORA = "olora"
    EVA = "eva"
    LOFTQ = "loftq"

    @property
    def changes_base(self) -> bool:
        """Whether the adapter begins with a part of the base's weights, which is subtracted from the base while it trains."""
        return self in (LoraInit.PISSA, LoraInit.OLORA)

    @property
    def has_effect(self) -> bool:
        """Whether the adapter begins with an update, which is subtracted from what is published."""
        return self.changes_base or self is LoraInit.LOFTQ

    @property
    def is_computed(self) -> bool:
        """Whether the values follow from the weights of the layers, or from their inputs."""
        return self.has_effect or self is LoraInit.EVA


class Lora(ApiModel):
    """Adapters, such as low-rank adaptation (Hu et al., 2021)."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.targetModules) || !has(self.targetPattern)",
            "targetModules and targetPattern both choose the layers: remove one of them",
        ),
        Rule(
            "!has(self.from) || (self.init == 'default' && !has(self.targetPattern)"
            " && !has(self.modulesToSave) && !has(self.trainableTokens))",
            "the adapter of from has its layers, modules and tokens already: remove init, targetPattern, modulesToSave and trainableTokens",
        ),
    )

    rank: int = Field(16, ge=1, le=1024, description="Rank r of the update. Default 16.")
    alpha: int = Field(32, ge=1, le=4096, description="Scale: the update is multiplied by alpha / rank. Default 32.")
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Dropout on the adapter's input; with loha and lokr, of rows of the update. Default 0.",
    )
    target_modules: list[ShortText] | None = Field(
        None,
        max_length=64,
        description="Names of the linear layers to adapt. Default: all except the output head.",
        json_schema_extra=SET_LIST,
    )
    target_pattern: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        None,
        description="Regular expression that the whole names of the linear layers to adapt match, such as "
        r"model\.layers\.[0-7]\..*_proj, instead of targetModules.",
    )
    modules_to_save: list[ShortText] | None = Field(
        None,
        min_length=1,
        max_length=16,
        description="Modules that are trained as a whole beside the adapter, such as embed_tokens, lm_head or norm. Default: none.",
        json_schema_extra=SET_LIST,
    )
    trainable_tokens: list[ShortText] | None = Field(
        None,
        min_length=1,
        max_length=256,
        description="Tokens of the vocabulary whose embeddings are trained beside the adapter. Default: none.",
        json_schema_extra=SET_LIST,
    )
    init: LoraInit = Field(
        LoraInit.DEFAULT,
        description="Values to begin with: default (Kaiming), gaussian, pissa (Meng et al., 2024), olora (Büyükakyüz, 2024), eva (Paischer et al., "
        "2024) or, with tuner qlora, loftq (Li et al., 2023). Default default.",
    )
    plus_ratio: float | None = Field(
        None,
        ge=1,
        le=1000,
        description="LoRA+ (Hayou et al., 2024): factor of the learning rate of the matrices B, such as 16. Default: 1.",
    )
    use_rslora: bool = Field(False, description="Scale by alpha / sqrt(rank) (Kalajdzievski, 2023). Default false.")
    from_: AdapterSource | None = Field(
        None,
        alias="from",
        description="Adapter from which training continues, of the same tuner, rank, alpha and base. Its layers are the default of targetModules. "
        "Default: a new adapter.",
    )


class BaseQuantization(StrEnum):
    """Number format of the frozen weights that an adapter is trained beside."""

    NF4 = "nf4"
    INT8 = "int8"
    HQQ = "hqq"


class Qlora(ApiModel):
    """Quantization of the base while an adapter is trained (Dettmers et al., 2023)."""

    quantization: BaseQuantization = Field(
        BaseQuantization.NF4, description="nf4 (4 bits), int8 (8 bits, LLM.int8) or hqq. Default nf4."
    )
    double_quantization: bool = Field(
        True, description="With nf4: quantize the scales too, which saves 0.37 bits a weight. Default true."
    )


class AdaLora(ApiModel):
    """Ranks of tuner adalora (Zhang et al., 2023): each layer begins with initialRank, and lora.rank remains on average."""

    initial_rank: int | None = Field(
        None, ge=2, le=1024, description="Rank of each layer at the start. Default: one and a half times lora.rank."
    )
    initial_steps: int | None = Field(
        None, ge=0, description="Steps before ranks are reduced. Default: a tenth of the steps."
    )
    final_steps: int | None = Field(
        None, ge=0, description="Steps at the end, with ranks that stay. Default: three tenths of the steps."
    )
    every_steps: int = Field(1, ge=1, description="Steps between two reductions. Default 1.")

    def initial_rank_for(self, rank: int) -> int:
        """Return the rank of each layer at the start, if lora.rank is `rank`."""
        return self.initial_rank or max(rank + 1, 3 * rank // 2)


class PromptTuning(ApiModel):
    """Virtual tokens of tuner prompt (Lester et al., 2021)."""

    tokens: int = Field(20, ge=1, le=1024, description="Virtual tokens before each row. Default 20.")
    text: Annotated[str, Field(min_length=1, max_length=4096)] | None = Field(
        None,
        description="Text whose embeddings they begin with, repeated or cut to their number. Default: tokens drawn by the seed.",
    )


@dataclass(frozen=True)
class TunerFacts:
    """What the API, the operator and the runtime have to know about a tuner."""

    learning_rate: float
    """Default of training.learningRate."""
    settings: type[ApiModel] | None = None
    """Type of the block of its own settings, which a spec has under the name of the tuner."""
    adapts_layers: bool = True
    """Whether it adds an adapter to linear layers, whose settings are in the block lora."""
    is_lora: bool = False
    """Whether the adapter is one of LoRA: it may begin with chosen values, and may train parts of the model beside it."""
    trains_head: bool = True
    """Whether a new head is trained beside it."""
    is_divided: bool = False
    """Whether devices can divide the weights that it trains."""
    is_served: bool = False
    """Whether engines serve its adapter beside a base."""


TUNER_FACTS: Mapping[Tuner, TunerFacts] = {
    Tuner.LORA: TunerFacts(1e-4, is_lora=True, is_divided=True, is_served=True),
    Tuner.FULL: TunerFacts(1e-5, adapts_layers=False, is_divided=True),
    Tuner.QLORA: TunerFacts(1e-4, Qlora, is_lora=True, trains_head=False, is_served=True),
    Tuner.DORA: TunerFacts(1e-4, is_lora=True),
    Tuner.ADALORA: TunerFacts(1e-3, AdaLora, trains_head=False),
    Tuner.OFT: TunerFacts(1e-4),
    Tuner.LOHA: TunerFacts(1e-4),
    Tuner.LOKR: TunerFacts(1e-4),
    Tuner.VERA: TunerFacts(1e-3),
    Tuner.IA3: TunerFacts(1e-3),
    Tuner.MISS: TunerFacts(1e-4),
    Tuner.PROMPT: TunerFacts(1e-2, PromptTuning, adapts_layers=False),
}
"""The tuners of this version, in the order of the enumeration."""


def tuners_where(fact: Callable[[TunerFacts], bool]) -> tuple[Tuner, ...]:
    """Return the tuners of which a fact is true."""
    return tuple(tuner for tuner, facts in TUNER_FACTS.items() if fact(facts))
