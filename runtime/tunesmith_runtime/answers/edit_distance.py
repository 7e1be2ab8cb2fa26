"""Levenshtein distance between sequences, and the rates that are built on it. Pure functions.

The distance is the least number of insertions, deletions and substitutions (Levenshtein, 1966,
https://en.wikipedia.org/wiki/Levenshtein_distance).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence


def distance(left: Sequence[Hashable], right: Sequence[Hashable]) -> int:
    """Return the edit distance of two texts, as characters, or of two lists, as words.

    From 0 for equal sequences to the length of the longer; the length of the other one if a sequence is empty. A column of
    the matrix is held as the bits of two integers (Hyyrö, 2003, "A bit-vector algorithm for computing Levenshtein and
    Damerau edit distances", after Myers, 1999), so that pages of 10,000 characters take a fraction of a second.
    """
    if not left or not right:
        return max(len(left), len(right))
    places: dict[Hashable, int] = {}
    for row, item in enumerate(left):
        places[item] = places.get(item, 0) | 1 << row
    every, last = (1 << len(left)) - 1, 1 << (len(left) - 1)
    up, down, found = every, 0, len(left)  # rows whose value is one more, or one less, than that of the row above
    for item in right:
        equal = places.get(item, 0)
        diagonal = equal | down
        level = (((equal & up) + up) ^ up) | equal
        rise, fall = down | ~(level | up), up & level
        found += bool(rise & last) - bool(fall & last)
        rise = rise << 1 | 1
        up = ((fall << 1) | ~(diagonal | rise)) & every
        down = diagonal & rise & every
    return found


def similarity(left: Sequence[Hashable], right: Sequence[Hashable]) -> float:
    """Return 1 minus the distance divided by the longer length: 1 for equal sequences, two empty ones too; 0 for nothing in common."""
    longest = max(len(left), len(right))
    return 1 - distance(left, right) / longest if longest else 1.0


def error_rate(pairs: Iterable[tuple[Sequence[Hashable], Sequence[Hashable]]]) -> float:
    """Return the edits of all predictions divided by the length of all references; the pairs are prediction, reference.

    0 is best, also for no pairs; above 1 where predictions are longer than their references. References that are empty
    altogether count as one item, so that the rate is finite.
    """
    edits, length = 0, 0
    for prediction, reference in pairs:
        edits += distance(prediction, reference)
        length += len(reference)
    return edits / max(1, length)
