"""What the simulators' logs say about latency and about what was heard."""

import math

import pytest

from handlehome.bench.demo_latency import (
    LineItem,
    barge_in,
    downlink,
    line_items,
    percentile,
    uplink,
    words_heard,
)
from handlehome.bench.leg import ClearEffect, Received
from handlehome.bench.realtime.channel import Sent
from handlehome.bench.realtime.speaker import SentDelta


def media(at: float, size: int) -> Received:
    return Received(at, "media", size)


def started(t: float) -> Sent:
    return Sent(t, "input_audio_buffer.speech_started", "event_1", "item_1", None)


def sizes(item: LineItem) -> tuple[int, int, int, bool]:
    return item.generated, item.received, item.played, item.cut


def test_items_heard_to_their_end() -> None:
    deltas = [SentDelta(1.0, "a", 800), SentDelta(1.1, "a", 800), SentDelta(3.0, "b", 400)]
    received = [
        media(1.0, 800),
        Received(1.0, "mark", "1"),
        media(1.1, 480),
        media(1.2, 320),
        media(3.0, 400),
    ]
    a, b = line_items(deltas, received, [], 2000)
    assert sizes(a) == (1600, 1600, 1600, False)
    assert a.arrivals == [(1.0, 800), (1.1, 1280), (1.2, 1600)]
    assert (a.played_ms, a.generated_ms) == (200, 200)
    assert sizes(b) == (400, 400, 400, False)


def test_a_clear_cuts_the_item_and_the_next_one_counts_from_there() -> None:
    deltas = [SentDelta(1.0, "a", 8000), SentDelta(2.0, "b", 800)]
    received = [media(1.0, 4000), Received(1.3, "clear", ""), media(2.0, 800)]
    a, b = line_items(deltas, received, [ClearEffect(1.3, 1.3, 2400, 1600)], 3200)
    assert sizes(a) == (8000, 4000, 2400, True)
    assert sizes(b) == (800, 800, 800, False)


def test_a_clear_takes_back_a_whole_item_behind_the_one_that_plays() -> None:
    deltas = [SentDelta(1.0, "a", 800), SentDelta(1.01, "b", 800)]
    received = [media(1.0, 800), media(1.01, 800), Received(1.05, "clear", "")]
    a, b = line_items(deltas, received, [ClearEffect(1.05, 1.05, 400, 1200)], 400)
    assert sizes(a) == (800, 800, 400, True)
    assert sizes(b) == (800, 800, 0, True)


def test_an_item_that_never_reached_the_line_is_passed_over() -> None:
    deltas = [SentDelta(1.0, "a", 800), SentDelta(1.1, "late", 800), SentDelta(3.0, "c", 160)]
    received = [media(1.0, 800), Received(1.2, "clear", ""), media(3.0, 160)]
    items = line_items(deltas, received, [ClearEffect(1.2, 1.2, 800, 0)], 960)
    assert [sizes(item) for item in items] == [
        (800, 800, 800, False),
        (800, 0, 0, False),
        (160, 160, 160, False),
    ]


def test_more_audio_than_the_model_sent_breaks_nothing() -> None:
    (item,) = line_items([SentDelta(1.0, "a", 160)], [media(1.0, 160), media(1.1, 160)], [], 320)
    assert sizes(item) == (160, 160, 160, False)


def test_uplink_matches_by_position_in_the_audio() -> None:
    """Frames that waited arrive in one append; an append may hold a part of a frame."""
    delays = uplink([1.0, 1.02, 1.04, 1.06], 160, [1.05, 1.06, 1.061], [400, 40, 40])
    assert delays == pytest.approx([0.05, 0.03, 0.021])


def test_downlink_counts_the_deltas_for_which_the_line_had_room() -> None:
    deltas = [SentDelta(1.0, "a", 4000), SentDelta(1.1, "a", 5000), SentDelta(1.2, "a", 400)]
    received = [media(1.001, 4000), media(1.5, 5000), media(1.502, 400)]
    delays, held = downlink(deltas, line_items(deltas, received, [], 9400), received)
    assert delays == pytest.approx([0.001])
    assert held == 2, "one was too much for the lead, the other stood behind it"


def test_downlink_knows_that_a_clear_makes_room() -> None:
    deltas = [SentDelta(1.0, "a", 7000), SentDelta(1.2, "b", 7000)]
    received = [media(1.001, 7000), Received(1.1, "clear", ""), media(1.202, 7000)]
    items = line_items(deltas, received, [ClearEffect(1.1, 1.1, 800, 6200)], 7800)
    delays, held = downlink(deltas, items, received)
    assert delays == pytest.approx([0.001, 0.002])
    assert held == 0


def test_downlink_leaves_out_what_an_interruption_took_back() -> None:
    deltas = [SentDelta(1.0, "a", 800), SentDelta(1.01, "a", 800)]
    received = [media(1.001, 800), Received(1.02, "clear", "")]
    items = line_items(deltas, received, [ClearEffect(1.02, 1.02, 160, 640)], 160)
    assert downlink(deltas, items, received) == (pytest.approx([0.001]), 0)


def test_barge_in_pairs_each_clear_with_the_speech_before_it() -> None:
    sent = [started(1.0), Sent(1.1, "response.done", "event_2", None, "resp"), started(2.0), started(3.0)]
    clears = [ClearEffect(1.002, 1.01, 0, 0), ClearEffect(3.001, 3.01, 0, 0)]
    assert barge_in(sent, clears) == pytest.approx([0.002, 0.001])
    assert barge_in([], clears) == []


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert percentile([7.0], 0.01) == 7.0
    assert math.isnan(percentile([], 0.5))


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.0, ""),
        (0.05, ""),
        (0.1, "un"),
        (0.5, "un deux"),
        (0.99, "un deux trois"),
        (1.0, "un deux trois quatre"),
    ],
)
def test_words_are_cut_at_a_words_end(share: float, words: str) -> None:
    assert words_heard("un deux trois quatre", share) == words
