"""Rows with images, videos, sounds and boxes: each medium stands where its tag is, and none is lost."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith_api.datasets import RowFormat
from tunesmith_runtime.data import formats
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats import FORMATS
from tunesmith_runtime.data.records import (
    Box,
    Continuation,
    Conversation,
    Feedback,
    Media,
    MediaKind,
    MultimodalConversation,
    MultimodalPrompt,
    Preference,
    Record,
    Reference,
)
from tunesmith_runtime.data.row_error import RowError

A, B = (Media(MediaKind.IMAGE, (name,)) for name in ("a.png", "b.png"))
CAT = {"role": "assistant", "content": "a cat"}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def read(row: dict[str, Any]) -> Record | DropReason:
    assert formats.detect(row, {MultimodalConversation, Conversation}).name == RowFormat.VQA
    return formats.read(row, FORMATS[RowFormat.VQA])


def contents(row: dict[str, Any]) -> list[Any]:
    return messages_of(read(row))


def typed_contents(row: dict[str, Any]) -> list[Any]:
    """Those of a row whose keys are also those of a row without media, in a data set of format vqa."""
    assert formats.ignored(row, FORMATS[RowFormat.VQA]) == set()
    return messages_of(formats.read(row, FORMATS[RowFormat.VQA]))


def messages_of(record: Record | DropReason) -> list[Any]:
    assert isinstance(record, MultimodalConversation)
    return [message["content"] for message in record.conversation.messages]


@pytest.mark.parametrize(
    "row",
    [
        {"image_path": "a.png", "text": "What is it?", "answer": "a cat"},
        {"image": "a.png", "question": "What is it?", "answer": "a cat"},
        {"images": ["a.png"], "query": "<image>What is it?", "response": "a cat"},
        {"messages": [user("What is it?"), CAT], "images": [{"path": "a.png"}]},
        {"messages": [user("<image>What is it?"), CAT], "images": "a.png"},
        {
            "conversations": [
                {"from": "human", "value": "<image>What is it?"},
                {"from": "gpt", "value": "a cat"},
            ],
            "images": ["a.png"],
        },
    ],
)
def test_every_spelling_gives_the_same_question(row: dict[str, Any]) -> None:
    assert contents(row) == [[A, "What is it?"], ["a cat"]]
    assert formats.ignored(row, FORMATS[RowFormat.VQA]) == set()


def test_media_stand_where_their_tags_are() -> None:
    row = {"messages": [user("<image> or <image>?"), CAT], "images": ["a.png", "b.png"]}
    assert contents(row) == [[A, " or ", B, "?"], ["a cat"]]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "a.png"}},
        {"type": "image", "image": "a.png"},
        {"type": "image", "source": {"type": "url", "url": "a.png"}},
    ],
)
def test_media_in_parts_of_the_content_are_read(part: dict[str, Any]) -> None:
    row = {"messages": [user([{"type": "text", "text": "What is "}, part, {"type": "text", "text": "?"}]), CAT]}
    record = formats.read(row, FORMATS[RowFormat.VQA])
    assert isinstance(record, MultimodalConversation)
    assert record.conversation.messages[0]["content"] == ["What is ", A, "?"]


def test_inline_media_of_anthropic_and_openai_are_data_uris() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    sound = {"type": "input_audio", "input_audio": {"data": "BBBB", "format": "mp3"}}
    record = formats.read({"messages": [user([image, sound]), CAT]}, FORMATS[RowFormat.VQA])
    assert isinstance(record, MultimodalConversation)
    assert record.conversation.messages[0]["content"] == [
        Media(MediaKind.IMAGE, ("data:image/png;base64,AAAA",)),
        Media(MediaKind.AUDIO, ("data:audio/mp3;base64,BBBB",)),
    ]


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


PICTURE = {"type": "image", "image": "a.png"}


@pytest.mark.parametrize(
    "typed", ["what does an <image> tag do?", "<video>, <audio>", "<bbox> and <ref-object>", "<im>"]
)
def test_a_marker_in_a_typed_part_is_plain_text(typed: str) -> None:
    assert typed_contents({"messages": [user([text(typed), PICTURE]), CAT]}) == [[typed, A], ["a cat"]]
    assert typed_contents({"messages": [user([PICTURE, text(typed)]), CAT]}) == [[A, typed], ["a cat"]]
    assert typed_contents({"messages": [user([text(typed)]), CAT], "images": ["a.png"]})[0] == [A, typed]


@pytest.mark.parametrize(
    "row",
    [
        {
            "conversations": [
                {"from": "human", "value": [text("an <image>"), PICTURE]},
                {"from": "gpt", "value": "a cat"},
            ]
        },
        {"conversations": [user([text("an <image>"), PICTURE]), CAT]},
        {"prompt": [user([text("an <image>"), PICTURE])], "completion": [CAT]},
    ],
)
def test_typed_parts_are_the_same_under_every_key(row: dict[str, Any]) -> None:
    assert typed_contents(row)[0] == ["an <image>", A]


def test_the_result_of_a_tool_has_plain_markers_and_pictures() -> None:
    call = {"type": "tool_use", "id": "1", "name": "look", "input": {}}
    results = [
        {"type": "tool_result", "tool_use_id": "1", "content": "no <image>"},
        {"type": "tool_result", "tool_use_id": "1", "content": [text("one <image>"), PICTURE]},
    ]
    row = {"messages": [user("Look"), {"role": "assistant", "content": [call]}, user(results), CAT]}
    assert typed_contents(row)[2:4] == [["no <image>"], ["one <image>", A]]


def test_a_marker_in_a_string_is_read_beside_typed_parts() -> None:
    turns = [user([text("no <image>"), PICTURE]), CAT, user("<image>?"), CAT]
    # media of the row come before those of parts
    assert typed_contents({"messages": turns, "images": ["b.png"]}) == [
        ["no <image>", B],
        ["a cat"],
        [A, "?"],
        ["a cat"],
    ]


def test_boxes_are_placed_in_typed_parts_too() -> None:
    row = {
        "messages": [
            user([PICTURE, text("an <image> of <ref-object>?")]),
            {"role": "assistant", "content": [text("<bbox>")]},
        ],
        "objects": {"ref": ["the cat"], "bbox": [[1, 2, 30, 40]]},
    }
    assert typed_contents(row) == [
        [A, "an <image> of ", Reference("the cat"), "?"],
        [Box((1, 2, 30, 40), is_relative=False)],
    ]


def test_markers_and_pictures_of_unequal_number_are_counted() -> None:
    pictures = ["a.png", "b.png", "c.png", "d.png"]
    row = {"images": pictures, "text": "<image><image>compare", "answer": "the fourth has a fin"}
    with pytest.raises(RowError, match=r"^has 2 markers, 4 pictures; expected one <image> for each$") as found:
        read(row)
    assert found.value.hint is not None
    assert "nowhere to have the pictures before the first question" in found.value.hint
    assert contents({**row, "text": "compare"})[0] == [
        *[Media(MediaKind.IMAGE, (name,)) for name in pictures],
        "compare",
    ]


def test_a_row_without_media_is_a_conversation_too() -> None:
    record = formats.read({"messages": [user("Hi"), CAT]}, FORMATS[RowFormat.VQA])
    assert isinstance(record, MultimodalConversation)
    assert record.conversation.messages[0]["content"] == ["Hi"]


def test_frames_are_one_video() -> None:
    row = {"messages": [user("<video>What is it?"), CAT], "videos": [["1.png", "2.png"]]}
    assert contents(row)[0] == [Media(MediaKind.VIDEO, ("1.png", "2.png")), "What is it?"]


def test_objects_stand_where_their_tags_are() -> None:
    row = {
        "messages": [
            user("<image>Where is <ref-object>?"),
            {"role": "assistant", "content": "At <bbox>."},
        ],
        "images": ["a.png"],
        "objects": {"ref": ["the cat"], "bbox": [[1, 2, 30, 40]]},
    }
    assert contents(row) == [
        [A, "Where is ", Reference("the cat"), "?"],
        ["At ", Box((1, 2, 30, 40), is_relative=False), "."],
    ]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"images": ["a.png", "b.png"]}, "has 1 marker, 2 pictures; expected one <image> for each"),
        ({"images": ["../a.png"]}, r"images\[0\] is '../a.png', which is outside the folder"),
        ({"images": ["/etc/passwd"]}, "outside the folder of the data"),
        ({"images": ["file:///etc/passwd"]}, "outside the folder of the data"),
        ({"images": ["a\0.png"]}, "outside the folder of the data"),
        ({"images": [5]}, r"images\[0\] is a number; expected a path or a URL"),
        ({"images": [{"bytes": "x"}]}, r"images\[0\] is null; expected a path"),
        (
            {"images": ["a.png"], "objects": {"bbox": [[1, 2, 3, 4]]}},
            "has 0 markers, 1 box in objects.bbox; expected one <bbox>",
        ),
        ({"images": ["a.png"], "objects": {"bbox": [[3, 2, 1, 4]]}}, "second corner is left of or above"),
        ({"images": ["a.png"], "objects": {"bbox": [[1, 2, 3]]}}, r"objects\.bbox\[0\] is \[1, 2, 3\]; expected"),
        ({"images": ["a.png"], "objects": {"bbox": [[0, 0, 2, 2]], "bbox_type": "norm1"}}, "between 0 and 1"),
        ({"images": ["a.png"], "objects": {"bbox": [[0, 0, 2, 2]], "image_id": []}}, "has 0 markers, 1 box"),
        ({"images": ["a.png"], "objects": {"ref": "cat"}}, r"objects\.ref is a string; expected a list"),
    ],
)
def test_media_and_objects_that_do_not_fit_are_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RowError, match=sentence):
        read({"messages": [user("<image>What is it?"), CAT], **fields})


def test_media_beside_plain_text_are_refused() -> None:
    with pytest.raises(RowError, match="has media beside a prompt of plain text"):
        read({"prompt": "What is it?", "completion": "a cat", "images": ["a.png"]})


def test_a_picture_without_an_answer_is_dropped() -> None:
    assert read({"image_path": "a.png", "text": "What is it?", "answer": " "}) is DropReason.EMPTY_ANSWER


@pytest.mark.parametrize("row", [{"image": "a.png", "caption": "ink wash"}, {"file_name": "a.png", "text": "ink wash"}])
def test_a_caption_is_a_picture_with_its_text(row: dict[str, Any]) -> None:
    learned = MultimodalConversation(
        Conversation([{"role": "user", "content": [A]}, {"role": "assistant", "content": ["ink wash"]}])
    )
    assert formats.detect(row, {MultimodalConversation}).name == RowFormat.CAPTION
    assert formats.read(row, FORMATS[RowFormat.CAPTION]) == learned


def test_a_format_of_text_refuses_media_instead_of_losing_them() -> None:
    for key in ("images", "image_path", "videos", "objects"):
        with pytest.raises(RowError, match=f"has '{key}'"):
            formats.read({"messages": [user("What?"), CAT], key: ["a"]}, FORMATS[RowFormat.MESSAGES])


def test_a_preference_and_a_rated_answer_have_their_media_in_the_prompt() -> None:
    question = {"role": "user", "content": [A, "what is it?"]}

    def told(word: str, start: int) -> MultimodalConversation:
        return MultimodalConversation(
            Conversation([question, {"role": "assistant", "content": [word]}], learn_from=start)
        )

    asked = {"messages": [{"role": "user", "content": "<image>what is it?"}], "images": ["a.png"]}
    pair = formats.read({**asked, "chosen": "a cat", "rejected": "a dog"}, FORMATS[RowFormat.PREFERENCE])
    assert pair == Preference(told("a cat", 1), told("a dog", 1))
    answered = {"query": "what is it?", "response": "a cat", "image": "a.png", "label": True}
    assert formats.read(answered, FORMATS[RowFormat.FEEDBACK]) == Feedback(told("a cat", 1), is_good=True)


def test_a_tag_is_plain_text_in_a_preference_without_media() -> None:
    row = {"prompt": "an <image> tag", "chosen": "a", "rejected": "b"}
    found = formats.read(row, FORMATS[RowFormat.PREFERENCE])
    assert found == Preference(Continuation("an <image> tag", "a"), Continuation("an <image> tag", "b"))


def test_a_prompt_has_its_media_and_its_columns() -> None:
    row = {"prompt": [{"role": "user", "content": "what is it?"}], "image": "a.png", "answer": "a cat"}
    found = formats.read(row, FORMATS[RowFormat.PROMPT])
    conversation = Conversation([{"role": "user", "content": [A, "what is it?"]}])
    assert found == MultimodalPrompt(MultimodalConversation(conversation), {"answer": "a cat"})
    assert found.without_media().prompt == [{"role": "user", "content": "<image>what is it?"}]
    with pytest.raises(RowError, match="has media beside a prompt of plain text"):
        formats.read({**row, "prompt": "what is it?"}, FORMATS[RowFormat.PROMPT])
