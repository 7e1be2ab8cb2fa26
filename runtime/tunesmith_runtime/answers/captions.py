"""Scores of captions against the captions that people wrote: BLEU, ROUGE-L and CIDEr-D.

sacrebleu and rouge-score, which compute the first two, come with EvalScope.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from tunesmith_runtime.answers.scripts import HAN_ONLY, is_unspaced, tokens

LONGEST = 4
"""Words of the longest n-grams of CIDEr."""
SIGMA = 6.0
"""Difference in length, in words, at which CIDEr-D lowers a score to exp(-1/2)."""
FACTOR = 10.0
"""Factor of CIDEr-D, with which a caption equal to its only reference has 10."""

Gram = tuple[str, ...]
References = Sequence[Sequence[str]]
"""For each picture its captions, of which there is at least one."""


def bleu(predictions: Sequence[str], references: References) -> float:
    """Return the BLEU-4 of all captions, from 0 to 1 (Papineni et al., 2002; sacrebleu, Post, 2018, https://arxiv.org/abs/1804.08771).

    sacrebleu divides the texts: its tokenizer 13a for scripts with spaces, zh for Chinese, char for the others without
    spaces. Case counts. 0 for no predictions. Raises ValueError for lists of different length and pictures without captions.
    """
    import sacrebleu

    if not _paired(predictions, references):
        return 0.0
    longest = max(map(len, references))
    streams = [[each[index] if index < len(each) else None for each in references] for index in range(longest)]
    score = sacrebleu.corpus_bleu(predictions, streams, tokenize=_tokenizer(references)).score
    return min(1.0, float(score) / 100)


def rouge_l(predictions: Sequence[str], references: References) -> float:
    """Return the mean ROUGE-L of the captions, from 0 to 1 (Lin, 2004, https://aclanthology.org/W04-1013; rouge-score).

    It is the F-measure of the longest common subsequence with the most similar caption, over words without stemming, and
    over characters of scripts without spaces. 0 for no predictions, and for an empty one. Raises ValueError as `bleu`.
    """
    from rouge_score.rouge_scorer import RougeScorer

    if not _paired(predictions, references):
        return 0.0
    scorer = RougeScorer(["rougeL"], tokenizer=_Tokenizer())
    scores = (
        max(scorer.score(reference, prediction)["rougeL"].fmeasure for reference in each)
        for prediction, each in zip(predictions, references, strict=True)
    )
    return float(sum(scores)) / len(predictions)


def cider(predictions: Sequence[str], references: References) -> float:
    """Return the CIDEr-D of all captions, from 0 to 10 (Vedantam et al., 2015, https://arxiv.org/abs/1411.5726, section 4).

    The weights of n-grams (tf-idf) come from the captions of this evaluation, so that scores of different sets do not
    compare, and an n-gram of every picture's captions weighs nothing: a single picture has 0. Papers print 100 times this,
    on the words of another tokenizer. 0 for no predictions. Raises ValueError as `bleu`.
    """
    if not _paired(predictions, references):
        return 0.0
    counted = [[_grams(text) for text in each] for each in references]
    documents = Counter(gram for each in counted for gram in set().union(*each))
    weights = {gram: math.log(len(references) / count) for gram, count in documents.items()}
    rare = math.log(len(references))
    scores = []
    for prediction, each in zip(predictions, counted, strict=True):
        predicted = _grams(prediction)
        scores.append(sum(_consensus(predicted, right, weights, rare) for right in each) / len(each))
    return FACTOR * sum(scores) / len(scores)


class _Tokenizer:
    """The words of `tokens`, in the form that rouge-score asks for."""

    def tokenize(self, text: str) -> list[str]:
        return tokens(text)


def _paired(predictions: Sequence[str], references: References) -> bool:
    """Whether there are predictions. Raises ValueError for lists of different length and pictures without captions."""
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} pictures")
    if not all(references):
        raise ValueError(f"picture {[*map(bool, references)].index(False)} has no captions")
    return bool(predictions)


def _tokenizer(references: References) -> str:
    """Return the name of sacrebleu's tokenizer for the script of the references."""
    texts = [text for each in references for text in each]
    if not is_unspaced(texts):
        return "13a"
    chinese = sum(len(HAN_ONLY.findall(text)) for text in texts)
    return "zh" if chinese * 2 > sum(map(len, texts)) else "char"


def _grams(text: str) -> Counter[Gram]:
    """Return how often each n-gram of 1 to 4 words is in a text."""
    words = tokens(text)
    return Counter(
        tuple(words[start : start + length])
        for length in range(1, LONGEST + 1)
        for start in range(len(words) - length + 1)
    )


def _consensus(predicted: Counter[Gram], right: Counter[Gram], weights: Mapping[Gram, float], rare: float) -> float:
    """Return the similarity of two captions, from 0 to 1: the mean over the lengths of n-grams, lowered by the difference in length.

    `rare` is the weight of an n-gram that no reference has.
    """
    total = 0.0
    for length in range(1, LONGEST + 1):
        ours, theirs = (
            {gram: count * weights.get(gram, rare) for gram, count in each.items() if len(gram) == length}
            for each in (predicted, right)
        )
        norm = math.sqrt(sum(each**2 for each in ours.values()) * sum(each**2 for each in theirs.values()))
        common = sum(min(weight, theirs.get(gram, 0.0)) * theirs.get(gram, 0.0) for gram, weight in ours.items())
        total += common / norm if norm else 0.0
    return total / LONGEST * math.exp(-((_length(predicted) - _length(right)) ** 2) / (2 * SIGMA**2))


def _length(grams: Counter[Gram]) -> int:
    """Return the number of words that n-grams were counted in."""
    return sum(count for gram, count in grams.items() if len(gram) == 1)
