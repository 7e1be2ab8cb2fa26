"""Real data for the quickstart: which kind of thing a word names, from WordNet's own categories.

Reads the dictionary files of WordNet (Debian package wordnet-base) and writes `train.jsonl` and `test.jsonl`. The two
share no word, so the score on the test file is about words the model was never tuned on.

    python words.py OUTPUT_FOLDER [--wordnet /usr/share/wordnet]
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

# Lexicographer file numbers, see lexnames(5WN).
CATEGORIES = {
    "05": "animal",
    "06": "artifact",
    "08": "body part",
    "13": "food",
    "15": "place",
    "18": "person",
    "20": "plant",
    "27": "substance",
}
TRAIN_ROWS_PER_CATEGORY = 60
TEST_ROWS_PER_CATEGORY = 25
INSTRUCTION = "Name the category of the word: animal, artifact, body part, food, person, place, plant or substance."
# Shown before every question of the test, so that the untuned model knows the form of an answer: a fair comparison.
EXAMPLES = (("tiger", "animal"), ("hammer", "artifact"), ("knee", "body part"), ("oil", "substance"))


def synset_categories(wordnet: Path) -> dict[str, tuple[str, str]]:
    """Synset offset -> (category, first word) of every noun synset in one of our categories; see wndb(5WN)."""
    found = {}
    for line in (wordnet / "data.noun").read_text().splitlines():
        if line.startswith(" "):  # the licence
            continue
        offset, category, _, _, word, *_ = line.split(" ", 5)
        if category in CATEGORIES:
            found[offset] = (CATEGORIES[category], word)
    return found


def words(wordnet: Path) -> Iterator[tuple[str, str]]:
    """(word, category) of common nouns that WordNet has seen in text, by the sense it has seen most."""
    synsets = synset_categories(wordnet)
    for line in (wordnet / "index.noun").read_text().splitlines():
        if line.startswith(" "):
            continue
        lemma, _, _, pointers, *rest = line.split()
        _, seen_senses, first_sense, *_ = rest[int(pointers) :]
        category, first_word = synsets.get(first_sense, ("", ""))
        plain = lemma.isalpha() and len(lemma) > 2 and first_word.islower() and lemma not in dict(EXAMPLES)
        if category and int(seen_senses) > 0 and plain:
            yield lemma, category


def split(wordnet: Path) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Training and test words: equally many of each category, in an order that a hash of the word decides."""
    by_category: dict[str, list[str]] = {}
    for word, category in words(wordnet):
        by_category.setdefault(category, []).append(word)
    train, test = [], []
    for category, members in by_category.items():
        members.sort(key=_shuffle_key)
        train += [(word, category) for word in members[:TRAIN_ROWS_PER_CATEGORY]]
        test += [(word, category) for word in members[TRAIN_ROWS_PER_CATEGORY:][:TEST_ROWS_PER_CATEGORY]]
    return sorted(train, key=lambda row: _shuffle_key(row[0])), sorted(test, key=lambda row: _shuffle_key(row[0]))


def _shuffle_key(word: str) -> str:
    return hashlib.sha256(word.encode()).hexdigest()


def question(word: str, examples: Iterable[tuple[str, str]] = ()) -> list[dict[str, str]]:
    """The messages that ask for a word's category, after some examples of questions and answers."""
    shown = [message for example in examples for message in turn(*example)]
    return [{"role": "system", "content": INSTRUCTION}, *shown, *turn(word)]


def turn(word: str, category: str | None = None) -> list[dict[str, str]]:
    """A word, and the answer to it where it is known."""
    answer = [{"role": "assistant", "content": category}] if category else []
    return [{"role": "user", "content": word}, *answer]


def write(folder: Path, wordnet: Path) -> tuple[int, int]:
    """Writes both files, rows of `messages`, into `folder`; returns how many rows each has."""
    train, test = split(wordnet)
    folder.mkdir(parents=True, exist_ok=True)
    for name, pairs, examples in (("train", train, ()), ("test", test, EXAMPLES)):
        rows = (question(word, examples) + turn(word, category)[1:] for word, category in pairs)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return len(train), len(test)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    arguments = parser.parse_args()
    print("{} rows to train on, {} to test on".format(*write(arguments.folder, arguments.wordnet)))
