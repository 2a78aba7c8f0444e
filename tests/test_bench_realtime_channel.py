"""Outbox, timers and faults of a simulated session."""

import json

from handlehome.bench.realtime import events
from handlehome.bench.realtime.channel import Channel, Close, Drop
from handlehome.bench.realtime.checks import RefusedError
from handlehome.bench.realtime.script import Faults


def sent(channel: Channel) -> list[dict[str, object]]:
    return [json.loads(message) for message in channel.outbox if isinstance(message, bytes)]


def test_events_get_ids_of_their_own_and_are_logged() -> None:
    channel = Channel("a", Faults())
    channel.emit(events.cleared(), 1.0)
    channel.emit(events.item_deleted("item_1"), 2.0)
    first, second = sent(channel)
    assert list(first) == ["type", "event_id"]
    assert first["event_id"] != second["event_id"]
    assert [(entry.t, entry.type, entry.item_id) for entry in channel.sent] == [
        (1.0, "input_audio_buffer.cleared", None),
        (2.0, "conversation.item.deleted", "item_1"),
    ]


def test_steps_run_in_order_of_time_and_only_when_due() -> None:
    channel, seen = Channel("a", Faults()), []
    channel.at(3.0, lambda now: seen.append((3, now)))
    channel.at(1.0, lambda now: seen.append((1, now)))
    channel.at(1.0, lambda now: seen.append((2, now)))
    assert channel.deadline == 1.0
    channel.tick(0.9)
    assert seen == []
    channel.tick(1.5)
    assert seen == [(1, 1.5), (2, 1.5)]
    assert channel.deadline == 3.0


def test_nothing_follows_the_end() -> None:
    channel = Channel("a", Faults())
    channel.at(1.0, lambda now: None)
    channel.close(1001, "enough")
    channel.emit(events.cleared(), 1.0)
    channel.emit_raw(b"{}")
    channel.drop()
    channel.at(2.0, lambda now: None)
    assert list(channel.outbox) == [Close(1001, "enough")]
    assert channel.deadline is None


def test_an_error_names_the_client_event_and_is_a_violation() -> None:
    channel = Channel("a", Faults())
    channel.refuse(
        RefusedError("invalid_value", "No.", "x"), 1.0, {"type": "response.create", "event_id": "e1"}
    )
    error = {
        "type": "invalid_request_error",
        "code": "invalid_value",
        "message": "No.",
        "param": "x",
        "event_id": "e1",
    }
    assert sent(channel)[0]["error"] == error
    assert channel.violations == ["response.create: invalid_value: No."]


def test_a_race_is_an_error_but_no_violation() -> None:
    channel = Channel("a", Faults())
    channel.refuse(RefusedError("response_cancel_not_active", "No."), 1.0, {"type": "response.cancel"})
    assert [error.code for error in channel.errors] == ["response_cancel_not_active"]
    assert channel.violations == []


def test_errors_can_lack_their_code() -> None:
    channel = Channel("a", Faults(codeless_errors=True))
    channel.refuse(RefusedError("invalid_value", "No."), 1.0)
    assert sent(channel)[0]["error"] == {"type": "invalid_request_error", "message": "No."}


def test_unknown_events_and_fields_are_mixed_in() -> None:
    channel = Channel("a", Faults(unknown_event_every=2, unknown_fields=True))
    for _ in range(4):
        channel.emit(events.item_retrieved({"id": "item_1"}), 1.0)
    messages = sent(channel)
    assert [message["type"] for message in messages].count("session.weather.changed") == 2
    assert messages[0]["x_unknown"] == "field"
    assert "x_unknown" in messages[0]["item"]


def test_the_connection_is_dropped_behind_the_nth_event_of_a_type() -> None:
    channel = Channel("a", Faults(drop_at=("conversation.item.deleted", 2)))
    for item_id in "abc":
        channel.emit(events.cleared(), 1.0)
        channel.emit(events.item_deleted(item_id), 1.0)
    assert [type(message) for message in channel.outbox] == [bytes] * 4 + [Drop]
    assert channel.over
