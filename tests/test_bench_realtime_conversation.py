"""Order, truncation and token counts of conversation items."""

import pytest

from handlehome.bench.realtime import events
from handlehome.bench.realtime.checks import RefusedError
from handlehome.bench.realtime.conversation import Conversation, Item


def user(item_id: str) -> Item:
    part = {"type": "input_audio", "transcript": None}
    return Item(events.message_item(item_id, "user", "completed", [part]))


def assistant(item_id: str, ms: int, text: str = "Good morning.") -> Item:
    part = {"type": "output_audio", "transcript": text}
    body = events.message_item(item_id, "assistant", "completed", [part])
    return Item(body, 8, generated=ms * 8, audio=bytearray(b"\x10" * ms * 8))


def test_items_are_added_at_the_end_at_the_root_and_between() -> None:
    conversation = Conversation()
    assert conversation.last is None
    assert conversation.add(user("a")) is None
    assert conversation.add(user("b")) == "a"
    assert conversation.add(user("c"), "root") is None
    assert conversation.add(user("d"), "a") == "a"
    assert conversation.order == ["c", "a", "d", "b"]
    assert conversation.previous("d") == "a"
    assert conversation.previous("c") is None
    assert conversation.last == "b"


def test_an_unknown_place_and_a_known_id_are_refused() -> None:
    conversation = Conversation()
    conversation.add(user("a"))
    with pytest.raises(RefusedError, match="not found"):
        conversation.add(user("b"), "nowhere")
    with pytest.raises(RefusedError, match="already exists"):
        conversation.add(user("a"))
    assert conversation.order == ["a"]


def test_a_deleted_item_is_gone() -> None:
    conversation = Conversation()
    conversation.add(user("a"))
    conversation.delete("a")
    assert conversation.order == []
    with pytest.raises(RefusedError, match="not found"):
        conversation.delete("a")


def test_truncation_cuts_audio_and_deletes_the_transcript() -> None:
    conversation = Conversation()
    conversation.add(assistant("a", 1000))
    conversation.truncate("a", 0, 400)
    item = conversation.get("a")
    assert (item.audio_ms, item.generated_ms, len(item.audio)) == (400, 1000, 3200)
    assert item.body["content"] == [{"type": "output_audio"}]


def test_truncation_to_the_whole_length_is_taken_and_beyond_it_is_refused() -> None:
    conversation = Conversation()
    conversation.add(assistant("a", 6100))
    with pytest.raises(
        RefusedError, match="Audio content of 6100ms is already shorter than 6185ms"
    ) as refused:
        conversation.truncate("a", 0, 6185)
    assert refused.value.code == "invalid_value"
    conversation.truncate("a", 0, 6100)
    conversation.truncate("a", 0, 100)
    with pytest.raises(RefusedError, match="Audio content of 100ms"):
        conversation.truncate("a", 0, 101)


@pytest.mark.parametrize(
    ("item_id", "index", "code"),
    [
        ("nobody", 0, "invalid_value"),
        ("user", 0, "unsupported_content_type"),
        ("silent", 0, "unsupported_content_type"),
        ("assistant", 1, "invalid_value"),
    ],
)
def test_only_audio_of_the_assistant_is_truncated(item_id: str, index: int, code: str) -> None:
    conversation = Conversation()
    for item in (user("user"), assistant("silent", 0), assistant("assistant", 100)):
        conversation.add(item)
    with pytest.raises(RefusedError) as refused:
        conversation.truncate(item_id, index, 0)
    assert refused.value.code == code


def test_a_retrieved_item_has_its_audio() -> None:
    conversation = Conversation()
    conversation.add(assistant("a", 1))
    body = conversation.retrieved("a")
    assert body["content"][0]["audio"] == "EBAQEBAQEBA="
    assert "audio" not in conversation.get("a").body["content"][0]


def test_tokens_count_text_and_what_is_left_of_the_audio() -> None:
    conversation = Conversation()
    conversation.add(assistant("a", 1000, "Good morning"))
    assert conversation.tokens() == (3, 20)
    conversation.truncate("a", 0, 500)
    assert conversation.tokens() == (0, 10)
