"""The subsets and splits of a folder of data: by its README.md, as hubs write it, or by the names of its files.

Pure functions of names and the text of README.md. No code of a data set runs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import yaml

from tunesmith_runtime.data.files import of_one_type, type_of
from tunesmith_runtime.fetch.globs import pattern
from tunesmith_runtime.media.listing import is_picture

CARD = "README.md"
CARD_BYTES = 4 << 20
DEFAULT = "default"
TRAIN = "train"
KEYWORDS = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "dev": "validation", "val": "validation",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
"""Words in the names of files and folders -> the split that they mean, as in `datasets`."""
CONVERTED = "refs/convert/parquet"
"""Revision of a hub with its own Parquet copies: SUBSET/SPLIT/0000.parquet."""
NO_ROWS = frozenset({"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "metadata.json"})
"""Files that describe a data set and hold no rows."""

_SHARD = re.compile(r"(?P<name>.+?)-[0-9]{5}-of-[0-9]{5}$")


class LayoutError(ValueError):
    """A subset or split that a data set does not have, or that must be named. The sentence follows the URI."""

    def __init__(self, sentence: str, hint: str) -> None:
        super().__init__(sentence)
        self.hint = hint


@dataclass(frozen=True)
class Subset:
    """A subset (configuration), as README.md defines it."""

    name: str
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Split -> patterns of paths; empty: by the names of the files in `folder`."""
    folder: str = ""
    is_default: bool = False


def choose(
    paths: Iterable[str],
    card: str | None,
    subset: str | None,
    split: str | None,
    preferred: Sequence[str],
    is_converted: bool = False,
) -> list[str]:
    """The paths of the files of a subset and a split, in their order.

    Without `split`: the first of `preferred` that there is, else the only one. Raises LayoutError.
    """
    rows = [
        path for path in paths if type_of(path) and PurePosixPath(path).name not in NO_ROWS and not _is_hidden(path)
    ]
    splits = _splits(rows, card, subset, is_converted)
    if not splits:
        raise LayoutError("has no file of rows", "name files in jsonl, json, csv, tsv, parquet, arrow or txt")
    there = ", ".join(splits)
    if split is None:
        split = next((name for name in preferred if name in splits), None)
        if split is None and len(splits) == 1 and TRAIN in preferred:
            (split,) = splits
        if split is None:
            raise LayoutError(f"has the splits {there}; one must be named", f"set split to one of {there}")
    if split not in splits:
        raise LayoutError(f"has no split {split}; it has {there}", f"set split to one of {there}")
    return list(splits[split])


def caption_files(paths: Collection[str]) -> dict[str, str]:
    """Text files that describe an image of the same name beside them -> that image, as tools for image models write them."""
    named = {str(PurePosixPath(path).with_suffix("")): path for path in paths if is_picture(path)}
    return {
        path: named[stem] for path in paths if path.endswith(".txt") and (stem := path.removesuffix(".txt")) in named
    }


def _splits(rows: list[str], card: str | None, subset: str | None, is_converted: bool) -> Mapping[str, list[str]]:
    """Split -> paths, of a subset."""
    subsets = [] if is_converted else subsets_of(card)
    if is_converted:
        folders = {path.split("/")[0]: Subset(path.split("/")[0]) for path in rows if path.count("/") == 2}
        chosen = _chosen(list(folders.values()), subset)
        found: dict[str, list[str]] = {}
        for path in rows:
            if path.startswith(f"{chosen.name}/") and path.count("/") == 2:
                found.setdefault(path.split("/")[1].removeprefix("partial-"), []).append(path)
        return found
    if subsets:
        chosen = _chosen(subsets, subset)
        return _by_patterns(rows, chosen) if chosen.files else _by_names(_below(rows, chosen.folder))
    if subset is None or subset == DEFAULT:
        return _by_names(rows)
    folders_of = {path: set(PurePosixPath(path).parts[:-1]) for path in rows}
    inside = [path for path, folders in folders_of.items() if subset in folders]
    if not inside:
        names = sorted(set().union(*folders_of.values()) - KEYWORDS.keys() - {"data"})
        raise _no_subset(subset, names or [DEFAULT])
    return _by_names(inside)


def subsets_of(card: str | None) -> list[Subset]:
    """The subsets that the front matter of README.md defines; none without it. Raises LayoutError for damaged YAML."""
    found = re.match(r"\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", card or "", re.DOTALL)
    if not found:
        return []
    try:
        matter = yaml.safe_load(found[1])
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise LayoutError(
            f"has a {CARD} whose front matter is not YAML: {str(error).splitlines()[0]}", f"correct or remove {CARD}"
        ) from error
    configs = matter.get("configs") if isinstance(matter, dict) else None
    if not isinstance(configs, list):
        return []
    return [_subset(config) for config in configs if isinstance(config, dict)]


def _subset(config: dict[str, Any]) -> Subset:
    """A subset of README.md: https://huggingface.co/docs/hub/datasets-manual-configuration."""
    folder = str(config.get("data_dir") or "").strip("/")
    name = str(config.get("config_name") or DEFAULT)
    return Subset(name, _patterns(config.get("data_files")), folder, config.get("default") is True)


def _patterns(files: Any) -> dict[str, list[str]]:
    """Split -> patterns from `data_files`: a pattern, a list of patterns or of {split, path}, or split -> patterns."""
    if isinstance(files, str):
        return {TRAIN: [files]}
    if isinstance(files, dict):
        return {str(split): _texts(patterns) for split, patterns in files.items()}
    if not isinstance(files, list):
        return {}
    found: dict[str, list[str]] = {}
    for item in files:
        split, patterns = (item.get("split", TRAIN), item.get("path")) if isinstance(item, dict) else (TRAIN, item)
        found.setdefault(str(split), []).extend(_texts(patterns))
    return found


def _texts(value: Any) -> list[str]:
    return (
        [value]
        if isinstance(value, str)
        else [each for each in value if isinstance(each, str)]
        if isinstance(value, list)
        else []
    )


def _chosen(subsets: list[Subset], name: str | None) -> Subset:
    names = [subset.name for subset in subsets]
    if name is not None:
        found = next((subset for subset in subsets if subset.name == name), None)
        if found is None:
            raise _no_subset(name, names)
        return found
    if len(subsets) == 1:
        return subsets[0]
    default = [subset for subset in subsets if subset.is_default] or [each for each in subsets if each.name == DEFAULT]
    if not default:
        there = ", ".join(names) or "none"
        raise LayoutError(f"has the subsets {there}; one must be named", f"set subset to one of {there}")
    return default[0]


def _no_subset(name: str, names: Sequence[str]) -> LayoutError:
    there = ", ".join(names)
    return LayoutError(f"has no subset {name}; it has {there}", f"set subset to one of {there}, or remove it")


def _by_patterns(rows: list[str], subset: Subset) -> dict[str, list[str]]:
    """Split -> the paths that its patterns match; a pattern may name a folder."""
    below = f"{subset.folder}/" if subset.folder else ""
    found = {}
    for split, globs in subset.files.items():
        wanted = [pattern(below + glob.removeprefix("./").rstrip("/"), brackets=True) for glob in globs]
        wanted += [pattern(below + glob.removeprefix("./").rstrip("/") + "/**", brackets=True) for glob in globs]
        found[split] = of_one_type(path for path in rows if any(each.fullmatch(path) for each in wanted))
    missing = [split for split, paths in found.items() if not paths]
    if missing and len(missing) == len(found):
        raise LayoutError(
            f"has no file of rows that {CARD} names for the subset {subset.name}",
            f"correct data_files in {CARD}",
        )
    return {split: paths for split, paths in found.items() if paths}


def _below(rows: list[str], folder: str) -> list[str]:
    return [path for path in rows if path.startswith(f"{folder}/")] if folder else rows


def _by_names(rows: list[str]) -> dict[str, list[str]]:
    """Split -> paths by the words in names of files, else of folders; all files are the split train if there are none."""
    rows = of_one_type(rows)
    for name_of in (_split_of_file, _split_of_folder):
        found: dict[str, list[str]] = {}
        for path in rows:
            if split := name_of(path):
                found.setdefault(split, []).append(path)
        if found:
            return found
    return {TRAIN: rows} if rows else {}


def _split_of_file(path: str) -> str | None:
    """The split in a file's name: `train-00000-of-00002`, `dev`, `my_test`."""
    stem = PurePosixPath(path).name.split(".")[0]
    if shard := _SHARD.match(stem):
        return KEYWORDS.get(shard["name"].lower(), _keyword(shard["name"]) or shard["name"])
    return _keyword(stem)


def _split_of_folder(path: str) -> str | None:
    return next((split for part in PurePosixPath(path).parts[:-1] if (split := _keyword(part))), None)


def _keyword(name: str) -> str | None:
    words = re.split("[^a-z]+", name.lower())
    return next((KEYWORDS[word] for word in words if word in KEYWORDS), None)


def _is_hidden(path: str) -> bool:
    return any(part.startswith((".", "__")) for part in PurePosixPath(path).parts)
