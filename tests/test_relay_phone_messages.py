"""Media Streams messages: the fast path equals the slow one, and we send exactly Twilio's keys."""

import base64
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from handlehome.relay.phone.messages import (
    InvalidMessage,
    Media,
    Outgoing,
    Start,
    media_of,
    media_tail,
    parse_media,
    parse_message,
    start_of,
)

SID = "MZ" + "0" * 31 + "1"
CALL = "CA" + "0" * 32
TAIL = media_tail(SID)


def slow(message: bytes) -> Media | None:
    parsed = parse_message(message)
    return media_of(parsed, SID) if parsed["event"] == "media" else None


def usual(payload: str, timestamp: str = "20", sid: str = SID, **media: Any) -> dict[str, Any]:
    """Twilio's fields in Twilio's order."""
    return {
        "event": "media",
        "sequenceNumber": "4",
        "media": {"track": "inbound", "chunk": "2", "timestamp": timestamp, "payload": payload, **media},
        "streamSid": sid,
    }


def dumps(value: object, **options: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, **options).encode()


def check(message: bytes) -> Media | None:
    """The fast path finds what the slow one finds, or leaves it to that; what is found can be spliced."""
    fast = parse_media(message, TAIL)
    try:
        found = slow(message)
    except InvalidMessage:
        assert fast is None
        return None
    assert fast is None or fast == found
    if found is not None:
        *_, payload, size = found
        sent = json.loads(Outgoing(SID).media_head + payload + Outgoing.TAIL)
        assert len(base64.b64decode(sent["media"]["payload"], validate=True)) == size
    return found


audio = st.binary(max_size=400)
payloads = st.one_of(
    audio.map(lambda data: base64.b64encode(data).decode()),
    audio.map(lambda data: base64.urlsafe_b64encode(data).decode()),
    audio.map(lambda data: base64.b64encode(data).decode().rstrip("=")),
    audio.map(lambda data: base64.encodebytes(data).decode()),
    st.sampled_from(["=", "==", "A===", "AA=A", "=AAA", "AAA", 'AA"}', '"', "\\", "é", "AAAA\n", "AA==AAAA"]),
    st.text(max_size=12),
)
stamps = st.one_of(
    st.integers(0, 10**13).map(str),
    st.integers(),
    st.sampled_from(
        ["-5", "", "1.5", "1e3", "0x10", " 7 ", "٣", "9" * 4000, "9" * 5000, None, True, 1.5, [], {}]
    ),
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(["payload", "media", "streamSid", "event", "track", "timestamp", "x"])
extras = st.dictionaries(names, anything | st.just({"payload": "AAAA"}), max_size=3)


@st.composite
def layouts(draw: st.DrawFn) -> bytes:
    """A media message as any JSON writer might put it, sometimes with a field too much, few or wrong."""
    media = {
        "track": draw(st.sampled_from(["inbound", "inbound", "inbound", "outbound", "", None, 5])),
        "chunk": draw(st.sampled_from(["2", 2, ""])),
        "timestamp": draw(stamps),
        "payload": draw(payloads),
    }
    outer: dict[str, Any] = {
        "event": draw(st.sampled_from(["media", "media", "media", "mark"])),
        "sequenceNumber": "4",
        "media": media,
        "streamSid": draw(st.sampled_from([SID, SID, SID, "MZ" + "0" * 32, "", None])),
    }
    for fields in (media, outer):
        extra = {name: value for name, value in draw(extras).items() if name not in fields}
        fields.update(extra)
        if draw(st.booleans()):
            order = draw(st.permutations(sorted(fields)))
            values = {name: fields[name] for name in order}
            fields.clear()
            fields.update(values)
        if draw(st.integers(0, 9)) == 0:
            del fields[draw(st.sampled_from(sorted(fields)))]
    return draw(written(outer))


@st.composite
def written(draw: st.DrawFn, value: dict[str, Any]) -> bytes:
    """JSON text with any whitespace, escapes and repeated keys."""
    separators = draw(st.sampled_from([(",", ":"), (",", ":"), (", ", ": "), (" ,\n", "\t:\r\n")]))
    text = json.dumps(value, separators=separators, ensure_ascii=draw(st.booleans()))
    if draw(st.integers(0, 3)) == 0:
        text = text.replace("/", draw(st.sampled_from(["\\/", "\\u002f"])))
    if draw(st.integers(0, 5)) == 0:
        text = text.replace('"inbound"', '"\\u0069nbound"')
    if draw(st.integers(0, 5)) == 0:
        # Repeated keys: which of the two counts has to be the same on both paths.
        at = draw(st.sampled_from(["media", "streamSid", "event"]))
        repeated = json.dumps(draw(anything), separators=(",", ":"))
        again = f'"{at}":{repeated}'
        text = f"{{{again},{text[1:]}" if draw(st.booleans()) else f"{text[:-1]},{again}}}"
    if draw(st.integers(0, 5)) == 0:
        text = draw(st.sampled_from([" ", "\n", "\ufeff"])) + text
    if draw(st.integers(0, 5)) == 0:
        text += draw(st.sampled_from([" ", "\n", "}", "x", '"}']))
    return text.encode("utf-8", "surrogatepass")


@given(layouts())
def test_the_fast_path_equals_the_slow_one_for_any_layout(message: bytes) -> None:
    check(message)


@given(payloads, st.integers(0, 10**13).map(str))
@example('},"streamSid":"', "1")
def test_the_fast_path_equals_the_slow_one_in_the_usual_layout(payload: str, stamp: str) -> None:
    check(dumps(usual(payload, stamp)))


@given(st.binary(max_size=80), st.integers(0, 200), st.integers(0, 200))
def test_the_fast_path_equals_the_slow_one_for_messages_cut_and_filled(
    junk: bytes, start: int, end: int
) -> None:
    message = dumps(usual("//////8="))
    check(message[:start] + junk + message[end:])


@given(audio)
def test_twilios_layout_takes_the_fast_path(data: bytes) -> None:
    payload = base64.b64encode(data)
    message = dumps(usual(payload.decode(), "123456"))
    assert parse_media(message, TAIL) == (2, 123456, payload, len(data)) == slow(message)


@pytest.mark.parametrize(
    "message",
    [
        # The quote that opens the payload is no quote that closes it.
        dumps(usual("")).replace(b'"payload":""', b'"payload":"'),
        dumps(usual("AAAA", sid="MZ" + "f" * 32)),
        dumps(usual("AAAA", track="outbound")),
        dumps(usual("AAAA", x={"payload": "BBBB"})),
        dumps(usual("AAAA")) + b" ",
        b" " + dumps(usual("AAAA")),
        dumps(usual("AAAA", "1" * 13)),
        dumps(usual("AAAA", "-1")),
        dumps(usual('AA","x":"')),
        dumps(usual("AA=A")),
        b"",
    ],
)
def test_every_other_layout_is_left_to_the_slow_path(message: bytes) -> None:
    assert parse_media(message, TAIL) is None
    if message:
        check(message)


def test_of_repeated_keys_the_last_counts_on_both_paths() -> None:
    message = dumps(usual("AAAA"))[:-1] + b',"streamSid":"' + SID.encode() + b'"}'
    assert check(message) == (2, 20, b"AAAA", 3)
    message = b'{"event":"mark",' + dumps(usual("AAAA"))[1:]
    assert check(message) == (2, 20, b"AAAA", 3)


@pytest.mark.parametrize("stamp", ["1" * 13, "-" + "1" * 13, "9" * 4000, "9" * 5000, 10**30])
def test_a_timestamp_that_no_call_reaches_is_invalid(stamp: Any) -> None:
    """Numbers without bound would not fit into the line's clock."""
    with pytest.raises(InvalidMessage):
        slow(dumps(usual("AAAA", stamp)))


def test_a_frame_without_a_number_has_the_one_of_its_timestamp() -> None:
    message = usual("AAAA", "60")
    del message["media"]["chunk"]
    assert slow(dumps(message)) == (4, 60, b"AAAA", 3)


@pytest.mark.parametrize("chunk", ["", "one", None, [], 10**12, "9" * 5000])
def test_a_frames_number_that_is_none_is_invalid(chunk: Any) -> None:
    with pytest.raises(InvalidMessage):
        slow(dumps(usual("AAAA", chunk=chunk)))


@pytest.mark.parametrize("stamp", [20, "20", " 20 "])
def test_a_timestamp_may_be_a_number_or_a_string(stamp: Any) -> None:
    assert slow(dumps(usual("AAAA", stamp))) == (2, 20, b"AAAA", 3)


@pytest.mark.parametrize(
    "message", [b"", b"{", b"[]", b"null", b'"media"', b"{}", b'{"event":5}', b"\xff", b"{'a':1}"]
)
def test_what_is_no_message_is_invalid(message: bytes) -> None:
    with pytest.raises(InvalidMessage):
        parse_message(message)


def test_nesting_without_end_is_invalid() -> None:
    with pytest.raises(InvalidMessage):
        parse_message(b'{"event":' + b"[" * 60_000)


START: dict[str, Any] = {
    "event": "start",
    "sequenceNumber": "1",
    "start": {
        "accountSid": "AC" + "1" * 32,
        "streamSid": SID,
        "callSid": CALL,
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"token": "abc"},
    },
    "streamSid": SID,
}


def start(**changes: Any) -> dict[str, Any]:
    body = {name: value for name, value in {**START["start"], **changes}.items() if value is not ...}
    return {**START, "start": body}


def test_start_is_read() -> None:
    assert start_of(START) == Start(SID, CALL, "AC" + "1" * 32, {"token": "abc"})


@pytest.mark.parametrize(
    "changes",
    [
        {"customParameters": ...},
        {"customParameters": {}},
        {"customParameters": None},
        {"mediaFormat": ...},
        {"accountSid": ...},
        {"accountSid": 5},
        {"tracks": ...},
        {"surprise": {"a": [1]}},
    ],
)
def test_start_may_lack_what_is_not_needed_and_have_more(changes: dict[str, Any]) -> None:
    assert start_of(start(**changes)).call_sid == CALL


def test_parameters_that_are_no_strings_are_left_out() -> None:
    assert start_of(start(customParameters={"a": 1, "token": "t", "b": None})).parameters == {"token": "t"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"streamSid": ...}, "streamSid"),
        ({"streamSid": 5}, "streamSid"),
        ({"streamSid": 'MZ"'}, "streamSid"),
        ({"streamSid": SID + "\n"}, "streamSid"),
        ({"callSid": ...}, "callSid"),
        ({"callSid": []}, "callSid"),
        ({"callSid": "CA" + "x" * 60_000}, "callSid"),
        ({"callSid": CALL + "\n"}, "callSid"),
        ({"mediaFormat": {"encoding": "audio/l16"}}, "mediaFormat"),
        ({"mediaFormat": "mulaw"}, "mediaFormat"),
        ({"customParameters": ["token"]}, "customParameters"),
    ],
)
def test_a_start_that_is_wrong_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidMessage, match=said) as raised:
        start_of(start(**changes))
    assert len(str(raised.value)) < 100


@pytest.mark.parametrize("value", [None, [], "x", 5])
def test_a_start_without_its_object_is_invalid(value: Any) -> None:
    with pytest.raises(InvalidMessage):
        start_of({"event": "start", "start": value})


def test_what_we_send_has_exactly_twilios_keys() -> None:
    outgoing = Outgoing(SID)
    assert json.loads(outgoing.media_head + b"//8=" + Outgoing.TAIL) == {
        "event": "media",
        "streamSid": SID,
        "media": {"payload": "//8="},
    }
    assert json.loads(outgoing.mark_head + b"17" + Outgoing.TAIL) == {
        "event": "mark",
        "streamSid": SID,
        "mark": {"name": "17"},
    }
    assert json.loads(outgoing.clear) == {"event": "clear", "streamSid": SID}
