"""Encoder of sounds with their texts, for speech models."""

from __future__ import annotations

from dataclasses import replace

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.encoders.multimodal import NeedsProcessor
from tunesmith_runtime.data.encoding import Encoding
from tunesmith_runtime.data.examples import Example, join_turns
from tunesmith_runtime.data.records import Transcription
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.text_encoder import TextEncoder
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.multimodal.speech_tokens import spoken


def encode_transcription(record: Transcription, text: TextEncoder) -> Encoding[list[Example] | DropReason]:
    """The example of a sound: the tokens that tell the model what to write, and the transcript.

    Raises RowError for a sound that cannot be read or is too long, a language that the model does not write, and a transcript with a
    special token; RunFailure (BadSpec) where the base is no speech model, and NeedsProcessor.
    """
    if text.lacks_processor:
        raise NeedsProcessor()
    if text.speech is None:
        raise RunFailure(
            FailureClass.BAD_SPEC,
            "the rows are sounds with their texts, and the base model is no speech model",
            "name a Whisper model in spec.model",
        )
    (uri,) = record.media.sources
    text.speech.samples(uri)
    tokens = text.speech.processor.tokens
    language = tokens.language(record.language)
    [written] = yield from text.ids(spoken(record.text, language))
    if not tokens.special.isdisjoint(written):
        raise RowError("has a special token of the model in its text", "write the token in other words")
    examples = join_turns([text.turn(tokens.prompt(language), list(written))])
    return [replace(example, media=[uri]) for example in examples]
