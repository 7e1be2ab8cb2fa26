"""Data sets of a FineTuneJob: where the rows are, how they are read, and which of them are used."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from tunesmith_api.base import (
    ATOMIC_LIST,
    ApiModel,
    CatalogueName,
    DataUri,
    FurtherCatalogueName,
    FurtherDataUri,
    FurtherSplitText,
    Rule,
    ShortText,
    SplitText,
    TemplateText,
    exactly_one,
)
from tunesmith_api.catalogue import name_uri


class RowFormat(StrEnum):
    """Format of the rows of a data set."""

    AUTO = "auto"
    MESSAGES = "messages"
    SHAREGPT = "sharegpt"
    PROMPT_COMPLETION = "promptCompletion"
    ALPACA = "alpaca"
    TEXT = "text"
    PREFERENCE = "preference"
    PROMPT = "prompt"
    QUERY_RESPONSE = "queryResponse"
    FEEDBACK = "feedback"
    CLASSIFICATION = "classification"
    EMBEDDING = "embedding"
    VQA = "vqa"
    CAPTION = "caption"
    TRANSCRIPTION = "transcription"


class RowTemplate(ApiModel):
    """Texts of a turn, with columns in braces: "{question}". Two braces stand for a literal brace."""

    system: TemplateText | None = Field(None, description="System prompt. Default: none.")
    prompt: TemplateText = Field(description='Message of the user, such as "Translate: {source}".')
    completion: TemplateText = Field(description='Answer, such as "{target}".')


class BadRows(StrEnum):
    """Handling of rows that cannot be read."""

    FAIL = "Fail"
    DROP = "Drop"


class Droppable(StrEnum):
    """Readable rows that can be dropped."""

    DUPLICATE = "Duplicate"


class Dataset(ApiModel):
    """A data set: files of rows."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one("name", "uri"),
        Rule("!has(self.template) || self.format == 'auto'", "template goes with format: auto; remove the format"),
        Rule("!self.sample || has(self.maxRows)", "sample draws maxRows rows: set maxRows, or remove sample"),
    )

    name: CatalogueName | None = Field(
        None, description="Name in the catalogue, such as alpaca-zh, looked up as the name of a model."
    )
    uri: DataUri | None = Field(
        None,
        description="A file, a folder or names with *, such as s3://bucket/*.jsonl.gz; https://host/file; pvc://claim/path; "
        "hf://org/name@revision or ms://org/name (ModelScope). Rows are in jsonl, json, csv, tsv, parquet, arrow or txt, also with .gz or .zst.",
    )
    subset: ShortText | None = Field(
        None, description="Subset (configuration) of a data set of a hub or folder. Default: its default or only one."
    )
    split: SplitText | None = Field(
        None,
        description="Split of a data set of a hub or folder, or a part of it such as train[:90%]. Default: train of a hub, all rows of other data.",
    )
    format: RowFormat = Field(
        RowFormat.AUTO,
        description="messages ({messages: [{role, content}]}), sharegpt ({conversations: [{from, value}]}), promptCompletion ({prompt, completion}), alpaca ({instruction, input, output}), "
        "queryResponse ({query, response}), text, preference, feedback, prompt, classification, embedding, vqa, caption or transcription. Default auto: detected from the first row.",
    )
    template: RowTemplate | None = Field(
        None, description="Make each row a turn of the chat template from its columns. Default: by format."
    )
    columns: dict[str, ShortText] | None = Field(
        None, max_length=16, description="Columns to rename before the format is detected: {nameInFile: name}."
    )
    max_rows: int | None = Field(None, ge=1, description="Number of rows to use, from the first. Default: all.")
    sample: bool = Field(False, description="Draw maxRows by training.seed, not from the first. Default false.")
    weight: float | None = Field(
        None,
        gt=0,
        le=1000000,
        description="Share of the training rows, relative to the other weights: rows are repeated or left out. Default: each row once.",
    )

    @property
    def source(self) -> str:
        """The URI, or catalogue://NAME of a name that is not looked up yet."""
        return self.uri or name_uri(str(self.name))


class ValidationDataset(Dataset):
    """A data set of validation rows."""

    name: FurtherCatalogueName | None = Field(None, description="As datasets[].name.")
    uri: FurtherDataUri | None = Field(None, description="As datasets[].uri.")
    subset: ShortText | None = Field(None, description="As datasets[].subset. Default: its default or only one.")
    split: FurtherSplitText | None = Field(
        None, description="As datasets[].split. Default: train of a hub, all rows of other data."
    )
    format: RowFormat = Field(RowFormat.AUTO, description="As datasets[].format. Default auto.")
    template: RowTemplate | None = Field(None, description="As datasets[].template. Default: by format.")
    columns: dict[str, ShortText] | None = Field(None, max_length=16, description="As datasets[].columns.")
    sample: bool = Field(False, description="As datasets[].sample. Default false.")
    weight: float | None = Field(
        None, gt=0, le=1000000, description="Only of datasets, as each validation row is measured once. Default: none."
    )


class EvalDataset(ApiModel):
    """Rows of an evaluation, whose questions must not be trained on."""

    rules: ClassVar[tuple[Rule, ...]] = (exactly_one("name", "uri"),)

    name: FurtherCatalogueName | None = Field(None, description="As datasets[].name.")
    uri: FurtherDataUri | None = Field(None, description="As datasets[].uri.")
    subset: ShortText | None = Field(None, description="As datasets[].subset. Default: its default or only one.")
    split: FurtherSplitText | None = Field(
        None, description="As datasets[].split. Default: test, validation or train of a hub, all rows of other data."
    )
    columns: dict[str, ShortText] | None = Field(
        None, max_length=16, description="As datasets[].columns. A column question is read before any format."
    )

    @property
    def source(self) -> str:
        """The URI, or catalogue://NAME of a name that is not looked up yet."""
        return self.uri or name_uri(str(self.name))


class Validation(ApiModel):
    """Rows on which the validation loss is measured."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one("fraction", "uri", "datasets"),
        Rule(
            "!has(self.datasets) || !self.datasets.exists(each, has(each.weight))",
            "every row of validation.datasets is measured once: remove weight",
        ),
    )

    fraction: float | None = Field(
        None, gt=0, lt=1, description="Share of the training rows to hold out, between 0 and 1."
    )
    uri: FurtherDataUri | None = Field(None, description="URI of a separate data set, in any format of datasets.")
    datasets: list[ValidationDataset] | None = Field(
        None, min_length=1, max_length=16, description="Separate data sets.", json_schema_extra=ATOMIC_LIST
    )

    @property
    def separate(self) -> list[Dataset]:
        """The data sets that hold nothing but validation rows."""
        return [Dataset(uri=self.uri)] if self.uri else [*(self.datasets or ())]
