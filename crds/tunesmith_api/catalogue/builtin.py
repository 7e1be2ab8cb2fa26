"""The built-in catalogue.

`=` in the column modelscope stands for the same id as on Hugging Face. Lists are separated by commas, requirements by a comma
and a space (a comma alone separates the bounds of one requirement), renamed columns by spaces: nameInFile=name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from tunesmith_api.catalogue.entries import DatasetEntry, DatasetTask, Modality, ModelEntry, ModelTask

FOLDER = Path(__file__).parent
_TASKS = {str(task): task for task in ModelTask}
_DATASET_TASKS = {str(task): task for task in DatasetTask}
_MODALITIES = {str(modality): modality for modality in Modality}


@cache
def models() -> Mapping[str, ModelEntry]:
    """The models by name, in the order of families."""
    return {row["name"]: _model(row) for row in _rows("models.tsv")}


@cache
def datasets() -> Mapping[str, DatasetEntry]:
    """The data sets by name."""
    return {row["name"]: _dataset(row) for row in _rows("datasets.tsv")}


def _rows(file: str) -> Iterator[dict[str, str]]:
    header, *lines = (FOLDER / file).read_text(encoding="utf-8").splitlines()
    columns = header.split("\t")
    for number, line in enumerate(lines, start=2):
        values = line.split("\t")
        if len(values) != len(columns):
            raise ValueError(f"{file} line {number}: {len(values)} columns; expected {len(columns)}")
        yield dict(zip(columns, values, strict=True))


def _ids(row: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Ids on Hugging Face and ModelScope."""
    here, there = row["huggingface"], row["modelscope"]
    return here or None, (here if there == "=" else there) or None


def _list(text: str, separator: str = ",") -> tuple[str, ...]:
    return tuple(text.split(separator)) if text else ()


def _model(row: Mapping[str, str]) -> ModelEntry:
    huggingface, modelscope = _ids(row)
    return ModelEntry(
        name=row["name"],
        huggingface=huggingface,
        modelscope=modelscope,
        tags=_list(row["tags"]),
        family=row["family"],
        modality=_MODALITIES[row["modality"]],
        task=_TASKS[row["task"]],
        needs=_list(row["needs"], ", "),
    )


def _dataset(row: Mapping[str, str]) -> DatasetEntry:
    huggingface, modelscope = _ids(row)
    return DatasetEntry(
        name=row["name"],
        huggingface=huggingface,
        modelscope=modelscope,
        tags=_list(row["tags"]),
        task=_DATASET_TASKS[row["task"]],
        subsets=_list(row["subsets"]),
        split=row["split"],
        rows=int(row["rows"]) if row["rows"] else None,
        columns=dict(pair.split("=", 1) for pair in row["columns"].split()),
    )
