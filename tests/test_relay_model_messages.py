"""Realtime messages: the fast path equals the slow one, and what we send is the API's to the letter."""

import base64
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openai.types.realtime import (
    ConversationItemCreateEvent,
    ConversationItemTruncateEvent,
    InputAudioBufferAppendEvent,
    ResponseAudioDeltaEvent,
    ResponseCancelEvent,
    ResponseCreateEvent,
)
from pydantic import BaseModel

from handlehome.relay.model import messages
from handlehome.relay.model.messages import Delta, InvalidEvent, delta_of, parse_delta, parse_event

KIND = "response.output_audio.delta"


def usual(payload: str, **fields: Any) -> dict[str, Any]:
    """The API's fields in the API's order."""
    return {
        "type": KIND,
        "event_id": "event_0015",
        "response_id": "resp_1",
        "item_id": "item_a1",
        "output_index": 0,
        "content_index": 0,
        "delta": payload,
        **fields,
    }


def dumps(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def slow(message: bytes) -> Delta | None:
    event = parse_event(message)
    return delta_of(event) if event["type"] == KIND else None


def check(message: bytes) -> Delta | None:
    """The fast path finds what the slow one finds, or leaves it to that; what is found can be spliced."""
    fast = parse_delta(message)
    try:
        found = slow(message)
    except InvalidEvent:
        assert fast is None
        return None
    assert fast is None or fast == found
    if found is not None:
        _, _, payload, size = found
        sent = json.loads(messages.append(payload))
        assert len(base64.b64decode(sent["audio"], validate=True)) == size
    return found


audio = st.binary(max_size=400)
payloads = st.one_of(
    audio.map(lambda data: base64.b64encode(data).decode()),
    audio.map(lambda data: base64.urlsafe_b64encode(data).decode()),
    audio.map(lambda data: base64.b64encode(data).decode().rstrip("=")),
    st.sampled_from(["=", "==", "A===", "AA=A", "=AAA", "AAA", 'AA"}', '"', "\\", "é", "AAAA\n", "AA==AAAA"]),
    st.text(max_size=12),
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
ids = st.sampled_from(["resp_1", "item_a1", "a.b-c", "é", "", 'a"b', "a\\b", 5, None, []])
names = st.sampled_from(["delta", "type", "item_id", "payload", "x"])


@st.composite
def layouts(draw: st.DrawFn) -> bytes:
    """An audio delta as any JSON writer might put it, sometimes with a field too much, few or wrong."""
    event = usual(draw(payloads))
    event["type"] = draw(st.sampled_from([KIND, KIND, KIND, "response.output_audio.done"]))
    if draw(st.booleans()):
        event["response_id"], event["item_id"] = draw(ids), draw(ids)
        event["output_index"] = draw(st.sampled_from([0, 1, 17, -1, 1.5, "0", None]))
    extra = draw(st.dictionaries(names, anything | st.just({"delta": "AAAA"}), max_size=2))
    event.update({name: value for name, value in extra.items() if name not in event})
    if draw(st.booleans()):
        event = {name: event[name] for name in draw(st.permutations(sorted(event)))}
    if draw(st.integers(0, 9)) == 0:
        del event[draw(st.sampled_from(sorted(event)))]
    separators = draw(st.sampled_from([(",", ":"), (",", ":"), (", ", ": ")]))
    text = json.dumps(event, separators=separators, ensure_ascii=draw(st.booleans()))
    if draw(st.integers(0, 3)) == 0:
        text = text.replace("/", draw(st.sampled_from(["\\/", "\\u002f"])))
    if draw(st.integers(0, 5)) == 0:
        again = f'"{draw(names)}":{json.dumps(draw(anything))}'
        text = f"{{{again},{text[1:]}" if draw(st.booleans()) else f"{text[:-1]},{again}}}"
    if draw(st.integers(0, 5)) == 0:
        text += draw(st.sampled_from([" ", "\n", "}", "x", '"}']))
    return text.encode("utf-8", "surrogatepass")


@given(layouts())
def test_the_fast_path_equals_the_slow_one_for_any_layout(message: bytes) -> None:
    check(message)


@given(payloads)
@example('","delta":"')
def test_the_fast_path_equals_the_slow_one_in_the_usual_layout(payload: str) -> None:
    check(dumps(usual(payload)))


@given(st.binary(max_size=80), st.integers(0, 200), st.integers(0, 200))
def test_the_fast_path_equals_the_slow_one_for_events_cut_and_filled(
    junk: bytes, start: int, end: int
) -> None:
    message = dumps(usual("//////8="))
    check(message[:start] + junk + message[end:])


@given(audio)
def test_the_apis_layout_takes_the_fast_path(data: bytes) -> None:
    payload = base64.b64encode(data)
    message = dumps(usual(payload.decode(), output_index=12))
    assert parse_delta(message) == ("resp_1", "item_a1", payload, len(data)) == slow(message)


@pytest.mark.parametrize(
    "message",
    [
        # The quote that opens the delta is no quote that closes it.
        dumps(usual("")).replace(b'"delta":""', b'"delta":"'),
        # No number in JSON begins with a zero.
        dumps(usual("AAAA")).replace(b'"output_index":0', b'"output_index":00'),
        dumps(usual("AAAA")).replace(b'"content_index":0', b'"content_index":01'),
        dumps(usual("AAAA", x={"delta": "BBBB"})),
        dumps({"delta": "AAAA", **usual("AAAA")}),
        dumps(usual("AAAA", item_id="é")),
        dumps(usual("AA=A")),
        dumps(usual("AAAA")) + b" ",
        dumps({**usual("AAAA"), "type": "response.output_text.delta"}),
        b"",
    ],
)
def test_every_other_layout_is_left_to_the_slow_path(message: bytes) -> None:
    assert parse_delta(message) is None
    if message:
        check(message)


def test_of_repeated_keys_the_last_counts() -> None:
    assert check(b'{"delta":"x",' + dumps(usual("AAAA"))[1:]) == ("resp_1", "item_a1", b"AAAA", 3)
    assert check(dumps(usual("AAAA"))[:-1] + b',"delta":"BBBBBBBB"}') == ("resp_1", "item_a1", b"BBBBBBBB", 6)
    assert check(dumps(usual("AAAA"))[:-1] + b',"delta":"!"}') is None


@pytest.mark.parametrize("message", [b"", b"{", b"[]", b"null", b'"x"', b"{}", b'{"type":5}', b"\xff"])
def test_what_is_no_event_is_invalid(message: bytes) -> None:
    with pytest.raises(InvalidEvent):
        parse_event(message)


def test_the_usual_layout_is_the_packages_own() -> None:
    """The order in which the official models list the fields is the one that the fast path knows."""
    ResponseAudioDeltaEvent.model_validate(usual("AAAA"), strict=True)


def strictly(kind: type[BaseModel], event: dict[str, Any]) -> None:
    """The event is valid to the letter, and has no field that the package does not know."""
    parsed = kind.model_validate(event, strict=True)
    assert json.loads(parsed.model_dump_json(exclude_unset=True, by_alias=True)) == event
    assert not parsed.model_extra


def test_what_we_send_is_valid() -> None:
    strictly(InputAudioBufferAppendEvent, json.loads(messages.append(b"//8=")))
    strictly(ConversationItemTruncateEvent, messages.item_truncate("item_1", 1240))
    strictly(ResponseCancelEvent, messages.response_cancel("evt_cancel_1", "resp_1"))
    strictly(ResponseCreateEvent, messages.response_create("evt_1", None, "tool"))
    strictly(ResponseCreateEvent, messages.response_create("evt_1", "Dites bonjour.", "greeting"))
    strictly(ConversationItemCreateEvent, messages.function_output("call_1", {"ok": True, "mot": "é"}))


def test_a_functions_result_is_json_in_a_string() -> None:
    item = messages.function_output("call_1", {"ok": True})["item"]
    assert json.loads(item["output"]) == {"ok": True}
