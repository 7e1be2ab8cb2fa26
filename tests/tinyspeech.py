"""A tiny Whisper with random weights, and tones whose pitch is a word."""

from __future__ import annotations

import wave
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

WORDS = {"low": 300.0, "middle": 700.0, "high": 1500.0, "shrill": 3300.0}
"""Word -> pitch of its tone, in hertz."""
RATE = 16_000
START = "<|startoftranscript|>"
LANGUAGES = ("en", "zh", "de", "es", "ru", "ko", "fr")
"""The first ones of Whisper, in the order in which transformers counts them."""
SPECIAL = (
    "<|endoftext|>", START, *(f"<|{code}|>" for code in LANGUAGES), "<|translate|>", "<|transcribe|>",
    "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
)  # fmt: skip
SIZES: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_target_positions": 64,
}  # fmt: skip


def make_tokenizer() -> Any:
    """A Whisper tokenizer with a token for each word, and for each byte."""
    from tokenizers import pre_tokenizers
    from transformers import WhisperTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        pieces = ["\u0120", *word]  # how ByteLevel writes a space
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
    vocabulary = {token: index for index, token in enumerate([*alphabet, *dict.fromkeys(a + b for a, b in merges)])}
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=[*dict.fromkeys(merges)], pad_token=SPECIAL[0])
    tokenizer.add_special_tokens({"additional_special_tokens": [*SPECIAL[1:]]})
    return tokenizer


def make_model(folder: Path, seconds: int = 1, seed: int = 0, **sizes: Any) -> Path:
    """Save a model that hears `seconds` at a time, with its tokenizer and feature extractor; returns `folder`."""
    import torch
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    tokenizer = make_tokenizer()
    ids = tokenizer.get_vocab()
    end, start = ids[SPECIAL[0]], ids[SPECIAL[1]]
    config = WhisperConfig(
        vocab_size=len(ids), num_mel_bins=80, max_source_positions=50 * seconds, pad_token_id=end, bos_token_id=end,
        eos_token_id=end, decoder_start_token_id=start, suppress_tokens=None, begin_suppress_tokens=[end], **SIZES | sizes,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = WhisperForConditionalGeneration(config)
    model.generation_config.is_multilingual = True
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80, chunk_length=seconds).save_pretrained(folder)
    return folder


def tone(words: str, seconds: float = 1.0, seed: int = 0) -> NDArray[numpy.float32]:
    """The tones of words, one after the other, in a duration; `seed` decides pitch within 3 %, phase, loudness and noise."""
    random = numpy.random.default_rng(seed)
    each = round(seconds * RATE / len(words.split()))
    times = numpy.arange(each) / RATE
    tones = [
        random.uniform(0.2, 0.6)
        * numpy.sin(2 * numpy.pi * (WORDS[word] * random.uniform(0.97, 1.03) * times + random.random()))
        for word in words.split()
    ]
    sound = numpy.concatenate(tones)
    return (sound + random.normal(0, 0.01, len(sound))).astype("float32")


def wav(samples: NDArray[numpy.float32]) -> bytes:
    """A WAV file of 16 bits."""
    buffer = BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((samples * 32767).clip(-32768, 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def tone_rows(folder: Path, count: int, seconds: float = 1.0, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of format transcription, whose files are written to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(count):
        word, name = [*WORDS][index % len(WORDS)], f"{seed}-{index}.wav"
        (folder / name).write_bytes(wav(tone(word, seconds, seed * 1000 + index)))
        rows.append({"audio": name, "text": word, "language": "fr"})
    return rows


def make_trained_model(folder: Path, seconds: int = 1, steps: int = 80) -> Path:
    """Save a model that writes down single words in every language, in sounds of up to `seconds`; returns `folder`."""
    import torch
    from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration

    make_model(folder, seconds)
    model = WhisperForConditionalGeneration.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    extract = WhisperFeatureExtractor.from_pretrained(folder)
    words = [*WORDS] * 8
    sounds = [tone(word, 0.4 + index % 5 * 0.15, index) for index, word in enumerate(words)]
    features = extract(sounds, sampling_rate=RATE, return_tensors="pt").input_features
    tokens = [
        [START, f"<|{LANGUAGES[index % 7]}|>", "<|transcribe|>", SPECIAL[-1], f"\u0120{word}", SPECIAL[0]]
        for index, word in enumerate(words)
    ]
    ids = torch.tensor([tokenizer.convert_tokens_to_ids(each) for each in tokens])
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    random = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randperm(len(words), generator=random)[:8]
        logits = model(input_features=features[rows], decoder_input_ids=ids[rows, :-1]).logits[:, 3:]
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[rows, 4:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder
