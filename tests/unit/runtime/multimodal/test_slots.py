"""Slots of images survive the chat template, and tokens that an author typed are never taken for them."""

from __future__ import annotations

import pytest

from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.multimodal.slots import SLOT, Slots, without_slots

SLOTS = Slots("<image>", ("<|vision_start|>", "<image>"))


def test_a_typed_token_is_one_character_until_it_is_tokenized() -> None:
    quoted = SLOTS.quoted("what does <image> do?")
    assert "<image>" not in quoted
    (character,) = {*quoted} & {*SLOTS.quotes}
    assert quoted.replace(character, SLOTS.quotes[character]) == "what does <image> do?"


@pytest.mark.parametrize("character", [SLOT, next(iter(SLOTS.quotes))])
def test_a_text_with_a_character_that_stands_for_another_is_refused(character: str) -> None:
    with pytest.raises(RowError, match=r"U\+F0000"):
        SLOTS.quoted(f"a{character}b")


def test_a_message_with_slots_has_parts_in_their_order() -> None:
    message, plain = SLOTS.parts(
        [{"role": "user", "content": f"{SLOT}one{SLOT}{SLOT}"}, {"role": "assistant", "content": None}]
    )
    image = {"type": "image"}
    assert message["content"] == [image, {"type": "text", "text": "one"}, image, image]
    assert plain == {"role": "assistant", "content": None}


def test_each_image_replaces_the_token_of_the_template_in_its_order() -> None:
    assert SLOTS.fill("a <image> b <image> c", ["11", "2"]) == "a 11 b 2 c"
    assert SLOTS.fill("the first message: <image>", ["11", "2"]) == "the first message: 11"


@pytest.mark.parametrize("rendered", ["no image", "<image><image><image>"])
def test_a_template_that_loses_or_adds_images_is_refused(rendered: str) -> None:
    with pytest.raises(RowError, match=r"has 2 images, and the model's chat template writes [03]"):
        SLOTS.fill(rendered, ["11", "2"])


def test_a_slot_separates_words() -> None:
    assert without_slots({"role": "user", "content": f"a{SLOT}b"}) == {"role": "user", "content": "a b"}
