"""Labels of method classify: the problem that they pose, the names of the classes, and the checks of rows."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.methods import MOST_CLASSES, Classify, Problem
from tunesmith_runtime.data.records import Labelled, Record
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure

if TYPE_CHECKING:
    from pyarrow import Table

Label = int | float | str | list[int | float | str]

TYPES: Mapping[Problem, str] = {
    Problem.SINGLE_LABEL: "single_label_classification",
    Problem.MULTI_LABEL: "multi_label_classification",
    Problem.REGRESSION: "regression",
}
"""Name of each problem in config.json."""
SHOWN = 5
"""Labels that a message names."""
REGRESSION = f"set spec.classify.problem: {Problem.REGRESSION}"


def count_labels(columns: Table) -> Counter[str]:
    """Return how many rows have each label, as JSON."""
    counted = columns["columns"].value_counts().to_pylist()
    return Counter({each["values"]: each["counts"] for each in counted})


def problem_of(job: FineTuneJobSpec, labels: Iterable[str]) -> Problem:
    """Return classify.problem, or the problem that the labels, as JSON, pose: multiLabel if some label is a list."""
    asked = (job.classify or Classify()).problem
    return asked or (Problem.MULTI_LABEL if any(each.startswith("[") for each in labels) else Problem.SINGLE_LABEL)


def name_of(label: Any) -> str:
    """Return the name of a class as rows write it: a text, or a number, which is whole."""
    if isinstance(label, str):
        return label.strip()
    return json.dumps(int(label) if isinstance(label, float) and label.is_integer() else label)


def classes_of(job: FineTuneJobSpec, labels: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the classes in the order of the outputs: classify.labels, or the sorted classes of the rows.

    `labels`: as JSON. Names that are all whole numbers are sorted as numbers.
    """
    if named := (job.classify or Classify()).labels:
        return tuple(named)
    names = {name_of(each) for label in labels for each in as_list(json.loads(label))}
    are_numbers = all(name.removeprefix("-").isdecimal() for name in names)
    return tuple(sorted(names, key=int) if are_numbers else sorted(names))


def as_list(label: Any) -> list[Any]:
    """Return a label as a list."""
    return label if isinstance(label, list) else [label]


def index_of(label: Any, classes: Sequence[str], are_named: bool) -> int:
    """Return the index of a class. With classify.labels (`are_named`), a whole number is an index. Raises LookupError."""
    name = name_of(label)
    if name in classes:
        return classes.index(name)
    if are_named and name.isdecimal() and int(name) < len(classes):
        return int(name)
    raise LookupError(name)


def numbers_of(label: Any) -> list[float]:
    """Return the numbers of a label, which a CSV file has as text. Raises ValueError."""
    numbers = [math.nan if isinstance(each, bool) else float(each) for each in as_list(label)]
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError(label)
    return numbers


def head_settings(job: FineTuneJobSpec, columns: Table) -> Mapping[str, Any]:
    """Return the settings of config.json for the head, by the rows of a run."""
    labels = count_labels(columns)
    problem = problem_of(job, labels)
    if problem is Problem.REGRESSION:
        return {"num_labels": len(as_list(json.loads(next(iter(labels))))), "problem_type": TYPES[problem]}
    classes = classes_of(job, labels)
    return {
        "id2label": dict(enumerate(classes)),
        "label2id": {name: index for index, name in enumerate(classes)},
        "problem_type": TYPES[problem],
    }


def row_check(job: FineTuneJobSpec) -> Callable[[Record], None]:
    """Return a check of a record, which raises RowError if its label does not fit the settings of a job."""
    settings = job.classify or Classify()

    def check(record: Record) -> None:
        assert isinstance(record, Labelled)
        label = list(record.label) if isinstance(record.label, tuple) else record.label
        if settings.problem is Problem.REGRESSION:
            check_numbers(label)
        else:
            check_classes(label, settings)

    return check


def check_numbers(label: Any) -> None:
    """Raise RowError unless a label is a number or a list of numbers."""
    try:
        numbers_of(label)
    except ValueError as error:
        raise RowError(
            f"'label' is {shown(label)}, and problem regression learns finite numbers",
            f"write a number, or set spec.classify.problem: {Problem.SINGLE_LABEL}",
            "label",
        ) from error


def check_classes(label: Any, settings: Classify) -> None:
    """Raise RowError unless a label is a class, or a list of classes, as the settings have them."""
    if settings.problem is Problem.SINGLE_LABEL and isinstance(label, list):
        hint = f"write one class, or set spec.classify.problem: {Problem.MULTI_LABEL}"
        raise RowError("'label' is a list, and problem singleLabel learns one class a text", hint, "label")
    if settings.problem is Problem.MULTI_LABEL and not isinstance(label, list):
        raise RowError(
            f"'label' is {shown(label)}, and problem multiLabel learns lists of classes",
            f"write [{shown(label)}]",
            "label",
        )
    for each in as_list(label):
        if isinstance(each, float) and not each.is_integer():
            raise RowError(f"'label' has {each}, which is no class but a number", REGRESSION, "label")
        if settings.labels:
            try:
                index_of(each, settings.labels, are_named=True)
            except LookupError as error:
                names = ", ".join(settings.labels[:20])
                hint = "add it to spec.classify.labels, or correct the row"
                raise RowError(f"'label' is {shown(each)}; classify.labels has {names}", hint, "label") from error


def check_rows(job: FineTuneJobSpec, columns: Table) -> None:
    """Refuse rows with labels that cannot be learned together.

    Raises RunFailure: EmptyDataset for labels that are all equal, BadRow for labels of both kinds, of different lengths, or for
    about as many classes as rows.
    """
    labels = count_labels(columns)
    if problem_of(job, labels) is Problem.REGRESSION:
        check_targets(labels)
    else:
        check_kinds(labels)
        check_counts(job, labels)


def check_targets(labels: Mapping[str, int]) -> None:
    """Refuse numbers of a regression that are all equal, and rows with different counts of numbers. Raises RunFailure."""
    lengths = Counter[int]()
    for label, rows in labels.items():
        lengths[len(numbers_of(json.loads(label)))] += rows
    if len(lengths) > 1:
        counts = ", ".join(f"{rows} rows have {length}" for length, rows in sorted(lengths.items()))
        raise RunFailure(
            FailureClass.BAD_ROW,
            f"labels have different lengths: {counts}, and problem regression learns as many numbers of each text",
            "give each row as many numbers",
        )
    if len(labels) == 1:
        raise RunFailure(
            FailureClass.EMPTY_DATASET,
            f"all {sum(labels.values())} rows have the label {next(iter(labels))}, so that nothing depends on the text",
            "add rows with other labels",
        )


def check_kinds(labels: Mapping[str, int]) -> None:
    """Refuse rows if some have a list of classes and others a single class. Raises RunFailure (BadRow)."""
    lists = sum(rows for label, rows in labels.items() if label.startswith("["))
    single = sum(labels.values()) - lists
    if lists and single:
        raise RunFailure(
            FailureClass.BAD_ROW,
            f"{lists} rows have a list of classes as label, and {single} a single class",
            "write a list in each row, also around a single class",
        )


def check_counts(job: FineTuneJobSpec, labels: Mapping[str, int]) -> None:
    """Refuse a single class, and about as many classes as rows. Raises RunFailure (EmptyDataset, BadRow)."""
    rows, classes = sum(labels.values()), classes_of(job, labels)
    if len(labels) == 1:
        raise RunFailure(
            FailureClass.EMPTY_DATASET,
            f"all {rows} rows have the label {next(iter(labels))}, and method classify needs rows of at least two classes",
            "add rows with other labels",
        )
    is_single = problem_of(job, labels) is Problem.SINGLE_LABEL
    if len(classes) > MOST_CLASSES or (is_single and len(labels) == rows > 2):
        some = ", ".join(map(shown, classes[:SHOWN]))
        raise RunFailure(
            FailureClass.BAD_ROW,
            f"{rows} rows have {len(classes)} classes ({some}, ...), of which a model learns {MOST_CLASSES} at most, each from several rows",
            f"for numbers {REGRESSION}; for texts, rename the column of the classes to label with spec.datasets[].columns",
        )


def shown(label: Any) -> str:
    """Return a label for a message, cut to a readable length."""
    return f"{label!r:.80}" if isinstance(label, str) else json.dumps(label)[:80]
