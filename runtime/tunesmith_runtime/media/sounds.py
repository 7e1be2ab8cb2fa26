"""The samples of a sound, from the bytes of its file. Training, evaluation and serving all read with it.

FFmpeg gets the format by name, and no protocol: it never guesses a format that opens other files or addresses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from typing import Any

import av
import numpy
from numpy.typing import NDArray

from tunesmith_runtime.media.sound_error import SoundError, SoundFault
from tunesmith_runtime.media.sound_format import SAVE_AS, SoundFormat, format_of

RATE = 16_000
"""Samples a second that speech models read."""


@dataclass(frozen=True)
class SoundLimits:
    """The longest sound that is read. A second at 16 kHz takes 64 KB."""

    seconds: float = 3600.0
    size_bytes: int = 256 << 20
    """Bytes of the file."""


@dataclass(frozen=True, eq=False)
class Sound:
    """A sound as models receive it: one channel."""

    samples: NDArray[numpy.float32]
    """Of shape (time,), full scale from -1 to 1."""
    rate: int = RATE
    """Samples a second."""

    @property
    def seconds(self) -> float:
        """Its duration."""
        return len(self.samples) / self.rate


DEFAULT_LIMITS = SoundLimits()

_PCM = ("u8", "s16le", "s24le", "s32le", "f32le", "f64le", "alaw", "mulaw")
_DECODERS = frozenset({*(f"pcm_{each}" for each in _PCM), "flac", "mp3float", "vorbis", "opus", "aac", "alac"})
"""Names of FFmpeg's decoders that are used; it has some hundred more."""
_OPTIONS = {"codec_whitelist": ",".join(sorted(_DECODERS)), "protocol_whitelist": ""}
_STATES_LENGTH = frozenset({SoundFormat.FLAC, SoundFormat.M4A})
"""Formats whose header has the exact duration, where it has one."""
_SHORTAGE = 0.25
"""Seconds by which a whole sound may be shorter than its header states: encoders pad the last frame."""
_RIFF_HEADER, _CHUNK_HEADER, _MOST_CHUNKS = 12, 8, 1000
"""Bytes before the chunks of a WAV file, and before the content of each."""
_UNKNOWN_SIZE = 0x7FFF_0000
"""From here on, the size of a chunk of samples stands for "not known yet", as streams write it."""
_RATES = range(1_000, 768_001)
"""Samples a second that files have."""
_LARGEST = float(1 << 15)
"""Largest value of a sample: 16-bit numbers that were saved as floating-point numbers are still scaled by the model."""
_SAVE_AGAIN = "save the sound again, or replace it"


def read_sound(content: bytes, rate: int = RATE, limits: SoundLimits = DEFAULT_LIMITS) -> Sound:
    """Read a sound, or the first sound of a video, at `rate` samples a second; channels are averaged.

    Raises SoundError, and nothing else. Decoding stops at the limit, however small the file is.
    """
    _check_bytes(content, limits)
    format_ = format_of(content)
    if format_ is SoundFormat.WAV:
        _check_riff(content)
    with (
        _damage(format_),
        av.open(BytesIO(content), format=str(format_.value), options=_OPTIONS, metadata_errors="ignore") as file,
    ):
        stream = _sound_of(file)
        samples = _decoded(file, stream, rate, limits)
        _check_whole(len(samples) / rate, stream, format_)
    _check_range(samples)
    return Sound(samples, rate)


def _check_bytes(content: bytes, limits: SoundLimits) -> None:
    if not content:
        raise SoundError(SoundFault.EMPTY, "is empty: it has 0 bytes", "replace the sound")
    if len(content) > limits.size_bytes:
        sentence = f"has {len(content):,} bytes; at most {limits.size_bytes:,} are read"
        raise SoundError(SoundFault.TOO_MANY_BYTES, sentence, "compress the sound, or cut it into shorter ones")


def _check_riff(content: bytes) -> None:
    """Refuse a WAV file that is cut off, which FFmpeg reads as a shorter one, and one with a chunk of an absurd size, which FFmpeg
    allocates."""
    at = _RIFF_HEADER
    for _ in range(_MOST_CHUNKS):
        size = int.from_bytes(content[at + 4 : at + _CHUNK_HEADER], "little")
        if content[at : at + 4] == b"data" and (size == 0 or size >= _UNKNOWN_SIZE):
            return
        at += _CHUNK_HEADER + size
        if at >= len(content):
            break
        at += size % 2
    else:
        raise SoundError(SoundFault.DAMAGED, f"has more than {_MOST_CHUNKS:,} parts", _SAVE_AGAIN)
    if at > len(content):
        sentence = f"is cut off: it has {len(content):,} of {at:,} bytes"
        raise SoundError(SoundFault.DAMAGED, sentence, _SAVE_AGAIN)


def _sound_of(file: Any) -> Any:
    """The first stream of sound. Raises SoundError."""
    if not file.streams.audio:
        raise SoundError(SoundFault.UNKNOWN_FORMAT, "has no sound", SAVE_AS)
    stream = file.streams.audio[0]
    decoder = stream.codec_context
    if decoder is None or decoder.name not in _DECODERS:
        name = decoder.name if decoder else "unknown"
        raise SoundError(SoundFault.UNKNOWN_FORMAT, f"is in the coding {name}, which is not read", SAVE_AS)
    if decoder.sample_rate not in _RATES:
        sentence = f"has {decoder.sample_rate:,} samples a second; expected {_RATES[0]:,} to {_RATES[-1]:,}"
        raise SoundError(SoundFault.DAMAGED, sentence, _SAVE_AGAIN)
    return stream


def _decoded(file: Any, stream: Any, rate: int, limits: SoundLimits) -> NDArray[numpy.float32]:
    """The samples of a stream. Raises SoundError for none, and as soon as there are too many."""
    resampler = av.AudioResampler(format="flt", rate=rate)  # its own mix of channels would be louder than they are
    parts: list[NDArray[numpy.float32]] = []
    count = 0
    for frame in chain(file.decode(stream), [None]):
        for part in resampler.resample(frame):
            parts.append(part.to_ndarray().reshape(part.samples, -1).mean(axis=1))
            count += part.samples
        if count > limits.seconds * rate:
            sentence = f"lasts longer than {limits.seconds:,g} s, the most that is read"
            raise SoundError(SoundFault.TOO_LONG, sentence, "cut the sound into shorter ones")
    if not count:
        raise SoundError(SoundFault.EMPTY, "is empty: it has no samples", "replace the sound")
    return numpy.concatenate(parts)


def _check_whole(seconds: float, stream: Any, format_: SoundFormat) -> None:
    """Refuse a sound that is cut off: its text would be that of the whole."""
    if format_ not in _STATES_LENGTH or not stream.duration:
        return
    stated = float(stream.duration * stream.time_base)
    if seconds < stated - _SHORTAGE:
        sentence = f"is cut off: it ends after {seconds:.1f} s of {stated:.1f} s"
        raise SoundError(SoundFault.DAMAGED, sentence, _SAVE_AGAIN)


def _check_range(samples: NDArray[numpy.float32]) -> None:
    largest = float(numpy.abs(samples).max())
    if not largest <= _LARGEST:  # NaN as well
        sentence = f"has samples of up to {largest:.1e}, whose range is unknown; expected -1 to 1"
        raise SoundError(SoundFault.UNKNOWN_RANGE, sentence, "save the sound with 16 bits a sample")


@contextmanager
def _damage(format_: SoundFormat) -> Iterator[None]:
    """Within the block, turn an error of a decoder into a SoundError."""
    try:
        yield
    except SoundError:
        raise
    except Exception as error:  # as for pictures, decoders raise nearly every type for damaged bytes
        words = str(error).partition("\n")[0] or type(error).__name__
        raise SoundError(
            SoundFault.DAMAGED,
            f"is a damaged {format_.name}, or of a kind that is not read: {words:.100}",
            _SAVE_AGAIN,
        ) from error
