"""What the simulators saw: how late the daemon passed things on, and what of each answer was heard.

Everything here is measured outside the daemon, from the two simulators' logs, which share one clock. Pure.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from handlehome.bench.leg import ClearEffect, Received
from handlehome.bench.playback import BYTES_PER_SECOND
from handlehome.bench.realtime.channel import Sent
from handlehome.bench.realtime.speaker import SentDelta

LEAD_SECONDS = 1.0
"""The daemon's default PLAYOUT_LEAD_MS: with so much queued at the line, further audio waits on purpose."""

_MARGIN_SECONDS = 0.05
"""Audio within so much of the lead may go at once or wait: not counted."""


@dataclass(slots=True)
class LineItem:
    """One item of the model's, as the line saw it; sizes in bytes of mu-law.

    Attributes:
        item_id: The conversation item.
        generated: What the model sent.
        received: What reached the line.
        played: What was audible.
        cut: A `clear` took the rest back.
        arrivals: Of each message: when it came off the socket, and how much of the item was there with it.
    """

    item_id: str
    first_sent: float
    generated: int = 0
    received: int = 0
    played: int = 0
    cut: bool = False
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    begins_at: int = 0

    @property
    def played_ms(self) -> float:
        return self.played * 1000 / BYTES_PER_SECOND

    @property
    def generated_ms(self) -> float:
        return self.generated * 1000 / BYTES_PER_SECOND


def line_items(
    deltas: Sequence[SentDelta],
    received: Sequence[Received],
    clears: Sequence[ClearEffect],
    played_bytes: int,
) -> list[LineItem]:
    """Follows each of the model's items to the line, by counting bytes.

    Args:
        deltas: What the model sent.
        received: What one leg received.
        clears: What the `clear` messages among it did.
        played_bytes: What the line played in all.

    Returns:
        The items in the order in which the model began them; what never reached the line among them.
    """
    items: dict[str, LineItem] = {}
    for delta in deltas:
        items.setdefault(delta.item_id, LineItem(delta.item_id, delta.t)).generated += delta.size
    order = list(items.values())
    current, appended, effects = 0, 0, iter(clears)
    open_items: list[LineItem] = []
    for message in received:
        if message.event == "media" and isinstance(message.detail, int):
            while current < len(order) and order[current].received >= order[current].generated:
                current += 1
            if current == len(order):
                break  # More audio than the model sent; the comparison by content will tell.
            item = order[current]
            if not item.arrivals:
                item.begins_at = appended
                open_items.append(item)
            item.received += message.detail
            item.arrivals.append((message.at, item.received))
            appended += message.detail
        elif message.event == "clear" and (effect := next(effects, None)) is not None:
            for item in open_items:
                item.played = _within(effect.played_bytes - item.begins_at, item.received)
                item.cut = item.played < item.generated
            open_items.clear()
            appended -= effect.dropped_bytes
            # What the model began before this is not heard any more, even if nothing of it has come.
            while current < len(order) and order[current].first_sent < message.at:
                current += 1
    for item in open_items:
        item.played = _within(played_bytes - item.begins_at, item.received)
    return order


def _within(count: int, most: int) -> int:
    return max(0, min(count, most))


def uplink(
    sent_at: Sequence[float], frame_bytes: int, times: Sequence[float], sizes: Sequence[int]
) -> list[float]:
    """Seconds from each frame's leaving the phone to its arrival at the model, by position in the audio.

    Args:
        sent_at: When each frame was written to the socket.
        frame_bytes: Of each.
        times: When each append arrived.
        sizes: Bytes of each append.
    """
    delays: list[float] = []
    total = 0
    for at, size in zip(times, sizes, strict=True):
        total += size
        while len(delays) < len(sent_at) and (len(delays) + 1) * frame_bytes <= total:
            delays.append(at - sent_at[len(delays)])
    return delays


def downlink(
    deltas: Sequence[SentDelta],
    items: Sequence[LineItem],
    received: Sequence[Received],
    lead: float = LEAD_SECONDS,
) -> tuple[list[float], int]:
    """Seconds from a delta's leaving the model to the arrival of its first byte at the line.

    Counted are the deltas for which the line had room: what came before them had reached the line, and with
    them less than the playout's lead was queued there.

    Returns:
        The delays, and the number of deltas that had to wait for room.
    """
    times, ends = _queue(received)
    by_id = {item.item_id: item for item in items}
    positions: dict[str, int] = {}
    delays: list[float] = []
    held = 0
    for delta in deltas:
        item = by_id[delta.item_id]
        first = positions.get(delta.item_id, 0)
        positions[delta.item_id] = first + delta.size
        arrived = next((at for at, upto in item.arrivals if upto > first), None)
        if arrived is None:
            continue  # Taken back by an interruption.
        before = next((at for at, upto in item.arrivals if upto >= first), 0.0) if first else 0.0
        index = bisect_right(times, delta.t) - 1
        queued = max(0.0, ends[index] - delta.t) if index >= 0 else 0.0
        room = lead - _MARGIN_SECONDS - queued - delta.size / BYTES_PER_SECOND
        if room < 0 or before > delta.t:
            held += 1
        else:
            delays.append(arrived - delta.t)
    return delays, held


def _queue(received: Sequence[Received]) -> tuple[list[float], list[float]]:
    """After each message of the relay: when it came, and when the line will have played all that it has."""
    times: list[float] = []
    ends: list[float] = []
    end = 0.0
    for message in received:
        if message.event == "media" and isinstance(message.detail, int):
            end = max(end, message.at) + message.detail / BYTES_PER_SECOND
        elif message.event == "clear":
            end = message.at
        else:
            continue
        times.append(message.at)
        ends.append(end)
    return times, ends


def barge_in(sent: Sequence[Sent], clears: Sequence[ClearEffect]) -> list[float]:
    """Seconds from each `speech_started` that interrupted something to the `clear` at the line."""
    starts = [event.t for event in sent if event.type == "input_audio_buffer.speech_started"]
    delays = []
    for clear in clears:
        index = bisect_right(starts, clear.t_received) - 1
        if index >= 0:
            delays.append(clear.t_received - starts[index])
    return delays


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile, a value that was really seen; NaN of nothing.

    Args:
        values: In any order.
        share: Above 0, at most 1.
    """
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def words_heard(text: str, share: float) -> str:
    """The words of a text of whose speech this share (0-1) was heard, cut at a word's end."""
    if share >= 1:
        return text
    heard = text[: int(len(text) * max(share, 0.0)) + 1]
    return heard[: heard.rfind(" ") + 1].rstrip()
