"""What models compute: the class of transformers that loads them, and the artifacts that runs publish of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tunesmith_api.method_facts import METHOD_FACTS, Head, Method
from tunesmith_api.status import ArtifactType


@dataclass(frozen=True)
class Task:
    """What a model computes of its tokens."""

    auto_class: str
    """Name of the class of transformers that loads such a model."""
    adapter_type: str
    """Name of PEFT's TaskType, by which its adapters wrap a model."""
    heads: tuple[str, ...] = ()
    """Names that architectures give to the layer in the place of the output layer; it is new in a base that writes text."""
    whole: ArtifactType | None = None
    """Type of a published model; None for language models, whose types say how they were made."""

    def artifact(self, made: ArtifactType) -> ArtifactType:
        """Return the type under which a run publishes what is a `made` (adapter, merged, model) of a language model."""
        if self.whole is None:
            return made
        return ArtifactType.TASK_ADAPTER if made is ArtifactType.ADAPTER else self.whole


LANGUAGE = Task("AutoModelForCausalLM", "CAUSAL_LM")
REWARD = Task("AutoModelForSequenceClassification", "SEQ_CLS", ("score", "classifier"), ArtifactType.REWARD_MODEL)
CLASSIFY = replace(REWARD, whole=ArtifactType.CLASSIFIER)
RERANK = replace(REWARD, whole=ArtifactType.RERANKER)
EMBED = Task("AutoModel", "FEATURE_EXTRACTION", whole=ArtifactType.EMBEDDING_MODEL)

TASKS: Mapping[Head, Task] = {
    Head.VOCABULARY: LANGUAGE,
    Head.SCORE: REWARD,
    Head.RANK: RERANK,
    Head.LABELS: CLASSIFY,
    Head.NONE: EMBED,
}


MULTIMODAL = "AutoModelForImageTextToText"
"""Name of the class of transformers that loads models with inputs beside text."""


def is_multimodal(config: Mapping[str, Any]) -> bool:
    """Return whether the model of a config.json reads images beside text: `architectures` names the class that transformers has
    for its `model_type`. Encoder-decoder models are excluded: their decoder does not continue the prompt."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    kind, names = str(config.get("model_type")), config.get("architectures")
    name = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.get(kind)
    if name is None or not isinstance(names, list) or names[:1] != [name] or config.get("is_encoder_decoder"):
        return False
    return "vision_config" in config or not str(name).endswith("ForCausalLM")


SPEECH = "AutoModelForSpeechSeq2Seq"
"""Name of the class of transformers that loads speech models."""
SPEECH_TYPES = frozenset({"whisper"})
"""Model types that write down what is spoken: an encoder reads the sound, a decoder writes the text."""


def is_speech(config: Mapping[str, Any]) -> bool:
    """Return whether the model of a config.json writes down what is spoken."""
    return config.get("model_type") in SPEECH_TYPES


def adapter_type(task: Task, config: Mapping[str, Any]) -> str | None:
    """Return the name of PEFT's TaskType for a model of a config.json; None for speech models, whose inputs PEFT's types do not have."""
    return None if task is LANGUAGE and is_speech(config) else task.adapter_type


def class_for(task: Task, config: Mapping[str, Any]) -> str:
    """Return the name of the class of transformers that loads the model of a config.json for a task."""
    if task is not LANGUAGE:
        return task.auto_class
    return SPEECH if is_speech(config) else MULTIMODAL if is_multimodal(config) else task.auto_class


def task_of(method: Method) -> Task:
    """Return the task of the models that a method trains."""
    return TASKS[METHOD_FACTS[method].head]
