"""Keys of a row that change what is learned or asked, with the hint for formats that do not read them."""

from __future__ import annotations

from collections.abc import Mapping

_MEDIA = (
    "images", "image", "image_path", "videos", "video", "video_path", "audios", "audio", "audio_path", "objects",
    *(f"{side}_{media}" for side in ("positive", "negative", "rejected") for media in ("images", "videos", "audios")),
)  # fmt: skip
_PREFERENCES = (
    "chosen", "rejected", "rejected_response", "rejected_messages", "positive_messages", "negative_messages", "kto_tag",
)  # fmt: skip
_TOKENS = ("input_ids", "labels", "attention_mask", "assistant_masks", "completion_mask")

WEIGHTS = ("weight", "weights", "loss", "loss_scale", "loss_weight", "sample_weight")
MASKS = ("loss_mask", "loss_masks", "train_mask", "mask", "train", "trainable")

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(_MEDIA, "remove the key: only text is learned or asked"),
    **dict.fromkeys(_PREFERENCES, "remove the key: only the answer itself is learned or asked"),
    **dict.fromkeys(_TOKENS, "remove the key: rows are encoded from their text"),
    **dict.fromkeys((*WEIGHTS, *MASKS), "remove the key; in messages, weight: 0 keeps an answer from being learned"),
    "history": "write the earlier turns as messages, or the row as {instruction, output, history}",
    "system": "write the row as messages, or as {instruction, output, system}",
    "system_prompt": "write the row as messages, or as {instruction, output, system}",
    "tools": "write the row as messages",
    "functions": "write it as tools: [{type: function, function: {name, parameters}}]",
    "documents": "write the documents into the text, and remove the key",
    "chat_template": "remove the key: the model's own chat template is used",
    "chat_template_kwargs": "remove the key: the template is used as the server uses it",
}
"""Refused where a format does not read them."""

ANY_VALUE = frozenset((*WEIGHTS, *MASKS, "kto_tag"))
"""Keys that are refused with any value but null: the meaning of `mask: 0` is ambiguous, and `kto_tag: false` marks a bad answer."""
