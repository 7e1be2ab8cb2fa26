"""Encoded sounds for the tests, as PyAV writes them."""

from __future__ import annotations

import wave
from io import BytesIO

import av
import numpy
from numpy.typing import NDArray

Samples = NDArray[numpy.float32]

CODINGS = {
    "wav": ("wav", "pcm_s16le"),
    "wav of floating-point numbers": ("wav", "pcm_f32le"),
    "flac": ("flac", "flac"),
    "mp3": ("mp3", "libmp3lame"),
    "ogg": ("ogg", "libopus"),
    "m4a": ("ipod", "aac"),
    "lossless m4a": ("ipod", "alac"),
    "webm": ("webm", "libopus"),
}
"""Container and coding of each kind of file."""


def tone(seconds: float, hertz: float = 440.0, rate: int = 48_000) -> Samples:
    """A sine of half the full scale."""
    return (numpy.sin(numpy.arange(round(seconds * rate)) * 2 * numpy.pi * hertz / rate) / 2).astype("float32")


def encoded(samples: Samples, kind: str = "wav", rate: int = 48_000, channels: int = 1) -> bytes:
    """A file whose channels all have the same samples."""
    container, coding = CODINGS.get(kind, ("wav", kind))
    layout = {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")
    buffer = BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(coding, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(numpy.repeat(samples, channels)[None], "flt", layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(stream.codec_context.format, layout, rate)
        frames = [*resampler.resample(frame), *resampler.resample(None)]
        file.mux([packet for each in [*frames, None] for packet in stream.encode(each)])
    return buffer.getvalue()


def empty() -> bytes:
    """A WAV file without samples."""
    buffer = BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
    return buffer.getvalue()


def pitch(samples: Samples, rate: int) -> float:
    """The frequency with most energy, in hertz."""
    return float(numpy.abs(numpy.fft.rfft(samples)).argmax() * rate / len(samples))
