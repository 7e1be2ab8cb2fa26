"""Encodings that wait for tokens: many of them are tokenized together, and while a thread tokenizes, the next are begun.

An encoding is a generator. It yields texts, receives the tokens of each, and returns its result. A call of the tokenizer costs
about as much as the tokens of a short row, and a tokenizer written in Rust releases Python's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from tunesmith_runtime.data.row_error import RowError

Tokens = list[int]
Known = dict[str, Tokens]
"""Tokens of parts of texts that were tokenized before."""
Tokenize = Callable[[Sequence[str], Known], Sequence[Tokens | RowError]]
"""Returns the tokens of each text, or why the tokenizer refuses it. Reads `Known`, and adds to it."""
T = TypeVar("T")
Key = TypeVar("Key")
Encoding = Generator[Sequence[str], Sequence[Tokens], T]

BATCH_ENCODINGS = 256
"""Encodings that are tokenized together at most."""
BATCH_CHARACTERS = 1 << 20
"""Characters of rows after which a batch ends."""


def needs_no_tokens(result: T) -> Encoding[T]:
    """An encoding that is finished."""
    yield from ()
    return result


def complete(encoding: Encoding[T], tokenize: Tokenize) -> T:
    """Complete a single encoding, and return its result. Raises its errors."""
    begun, known = Begun(encoding), Known()
    while begun.texts is not None:
        begun.proceed(tokenize(begun.texts, known))
    return begun.result()


class Begun(Generic[T]):
    """An encoding that waits for the tokens of `texts`, or has ended. An error is kept until the result is asked for."""

    def __init__(self, encoding: Encoding[T]) -> None:
        self.texts: Sequence[str] | None = None
        """None once the encoding has ended."""
        self._encoding = encoding
        self._error: Exception | None = None
        self._proceed(lambda: next(encoding))

    def proceed(self, tokens: Sequence[Tokens | RowError]) -> None:
        """Go on with the tokens of the texts, or with the first error among them."""
        refused = next((each for each in tokens if isinstance(each, RowError)), None)
        if refused is not None:
            self._proceed(lambda: self._encoding.throw(refused))
        else:
            self._proceed(lambda: self._encoding.send([each for each in tokens if not isinstance(each, RowError)]))

    def result(self) -> T:
        """The result. Raises the error of the encoding."""
        if self._error is not None:
            raise self._error
        return self._result

    def _proceed(self, step: Callable[[], Sequence[str]]) -> None:
        self.texts = None
        try:
            self.texts = step()
        except StopIteration as end:
            self._result: T = end.value
        except Exception as error:  # noqa: BLE001  # raised by `result`
            self._error = error


def complete_all(
    encodings: Iterable[tuple[Key, int, Encoding[T]]], tokenize: Tokenize
) -> Generator[tuple[Key, Begun[T]]]:
    """Yield each key with its encoding, completed, in their order. Encodings are begun up to a batch ahead, also in their order.

    `encodings`: key, characters of what is encoded, which bound the memory of a batch, and the encoding. An error of `encodings` is raised after those before it.
    """
    remaining = iter(encodings)
    with ThreadPoolExecutor(1, "tokens") as thread:
        current = _Batch[Key, T](remaining)
        tokens = thread.submit(current.tokenize, tokenize)
        while current.begun:
            following = _Batch[Key, T](remaining if current.error is None else iter(()))
            following_tokens = thread.submit(following.tokenize, tokenize)
            yield from current.completed(tokens, tokenize)
            if current.error is not None:
                raise current.error
            current, tokens = following, following_tokens
        if current.error is not None:
            raise current.error


class _Batch(Generic[Key, T]):
    """Encodings that are tokenized together, and the error that ended their iteration."""

    def __init__(self, encodings: Iterator[tuple[Key, int, Encoding[T]]]) -> None:
        self.begun: list[tuple[Key, Begun[T]]] = []
        self.error: Exception | None = None
        self._known = Known()
        characters = 0
        try:
            while len(self.begun) < BATCH_ENCODINGS and characters < BATCH_CHARACTERS:
                key, size, encoding = next(encodings)
                self.begun.append((key, Begun(encoding)))
                characters += size
        except StopIteration:
            pass
        except Exception as error:  # noqa: BLE001  # raised after the encodings before it
            self.error = error

    def tokenize(self, tokenize: Tokenize) -> list[Sequence[Tokens | RowError]]:
        """The tokens for each encoding that waits."""
        waiting = self._waiting()
        tokens = iter(tokenize([text for each in waiting for text in each.texts or ()], self._known))
        return [[next(tokens) for _ in each.texts or ()] for each in waiting]

    def completed(
        self, first: Future[list[Sequence[Tokens | RowError]]], tokenize: Tokenize
    ) -> Iterator[tuple[Key, Begun[T]]]:
        """Yield the encodings, completed. `first` has the tokens that they wait for."""
        tokens = first.result()
        while waiting := self._waiting():
            for each, found in zip(waiting, tokens, strict=True):
                each.proceed(found)
            tokens = self.tokenize(tokenize)
        yield from self.begun

    def _waiting(self) -> list[Begun[T]]:
        return [begun for _, begun in self.begun if begun.texts is not None]
