"""Entries of a catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

HUBS: Mapping[str, str] = {"huggingface": "hf", "modelscope": "ms"}
"""Name of a hub -> the scheme of its URIs."""


class Modality(StrEnum):
    """What a model reads and writes."""

    TEXT = "text"
    MULTIMODAL = "multimodal"
    """Text with pictures, video or sound."""
    IMAGE = "image"
    """Draws pictures."""


class ModelTask(StrEnum):
    """What a model is for."""

    CHAT = "chat"
    BASE = "base"
    """Pretrained only: to be tuned, not to be talked to."""
    REWARD = "reward"
    EMBEDDING = "embedding"
    RERANKER = "reranker"
    ENCODER = "encoder"
    """A pretrained encoder, to be tuned as a classifier or an embedding."""
    VISION = "vision"
    AUDIO = "audio"
    VIDEO = "video"
    OMNI = "omni"
    """Pictures, video and sound in a single model."""
    DIFFUSION = "diffusion"
    CAPTIONING = "captioning"
    TAGGER = "tagger"


class DatasetTask(StrEnum):
    """What a data set teaches."""

    SFT = "sft"
    PRETRAIN = "pretrain"
    PREFERENCE = "preference"
    FEEDBACK = "feedback"
    REWARDS = "rewards"
    """Prompts whose answers are scored."""
    EMBEDDING = "embedding"
    RERANKER = "reranker"
    VISION = "vision"
    AUDIO = "audio"
    VIDEO = "video"


@dataclass(frozen=True, slots=True)
class Entry:
    """The fields that models and data sets have in common."""

    name: str
    huggingface: str | None = None
    """ORG/NAME on Hugging Face."""
    modelscope: str | None = None
    """ORG/NAME on ModelScope."""
    uri: str | None = None
    """Place of an entry of a user's own, instead of the hubs."""
    tags: tuple[str, ...] = ()

    @property
    def hubs(self) -> list[str]:
        """The hubs that have it."""
        return [hub for hub in HUBS if getattr(self, hub)]

    def uris(self, order: Sequence[str] = tuple(HUBS)) -> list[str]:
        """Return the URIs of its content: its own, or those on the hubs that are named in `order`, in this order."""
        if self.uri:
            return [self.uri]
        return [f"{HUBS[hub]}://{getattr(self, hub)}" for hub in order if hub in self.hubs]


@dataclass(frozen=True, slots=True)
class ModelEntry(Entry):
    """A model."""

    family: str = ""
    """Models with the same architecture and chat template."""
    modality: Modality = Modality.TEXT
    task: ModelTask = ModelTask.CHAT
    needs: tuple[str, ...] = ()
    """Packages that its publisher names, as requirements of pip."""


@dataclass(frozen=True, slots=True)
class DatasetEntry(Entry):
    """A data set."""

    task: DatasetTask = DatasetTask.SFT
    subsets: tuple[str, ...] = ()
    """Subsets on the hub. The first is the default; none: the hub's own default."""
    split: str | None = None
    """The split on the hub, or in the folder; None: the default of spec.datasets[].split."""
    rows: int | None = None
    """Rows of all subsets together, where known."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Columns to rename: {nameInFile: name}."""
    format: str | Mapping[str, str] | None = None
    """Name of a row format, or a template of columns as spec.datasets[].template; None: detected from the first row."""
    validation_uri: str | None = None
    """Rows to validate on."""

    @property
    def subset(self) -> str | None:
        """The subset that is read by default; None for the hub's own."""
        return self.subsets[0] if self.subsets and self.subsets[0] != "default" else None
