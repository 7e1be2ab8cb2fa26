"""A sound has the samples of its file at the model's rate whatever its coding, and a sound that cannot be read is refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.runtime.media.sound_files import CODINGS, empty, encoded, pitch, tone
from tunesmith_runtime.media.sound_error import SoundError, SoundFault
from tunesmith_runtime.media.sounds import SoundLimits, read_sound

SHORT = {kind: encoded(tone(0.3), kind) for kind in CODINGS}


def refusal(content: bytes, limits: SoundLimits | None = None) -> SoundError:
    with pytest.raises(SoundError) as found:
        read_sound(content, limits=limits or SoundLimits())
    assert found.value.hint
    return found.value


@pytest.mark.parametrize("kind", CODINGS)
def test_samples_are_those_of_the_file_at_16_khz(kind: str) -> None:
    sound = read_sound(encoded(tone(1.5, 440), kind))
    assert (sound.rate, sound.samples.dtype, sound.samples.ndim) == (16_000, numpy.float32, 1)
    assert sound.seconds == pytest.approx(1.5, abs=0.05)
    assert pitch(sound.samples, sound.rate) == pytest.approx(440, abs=2)
    assert float((sound.samples**2).mean()) == pytest.approx(0.125, rel=0.1)


@pytest.mark.parametrize("rate", [8_000, 24_000])
def test_a_model_of_another_rate_gets_its_own(rate: int) -> None:
    sound = read_sound(SHORT["flac"], rate)
    assert (sound.rate, len(sound.samples)) == (rate, round(0.3 * rate))


def test_channels_are_averaged() -> None:
    one, two, many = (read_sound(encoded(tone(0.3), channels=count)).samples for count in (1, 2, 16))
    numpy.testing.assert_allclose(two, one, atol=1e-3)
    numpy.testing.assert_allclose(many, one, atol=1e-3)


def test_full_scale_of_every_width_is_1() -> None:
    for coding in ("pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_mulaw"):
        samples = read_sound(encoded(tone(0.3, rate=16_000), coding, 16_000)).samples
        assert float(numpy.abs(samples).max()) == pytest.approx(0.5, abs=0.02), coding


@pytest.mark.parametrize(
    ("content", "fault", "sentence"),
    [
        (b"", SoundFault.EMPTY, "0 bytes"),
        (empty(), SoundFault.EMPTY, "no samples"),
        (b"not a sound", SoundFault.UNKNOWN_FORMAT, "begins with b'not a sound'"),
        (b"#EXTM3U\nhttp://127.0.0.1/a.ts\n", SoundFault.UNKNOWN_FORMAT, "begins with b'#EXTM3U"),
        (b" <!doctype html><html/>", SoundFault.UNKNOWN_FORMAT, "web page"),
        (encoded(tone(0.3), "adpcm_ms"), SoundFault.UNKNOWN_FORMAT, "coding adpcm_ms"),
        (b"fLaC", SoundFault.DAMAGED, "damaged FLAC"),
        (b"\0\0\0\x20ftypM4A " + bytes(20), SoundFault.DAMAGED, "damaged M4A"),
        (SHORT["wav"][:-200], SoundFault.DAMAGED, "cut off: it has 28,678 of 28,878 bytes"),
        (SHORT["wav"][:12] + b"LIST\x1a\0\0\x80INFO" + SHORT["wav"][12:], SoundFault.DAMAGED, "of 2,147,483,694 bytes"),
        (encoded(numpy.full(999, numpy.nan, "float32"), "pcm_f32le"), SoundFault.UNKNOWN_RANGE, "expected -1 to 1"),
        (encoded(tone(0.3) * 1e9, "pcm_f32le"), SoundFault.UNKNOWN_RANGE, "5.0e+08"),
    ],
)
def test_what_is_no_whole_sound_is_refused(content: bytes, fault: SoundFault, sentence: str) -> None:
    found = refusal(content)
    assert found.fault is fault
    assert sentence in str(found)


@pytest.mark.parametrize("kind", ["wav", "wav of floating-point numbers", "flac", "m4a", "lossless m4a"])
def test_a_file_that_is_cut_off_is_never_a_shorter_sound(kind: str) -> None:
    content = encoded(tone(3.0), kind)
    assert refusal(content[: len(content) * 2 // 3]).fault is SoundFault.DAMAGED


def test_a_wav_file_of_a_stream_has_the_length_of_its_bytes() -> None:
    unknown = b"\xff\xff\xff\xff"
    content, start = SHORT["wav"], SHORT["wav"].index(b"data") + 4
    streamed = content[:4] + unknown + content[8:start] + unknown + content[start + 4 :]
    assert read_sound(streamed).seconds == pytest.approx(0.3)


@pytest.mark.parametrize("rate", [999, 768_001])
def test_an_absurd_number_of_samples_a_second_is_refused(rate: int) -> None:
    content = SHORT["wav"]
    found = refusal(content[:24] + rate.to_bytes(4, "little") + content[28:])
    assert (found.fault, f"has {rate:,} samples a second" in str(found)) == (SoundFault.DAMAGED, True)


def test_decoding_stops_at_the_limit_of_seconds() -> None:
    silence = encoded(numpy.zeros(48_000 * 20, "float32"), "flac")
    found = refusal(silence, SoundLimits(seconds=10))
    assert (found.fault, str(found)) == (SoundFault.TOO_LONG, "lasts longer than 10 s, the most that is read")
    assert read_sound(silence, limits=SoundLimits(seconds=20)).seconds == 20


def test_a_file_of_too_many_bytes_is_refused() -> None:
    content = SHORT["mp3"]
    assert refusal(content, SoundLimits(size_bytes=len(content) - 1)).fault is SoundFault.TOO_MANY_BYTES
    assert read_sound(content, limits=SoundLimits(size_bytes=len(content)))


@settings(max_examples=60, deadline=None)
@given(content=st.sampled_from([*SHORT.values()]), data=st.data())
def test_damage_gives_a_sound_or_a_sound_error(content: bytes, data: st.DataObject) -> None:
    damaged = bytearray(content[: data.draw(st.integers(0, len(content)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        sound = read_sound(bytes(damaged), limits=SoundLimits(seconds=60))
    except SoundError:
        return
    assert numpy.isfinite(sound.samples).all()


def test_every_byte_of_a_header_may_be_wrong() -> None:
    causes = set()
    for content in SHORT.values():
        for at in range(0, min(64, len(content)), 3):
            try:
                read_sound(content[:at] + b"\xff" + content[at + 1 :], limits=SoundLimits(seconds=60))
            except SoundError as error:
                causes.add(type(error.__cause__).__name__)
    assert {"InvalidDataError", "NoneType"} <= causes


def test_threads_read_at_once() -> None:
    contents = [encoded(tone(0.3, hertz), "flac") for hertz in (300, 500, 700, 900)] * 4
    with ThreadPoolExecutor(8) as threads:
        found = [*threads.map(read_sound, contents)]
    assert [round(pitch(sound.samples, 16_000), -2) for sound in found] == [300, 500, 700, 900] * 4
