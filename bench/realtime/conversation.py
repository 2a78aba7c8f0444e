"""The items of a conversation: their order, their audio, what truncation leaves, their tokens."""

import base64
from dataclasses import dataclass, field

from handlehome.bench.realtime.checks import Json, RefusedError


@dataclass(slots=True)
class Item:
    """One conversation item.

    Attributes:
        body: The item as JSON, without audio.
        bytes_per_ms: Of its audio; 8 or 48.
        generated: Bytes of audio that exist or existed (a deleted or cut item keeps its count).
        kept_ms: Where a truncation cut the audio, in ms.
        audio: The audio itself, where it is kept.
    """

    body: Json
    bytes_per_ms: int = 8
    generated: int = 0
    kept_ms: int | None = None
    audio: bytearray = field(default_factory=bytearray)

    @property
    def generated_ms(self) -> int:
        """Whole ms of audio generated, truncated or not."""
        return self.generated // self.bytes_per_ms

    @property
    def audio_ms(self) -> int:
        """Whole ms of audio left."""
        return self.generated_ms if self.kept_ms is None else min(self.kept_ms, self.generated_ms)

    @property
    def tokens(self) -> tuple[int, int]:
        """Text and audio tokens in the model's context: 4 characters a token; 50 ms of the assistant's or
        100 ms of a user's speech a token."""
        body = self.body
        words = [body.get("arguments", ""), body.get("output", "")]
        for part in body.get("content", ()):
            words.append(part.get("text") or part.get("transcript") or "")
        text = -(-sum(len(word) for word in words) // 4)
        return text, self.audio_ms // (50 if body.get("role") == "assistant" else 100)


class Conversation:
    """The default conversation of a session."""

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        self._order: list[str] = []

    @property
    def last(self) -> str | None:
        """Id of the last item."""
        return self._order[-1] if self._order else None

    @property
    def order(self) -> list[str]:
        """Ids of all items, in conversation order."""
        return list(self._order)

    def add(self, item: Item, after: str | None = None) -> str | None:
        """Adds an item at the end, or behind `after` (``root``: as the first).

        Returns:
            The id of the item before it.

        Raises:
            RefusedError: No item `after`, or one of this id exists already.
        """
        item_id: str = item.body["id"]
        if item_id in self.items:
            raise RefusedError("invalid_value", f"Item with id '{item_id}' already exists.", "item.id")
        index = len(self._order)
        if after == "root":
            index = 0
        elif after is not None:
            if after not in self._order:
                message = f"Previous item with id '{after}' not found in conversation."
                raise RefusedError("invalid_value", message, "previous_item_id")
            index = self._order.index(after) + 1
        self.items[item_id] = item
        self._order.insert(index, item_id)
        return self._order[index - 1] if index else None

    def get(self, item_id: str) -> Item:
        """The item of this id.

        Raises:
            RefusedError: There is none.
        """
        if item_id not in self.items:
            raise RefusedError(
                "invalid_value", f"Item with id '{item_id}' not found in conversation.", "item_id"
            )
        return self.items[item_id]

    def previous(self, item_id: str) -> str | None:
        """Id of the item before this one."""
        index = self._order.index(item_id)
        return self._order[index - 1] if index else None

    def delete(self, item_id: str) -> None:
        """Takes an item out.

        Raises:
            RefusedError: There is none of this id.
        """
        self.get(item_id)
        del self.items[item_id]
        self._order.remove(item_id)

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """Cuts an assistant message's audio behind `audio_end_ms` and deletes its transcript.

        Raises:
            RefusedError: No such item; not an assistant message; no such part; no audio generated yet
                (a real server refuses that too); or less audio than that.
        """
        item = self.get(item_id)
        if item.body.get("role") != "assistant" or not item.generated:
            message = "Only model output audio messages can be truncated"
            raise RefusedError("unsupported_content_type", message, "item_id")
        if content_index != 0:
            message = f"Content index {content_index} does not exist."
            raise RefusedError("invalid_value", message, "content_index")
        if audio_end_ms > item.audio_ms:
            message = f"Audio content of {item.audio_ms}ms is already shorter than {audio_end_ms}ms"
            raise RefusedError("invalid_value", message, "audio_end_ms")
        item.kept_ms = audio_end_ms
        del item.audio[audio_end_ms * item.bytes_per_ms :]
        for part in item.body["content"]:
            part.pop("transcript", None)

    def retrieved(self, item_id: str) -> Json:
        """The item as ``conversation.item.retrieved`` shows it, with audio where it was kept.

        Raises:
            RefusedError: There is none of this id.
        """
        item = self.get(item_id)
        body = dict(item.body)
        if item.audio:
            audio = base64.b64encode(item.audio).decode()
            body["content"] = [
                {**part, "audio": audio} if part["type"] in ("output_audio", "input_audio") else part
                for part in body["content"]
            ]
        return body

    def tokens(self) -> tuple[int, int]:
        """Text and audio tokens of all items."""
        counts = [item.tokens for item in self.items.values()]
        return sum(text for text, _ in counts), sum(audio for _, audio in counts)
