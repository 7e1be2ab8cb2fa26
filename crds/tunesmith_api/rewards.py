"""Rewards of completions, for the methods that sample them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from tunesmith_api.base import (
    ApiModel,
    FurtherDuration,
    FurtherObjectName,
    JudgeUrl,
    QuantityText,
    Rule,
    ShortText,
    TemplateText,
)
from tunesmith_api.common import ConfigMapText, FurtherModel


class RewardType(StrEnum):
    """How a completion is rewarded."""

    ACCURACY = "accuracy"
    FORMAT = "format"
    LENGTH = "length"
    MODEL = "model"
    JUDGE = "judge"
    CODE = "code"
    OVERLAP = "overlap"
    EDITS = "edits"


class Match(StrEnum):
    """When a completion has the right answer."""

    MATH = "math"
    EXACT = "exact"
    CHOICE = "choice"


class Scale(ApiModel):
    """Scores that a judge gives."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.min < self.max", "scale.min is less than scale.max: change one of them"),
    )

    min: float = Field(0.0, description="Worst score, which is a reward of 0. Default 0.")
    max: float = Field(10.0, description="Best score, which is a reward of 1. Default 10.")


class Judge(ApiModel):
    """A server with the OpenAI API whose model scores completions by a rubric."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.rubric.contains('{completion}')",
            "judge.rubric has no {completion}, so that all completions would be judged alike: write {completion} where it belongs",
        ),
    )

    url: JudgeUrl = Field(
        description="URL of the API, such as https://judge.example/v1, which podPolicy.judges must allow."
    )
    model: Annotated[str, Field(min_length=1, max_length=253)] = Field(description="Name of the model there.")
    api_key_secret: FurtherObjectName | None = Field(
        None, description="Secret in this namespace with the key api-key, which is sent to the server. Default: no key."
    )
    rubric: TemplateText = Field(
        description='What the judge is asked, such as "Rate the answer {completion} to {prompt}.": {prompt}, {completion} and columns of the '
        "row in braces. The form of its reply is added."
    )
    scale: Scale = Field(default_factory=Scale, description="Scores that the judge gives. Default 0 to 10.")
    timeout: FurtherDuration = Field("60s", description="Maximum time of a request. Default 60s.")
    retries: int = Field(
        5, ge=0, le=100, description="Further requests where one is not answered with a score. Default 5."
    )
    concurrency: int = Field(8, ge=1, le=256, description="Requests at a time of each device. Default 8.")
    max_tokens: int = Field(512, ge=1, le=131072, description="Tokens of a reply at most. Default 512.")


class RewardCode(ApiModel):
    """Python code that rewards completions, in a container without network, credentials and the model."""

    config_map: ConfigMapText = Field(
        description="ConfigMap with the code, which defines reward(prompts, completions, columns); the pods wait until it exists."
    )
    timeout: FurtherDuration = Field("60s", description="Maximum time of a call. Default 60s.")
    memory: QuantityText = Field(
        "1Gi", description="Memory of the container, of which the code can use all but 64Mi. Default 1Gi."
    )


class Reward(ApiModel):
    """A reward of completions."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("(self.type == 'format') == has(self.pattern)", "pattern goes with type: format: set it, or remove it"),
        Rule(
            "(self.type == 'length') == has(self.freeTokens)", "freeTokens goes with type: length: set it, or remove it"
        ),
        *(
            Rule(
                f"(self.type == '{type_}') == has(self.{type_})",
                f"{type_} goes with type: {type_}: set it, or remove it",
            )
            for type_ in ("model", "judge", "code")
        ),
    )

    name: Annotated[str, Field(min_length=1, max_length=63)] = Field(description="Name in logs.")
    type: RewardType = Field(
        description="accuracy (1 for the right answer), format (1 if pattern is found), length (0, down to -1), model "
        "(the score of a reward model), judge (that of a model behind an API), code (what code in a ConfigMap returns), "
        "overlap (0 to 1, the IoU of boxes) or edits (0 to 1, 1 minus the normalized edit distance)."
    )
    weight: float = Field(1.0, description="Factor in the sum of rewards. Default 1.")
    column: ShortText = Field(
        "answer",
        description="accuracy, overlap, edits: column of the rows with the right answer. Default answer.",
    )
    match: Match = Field(
        Match.MATH,
        description="accuracy: math (an equal expression), exact or choice (the letter it names). Default math.",
    )
    pattern: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        None,
        description="format: regular expression (RE2) that is searched in the completion; its . matches line breaks too.",
    )
    free_tokens: int | None = Field(
        None,
        ge=0,
        description="length: tokens up to which the reward is 0; it is -1 at maxCompletionLength.",
    )
    model: FurtherModel | None = Field(
        None,
        description="model: a model with one score, such as the artifact rewardModel of a FineTuneJob of method reward.",
    )
    judge: Judge | None = Field(None, description="judge: the server, and what it is asked.")
    code: RewardCode | None = Field(None, description="code: the code, which podPolicy.rewardCode must allow.")
