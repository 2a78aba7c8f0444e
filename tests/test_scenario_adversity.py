"""Attackers of all kinds: each is refused with a named reason, and a call beside them does not notice."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from handlehome.bench.realtime.script import Answer, Script
from tests.attackers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIRST_FRAGMENT,
    MIDDLE_FRAGMENT,
    PING,
    PONG,
    Attacker,
    Door,
    Ending,
    Line,
    Rogue,
    frame,
)
from tests.siege import Attack, Damage, Siege, besiege

KIB, MIB = 1 << 10, 1 << 20
ROUNDS = 8
ROUND_SECONDS = 0.25
CALL_P99_MS = 250.0
"""Generous: attackers, both simulators and often other tests share two cores with the daemon. What blocks its
loop that long spoils four frames in a hundred of six seconds."""

Attacks = dict[str, Attack]


def random_bytes(seed: int) -> bytes:
    return random.Random(seed).randbytes(5000)


# ---- what breaks the protocol ----------------------------------------------------------------------

MALFORMED = "malformed message"
NO_BINARY = "binary frames are not part of Media Streams"
BROKEN: Mapping[str, tuple[bytes, int, str]] = {
    "binary_frame": (frame(b"x", BINARY), 1003, NO_BINARY),
    "no_json": (frame(b'{"event":'), 1007, MALFORMED),
    "empty_message": (frame(), 1007, MALFORMED),
    "deep_arrays": (frame(b"[" * 64 * KIB), 1007, MALFORMED),
    "deep_objects": (frame(b'{"a":' * 10_000), 1007, MALFORMED),
    "array": (frame(b"[]"), 1007, MALFORMED),
    "null": (frame(b"null"), 1007, MALFORMED),
    "no_event": (frame(b"{}"), 1007, MALFORMED),
    "event_is_a_number": (frame(b'{"event":1}'), 1007, MALFORMED),
    "huge_number": (frame(b'{"event":"start","n":' + b"9" * 60_000 + b"}"), 1007, MALFORMED),
    "huge_exponent": (frame(b'{"event":"start","n":1e999}'), 1007, MALFORMED),
    "lone_surrogate": (frame(b'{"event":"start","start":"\\ud800"}'), 1007, MALFORMED),
    "start_without_content": (frame(b'{"event":"start"}'), 1007, MALFORMED),
    "no_utf8": (frame(b"\xff\xfe"), 1007, "invalid UTF-8"),
    "no_utf8_across_fragments": (frame(b"\xc3", FIRST_FRAGMENT) + frame(b"(", CONTINUATION), 1007, "UTF-8"),
    "unmasked": (frame(b'{"event":"connected"}', masked=False), 1002, "masking"),
    "rsv1": (frame(b"{}", 0xC1), 1002, "reserved bits"),
    "rsv2": (frame(b"{}", 0xA1), 1002, "reserved bits"),
    "rsv3": (frame(b"{}", 0x91), 1002, "reserved bits"),
    "unknown_opcode": (frame(b"{}", 0x83), 1002, "opcode"),
    "unknown_control_opcode": (frame(b"", 0x8B), 1002, "opcode"),
    "long_ping": (frame(b"x" * 126, PING), 1002, "control frame"),
    "fragmented_ping": (frame(b"", PING & 0x0F), 1002, "control frame"),
    "continuation_of_nothing": (frame(b"x", CONTINUATION), 1002, "continuation"),
    "text_in_a_fragmented_message": (frame(b"x", FIRST_FRAGMENT) + frame(b"x"), 1002, "continuation"),
    "close_of_one_byte": (frame(b"\x03", CLOSE), 1002, "close frame"),
    "close_with_a_code_that_is_none": (frame((999).to_bytes(2, "big"), CLOSE), 1002, "status code"),
    "one_byte_over_64_kib": (frame(b"x" * (64 * KIB + 1)), 1009, "65537 bytes"),
    "one_mib": (frame(b"x" * MIB), 1009, "1048576 bytes"),
    "one_gib_announced": (frame(b"x" * 100, announced=1 << 30), 1009, "1073741824 bytes"),
    "64_bits_announced": (frame(b"x", announced=(1 << 64) - 1), 1009, "bytes exceeds"),
    "fragments_over_64_kib": (
        frame(b"x" * 40_000, FIRST_FRAGMENT) + frame(b"x" * 40_000, CONTINUATION),
        1009,
        "40000 bytes",
    ),
    "pings_at_once": (frame(b"", PING) * 2000, 1008, "too many control frames"),
    "pongs_at_once": (frame(b"", PONG) * 2000, 1008, "too many control frames"),
    "fragments_at_once": (
        frame(b"", FIRST_FRAGMENT) + frame(b"", MIDDLE_FRAGMENT) * 2000,
        1008,
        "too many control frames or fragments",
    ),
    "closes_at_once": (frame((1000).to_bytes(2, "big"), CLOSE) * 1000, 1000, ""),
    "random_bytes": (random_bytes(1), 1002, ""),
    "more_random_bytes": (random_bytes(2), 1002, ""),
}


def breaking(name: str, rounds: int = ROUNDS) -> Attack:
    data, code, reason = BROKEN[name]

    async def once(siege: Siege) -> None:
        async with siege.socket() as attacker:
            attacker.send(data)
            ending = await attacker.ending()
        assert ending.code == code, ending
        assert reason in ending.reason
        if code != 1000:
            siege.expect_line(ending.reason)

    return again_and_again(once, rounds)


def again_and_again(once: Attack, rounds: int = ROUNDS) -> Attack:
    """Carries an attack out in rounds that overlap."""

    async def attack(siege: Siege) -> None:
        async def later(number: int) -> None:
            await asyncio.sleep((number + random.random()) * ROUND_SECONDS)
            await once(siege)

        await asyncio.gather(*(later(number) for number in range(rounds)))

    return attack


# ---- what is no request of Twilio's ----------------------------------------------------------------

SIGNATURE_WRONG = "A" * 27 + "="
CHUNK = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
REQUESTS: Mapping[str, tuple[Callable[[Door], bytes], int]] = {
    "unsigned_upgrade": (lambda door: door.upgrade(signature=None), 403),
    "wrongly_signed_upgrade": (lambda door: door.upgrade(signature=SIGNATURE_WRONG), 403),
    "unsigned_upgrade_and_frames": (lambda door: door.upgrade(signature=None) + frame(b"{}") * 100, 403),
    "upgrade_signed_twice": (lambda door: door.upgrade(extra="X-Twilio-Signature: x\r\n"), 400),
    "upgrade_on_another_path": (lambda door: door.upgrade("/other"), 404),
    "upgrade_on_another_instance": (lambda door: door.upgrade("/media-stream/other"), 404),
    "upgrade_on_a_webhook": (lambda door: door.upgrade("/incoming-call"), 404),
    "upgrade_on_a_long_path": (lambda door: door.upgrade("/" + "x" * 15_000), 414),
    "upgrade_with_a_body": (lambda door: door.upgrade(extra="Content-Length: 5\r\n") + b"hello", 400),
    "upgrade_of_another_version": (lambda door: door.upgrade().replace(b"Version: 13", b"Version: 8"), 400),
    "upgrade_without_a_key": (lambda door: door.upgrade().replace(b"Sec-WebSocket-Key", b"X-Key"), 400),
    "unsigned_webhook": (lambda door: door.post(extra="Content-Length: 0\r\n"), 403),
    "wrongly_signed_webhook": (
        lambda door: door.post(extra=f"Content-Length: 0\r\nX-Twilio-Signature: {SIGNATURE_WRONG}\r\n"),
        403,
    ),
    "body_of_1_mib": (lambda door: door.post(extra=f"Content-Length: {MIB}\r\n", body=b"x" * MIB), 413),
    "body_of_1_gib": (lambda door: door.post(extra=f"Content-Length: {1 << 30}\r\n", body=b"x" * MIB), 413),
    "chunks_over_64_kib": (
        lambda door: door.post(extra="Transfer-Encoding: chunked\r\n", body=CHUNK * 2),
        413,
    ),
    "chunk_without_a_size": (
        lambda door: door.post(extra="Transfer-Encoding: chunked\r\n", body=b"zz\r\n"),
        400,
    ),
    "two_lengths": (lambda door: door.post(extra="Content-Length: 1\r\nContent-Length: 2\r\n"), 400),
    "header_of_1_mib": (lambda door: b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * MIB, 400),
    "endless_headers": (lambda door: b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: x\r\n" * 100_000, 400),
    "tls": (lambda door: bytes.fromhex("1603010200010001fc0303") + random_bytes(3), 400),
    "zeros": (lambda door: bytes(5000), 400),
    "many_zeros": (lambda door: bytes(200_000), 400),
    "empty_lines": (lambda door: b"\n" * 5000, 400),
    "random_bytes": (lambda door: random_bytes(4) + b"\r\n\r\n", 400),
}
UNSIGNED = {
    "unsigned_upgrade": "is missing",
    "unsigned_upgrade_and_frames": "is missing",
    "wrongly_signed_upgrade": "is wrong",
}
"""Upgrades that may be Twilio's, with a setting of ours that is wrong: the log has to tell."""


def requesting(name: str) -> Attack:
    compose, expected = REQUESTS[name]

    async def once(siege: Siege) -> None:
        async with siege.attacker(compose(siege.door)) as attacker:
            assert await attacker.status() == expected
        if name in UNSIGNED:
            siege.expect_line(f"upgrade's signature {UNSIGNED[name]}")

    return again_and_again(once)


# ---- tokens ----------------------------------------------------------------------------------------


async def refused_start(siege: Siege, line: Line, reason: str) -> None:
    async with siege.socket() as attacker:
        attacker.send(line.start())
        ending = await attacker.ending()
    assert (ending.code, ending.reason) == (1008, reason)
    siege.expect_line(reason)


async def tokens(siege: Siege) -> None:
    """A token opens one stream of one call; whoever tries with it meanwhile changes nothing for that call."""
    async with siege.promised() as mine, siege.promised() as other:
        token = mine.parameters["token"]
        await asyncio.gather(
            refused_start(siege, Line(mine.call_sid, {"token": "x" * 43}), "unknown token"),
            refused_start(siege, Line(mine.call_sid, {}), "unknown token"),
            refused_start(siege, Line(mine.call_sid, {"token": "é" * 5000}), "unknown token"),
            refused_start(siege, Line(other.call_sid, {"token": token}), "token of another call"),
            refused_start(siege, Line("CA" + "0" * 32, {"token": token}), "token of another call"),
        )
        async with siege.socket() as line:
            line.send(mine.start())
            await line.read_for(0.2)
            again = (refused_start(siege, mine, "token already used") for _ in range(10))
            await asyncio.gather(*again)
            line.send(mine.media())
            await line.read_for(0.2)
            assert not line.cut
            line.send(mine.start())
            ending = await line.ending()
            assert (ending.code, ending.reason) == (1008, "token already used")
            siege.expect_line(ending.reason)


async def bytes_behind_the_upgrade(siege: Siege) -> None:
    """What is sent without waiting for the handshake is read as what it is."""
    async with (
        siege.promised() as line,
        siege.attacker(siege.door.upgrade() + line.start() + line.media() * 5) as early,
    ):
        assert await early.status() == 101
        await early.read_for(0.3)
        assert not early.cut
    async with siege.attacker(siege.door.upgrade() + frame(b"[]")) as early:
        assert (await early.ending()).code == 1007
        siege.expect_line(MALFORMED)
    async with siege.attacker(siege.door.upgrade() + siege.door.upgrade()) as early:
        ending = await early.ending()
        assert ending.code == 1002
        siege.expect_line(ending.reason)


async def within_a_call(siege: Siege) -> None:
    """A line that breaks the protocol in mid-call is closed just so; the call may go on with another one."""
    for data, code, reason in (
        (frame(b"x", BINARY), 1003, NO_BINARY),
        (frame(b"}"), 1007, MALFORMED),
        (frame(b'{"event":"media","media":1}'), 1007, MALFORMED),
        (frame(b"x" * MIB), 1009, ""),
        (frame(b"", 0xC1), 1002, ""),
        (frame(b"", PING) * 200, 1008, ""),
    ):
        async with siege.promised() as line, siege.socket() as attacker:
            attacker.send(line.start() + line.media() + data)
            assert (await attacker.ending()).code == code
        if reason:
            siege.expect_line(reason)


REFUSED: Attacks = {
    **{name: breaking(name) for name in BROKEN},
    **{f"http_{name}": requesting(name) for name in REQUESTS},
    "tokens": tokens,
    "bytes_behind_the_upgrade": bytes_behind_the_upgrade,
    "within_a_call": within_a_call,
}


# ---- who takes his time ----------------------------------------------------------------------------


async def drip(attackers: list[Attacker], data: bytes, seconds: float) -> None:
    """Sends one byte per 100 ms on each connection, until all are cut."""
    for position in range(round(seconds * 10)):
        alive = [attacker for attacker in attackers if not attacker.cut]
        if not alive:
            return
        for attacker in alive:
            attacker.send(data[position % len(data) :][:1])
        await asyncio.sleep(0.1)


async def many(
    siege: Siege, count: int, greeting: bytes, dripping: bytes = b"", *, seconds: float = 8.0
) -> list[Ending]:
    """Opens connections that say no more than one byte at a time, and waits until all are cut."""
    async with contextlib.AsyncExitStack() as stack:
        attackers = []
        for number in range(count):
            attackers.append(await stack.enter_async_context(siege.attacker(greeting)))
            if number % 50 == 49:
                await asyncio.sleep(0.02)  # so as not to be the load that is measured
        dripped = asyncio.create_task(drip(attackers, dripping, seconds)) if dripping else None
        endings = await asyncio.gather(*(attacker.ending() for attacker in attackers))
        if dripped is not None:
            await dripped
    return endings


def cut_after(endings: list[Ending], least: float, most: float) -> None:
    seconds = sorted(ending.seconds for ending in endings)
    assert least <= seconds[0], seconds
    assert seconds[-1] <= most, seconds


async def slow_headers(siege: Siege) -> None:
    """Slowloris: a request that never ends is cut after 5 s."""
    request = b"GET /incoming-call HTTP/1.1\r\nHost: x\r\n" + b"X: x\r\n" * 100
    cut_after(await many(siege, 200, b"", request), 4.5, 7.0)


async def slow_bodies(siege: Siege) -> None:
    head = siege.door.post(extra="Content-Length: 1000\r\n")
    endings = await many(siege, 25, head, b"x")
    assert {ending.status for ending in endings} <= {0, 408}
    cut_after(endings, 4.5, 7.0)


async def slow_chunks(siege: Siege) -> None:
    head = siege.door.post(extra="Transfer-Encoding: chunked\r\n")
    endings = await many(siege, 25, head, b"1\r\nx\r\n")
    assert {ending.status for ending in endings} <= {0, 408}
    cut_after(endings, 4.5, 7.0)


async def no_start(siege: Siege) -> None:
    """300 sockets that are opened and say nothing are told why they are closed."""
    never_started(siege, await many(siege, 300, siege.door.upgrade()))


async def slow_frames(siege: Siege) -> None:
    """64 KiB announced, and then a byte at a time."""
    announced = siege.door.upgrade() + frame(b"{", announced=64 * KIB)
    never_started(siege, await many(siege, 50, announced, b" "))


async def endless_fragments(siege: Siege) -> None:
    """A message of ever more fragments."""
    begun = siege.door.upgrade() + frame(b"{", FIRST_FRAGMENT)
    never_started(siege, await many(siege, 25, begun, frame(b" ", MIDDLE_FRAGMENT)))


async def chatter(siege: Siege) -> None:
    """Messages that mean something to somebody, but are no start."""
    chatting = siege.door.upgrade() + frame(b'{"event":"connected"}') * 100
    never_started(siege, await many(siege, 10, chatting, frame(b'{"event":"x"}')))


def never_started(siege: Siege, endings: list[Ending]) -> None:
    reason = "no start message within 5 s"
    assert {(ending.code, ending.reason) for ending in endings} == {(1008, reason)}
    # It takes 2 s more until the connection is dropped of a client that does not answer the close frame.
    cut_after(endings, 4.5, 9.0)
    for _ in endings:
        siege.expect_line(reason)


def half_open(data: bytes, dripping: bytes = b"") -> Attack:
    """A line that has started, and from which no audio comes, is half-open after 10 s."""

    async def attack(siege: Siege) -> None:
        async with siege.promised() as line:
            (ending,) = await many(siege, 1, siege.door.upgrade() + line.start() + data, dripping, seconds=14)
        assert (ending.code, ending.reason) == (1001, "no media for 10 s")
        cut_after([ending], 9.0, 15.0)
        siege.expect_line("no media for 10 s")

    return attack


SLOW: Attacks = {
    "slow_headers": slow_headers,
    "slow_bodies": slow_bodies,
    "slow_chunks": slow_chunks,
    "no_start": no_start,
    "slow_frames": slow_frames,
    "endless_fragments": endless_fragments,
    "chatter": chatter,
    "half_open": half_open(b""),
    "half_open_with_a_slow_frame": half_open(frame(b"{", announced=64 * KIB), b" "),
    "half_open_with_endless_fragments": half_open(frame(b"{", FIRST_FRAGMENT), frame(b" ", MIDDLE_FRAGMENT)),
    "half_open_with_pings": half_open(b"", frame(b"", PING)),
}


# ---- floods ----------------------------------------------------------------------------------------

FLOOD_SECONDS = 4.0


async def idle_connections(siege: Siege) -> None:
    """Connections on which nothing is requested are cut after 5 s."""
    cut_after(await many(siege, 1000, b""), 4.5, 7.5)


async def connections_come_and_go(siege: Siege) -> None:
    """Opened, upgraded and reset, one after the other."""
    async with asyncio.timeout(FLOOD_SECONDS + 5):
        for _ in range(300):
            async with siege.socket():
                pass
            await asyncio.sleep(0.01)


def flooding(data: bytes, code: int, opening: bytes = b"") -> Attack:
    """The same frames again and again, on a new socket as soon as the one before is closed."""

    async def attack(siege: Siege) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + FLOOD_SECONDS
        while loop.time() < end:
            async with siege.socket() as attacker:
                ended = asyncio.create_task(attacker.ending())
                attacker.send(opening)
                await attacker.flood(data, end - loop.time())
                attacker.send(data * 10)
                assert (await ended).code == code
            await asyncio.sleep(0.05)

    return attack


async def idle_messages(siege: Siege) -> None:
    """Messages that mean nothing, as fast as they are taken."""
    async with siege.socket() as attacker:
        await attacker.flood(frame(b'{"event":"mark"}') * 100, FLOOD_SECONDS)


async def unsigned_requests(siege: Siege) -> None:
    """Many requests on one connection, none waiting for the answer of the one before."""
    request = siege.door.post(extra="Content-Length: 0\r\n")
    async with siege.attacker() as attacker:
        for _ in range(10):
            attacker.send(request * 20)
            await attacker.read_for(0.3)
        assert await attacker.status() == 403


FLOODS: Attacks = {
    "idle_connections": idle_connections,
    "connections_come_and_go": connections_come_and_go,
    "pings": flooding(frame(b"x" * 125, PING) * 20, 1008),
    "closes": flooding(frame((1000).to_bytes(2, "big"), CLOSE) * 20, 1000),
    "fragments": flooding(frame(b"x", MIDDLE_FRAGMENT) * 20, 1008, opening=frame(b"x", FIRST_FRAGMENT)),
    "idle_messages": idle_messages,
    "unsigned_requests": unsigned_requests,
}


# ---- ends that do not read, and a model that talks nonsense ----------------------------------------

DEAF_SECONDS = 10.0
HEARD_BYTES = 4000
"""What the caller hears in the end, if the call has survived."""


async def sent_to(connection: ServerConnection, kind: str) -> dict[str, Any]:
    """Reads until an event of this kind."""
    while True:
        event: dict[str, Any] = orjson.loads(await connection.recv())
        if event["type"] == kind:
            return event


async def say(connection: ServerConnection, kind: str, **fields: object) -> None:
    await connection.send(orjson.dumps({"type": kind, "event_id": "event_1", **fields}), text=True)


async def configured(connection: ServerConnection) -> None:
    """Does as the API does until the greeting is asked for."""
    await say(connection, "session.created", session={"type": "realtime"})
    update = await sent_to(connection, "session.update")
    await say(connection, "session.updated", session=update["session"])
    await sent_to(connection, "response.create")


def delta(audio: bytes, *, response: str = "resp_1", item: str = "item_1") -> bytes:
    return (
        b'{"type":"response.output_audio.delta","event_id":"event_1","response_id":"%b","item_id":"%b",'
        b'"output_index":0,"content_index":0,"delta":"%b"}'
        % (response.encode(), item.encode(), base64.b64encode(audio))
    )


async def answer(connection: ServerConnection) -> None:
    """A whole answer, as it should be."""
    response = {"object": "realtime.response", "id": "resp_ok", "status": "in_progress", "metadata": None}
    await say(connection, "response.created", response=response)
    for _ in range(5):
        await connection.send(
            delta(b"\x11" * (HEARD_BYTES // 5), response="resp_ok", item="item_ok"), text=True
        )
    await say(connection, "response.output_audio.done", response_id="resp_ok", item_id="item_ok")
    await say(connection, "response.done", response=response | {"status": "completed"})


async def until_closed(connection: ServerConnection) -> int:
    """Reads on to the end, and gives the code of the daemon's close frame."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            await connection.recv()
    return connection.protocol.close_rcvd.code if connection.protocol.close_rcvd else 1006


NONSENSE: Mapping[str, bytes] = {
    "no_json": b"}{",
    "nothing": b"",
    "deep_arrays": b"[" * MIB,
    "array": b"[]",
    "no_type": b"{}",
    "type_is_a_number": b'{"type":1}',
    "unknown_type": b'{"type":"session.weather.changed"}',
    "text_of_1_mib": b'{"type":"session.weather.changed","x":"%b"}' % (b"x" * MIB),
    "huge_number": b'{"type":"x","n":' + b"9" * 100_000 + b"}",
    **{
        f"bare_{kind}": b'{"type":"%b"}' % kind.encode()
        for kind in (
            "error",
            "session.updated",
            "response.created",
            "response.done",
            "response.output_audio.delta",
            "response.output_audio.done",
            "response.output_item.done",
            "conversation.item.added",
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "response.output_audio_transcript.delta",
            "conversation.item.input_audio_transcription.completed",
        )
    },
    "null_fields": b'{"type":"response.done","response":null}',
    "error_of_a_string": b'{"type":"error","error":"x"}',
    "error_of_nothing": b'{"type":"error","error":{}}',
    "speech_at_a_word": b'{"type":"input_audio_buffer.speech_started","item_id":"i","audio_start_ms":"soon"}',
    "speech_of_nobody": b'{"type":"input_audio_buffer.speech_started","item_id":null,"audio_start_ms":1}',
    "speech_of_a_number": b'{"type":"input_audio_buffer.speech_stopped","item_id":1,"audio_end_ms":1}',
    "speech_at_no_time": b'{"type":"input_audio_buffer.speech_started","item_id":"i","audio_start_ms":1e300}',
    "words_of_nobody": (
        b'{"type":"conversation.item.input_audio_transcription.completed","item_id":null,"transcript":"x"}'
    ),
    "words_of_a_number": b'{"type":"response.output_audio_transcript.done","item_id":"i","transcript":7}',
    "piece_of_a_number": b'{"type":"response.output_audio_transcript.delta","item_id":"i","delta":7}',
    "item_of_a_number": b'{"type":"conversation.item.added","item":{"id":[]},"previous_item_id":{}}',
    "delta_of_no_base64": delta(b"").replace(b'"delta":""', b'"delta":"!!!"'),
    "delta_of_half_base64": delta(b"").replace(b'"delta":""', b'"delta":"AAA"'),
    "delta_with_a_quote": delta(b"").replace(b'"delta":""', b'"delta":"AAAA\\"},AAAA"'),
    "delta_of_a_number": delta(b"").replace(b'"delta":""', b'"delta":1'),
    "delta_of_nobody": delta(b"", item=""),
    "done_of_an_unknown_item": b'{"type":"response.output_audio.done","item_id":"item_unknown"}',
    "transcript_of_an_unknown_item": (
        b'{"type":"response.output_audio_transcript.done","item_id":"item_unknown","transcript":"x"}'
    ),
}
FATAL: Mapping[str, tuple[bytes, int]] = {
    "masked": (frame(b"{}"), 1002),
    "rsv1": (frame(b"{}", 0xC1, masked=False), 1002),
    "unknown_opcode": (frame(b"{}", 0x83, masked=False), 1002),
    "no_utf8": (frame(b"\xff\xfe", masked=False), 1007),
    "one_gib_announced": (frame(b"x", masked=False, announced=1 << 30), 1009),
    "random_bytes": (random_bytes(7), 1002),
}


def nonsense(name: str) -> Attack:
    """What the model says wrong is passed over, and what it says right is heard."""

    async def act(connection: ServerConnection) -> None:
        await configured(connection)
        for _ in range(20):
            await connection.send(NONSENSE[name], text=True)
        await answer(connection)
        await until_closed(connection)

    return survived(Rogue(act=act))


async def binary_nonsense(siege: Siege) -> None:
    async def act(connection: ServerConnection) -> None:
        await configured(connection)
        for _ in range(20):
            await connection.send(random_bytes(8))
        await answer(connection)
        await until_closed(connection)

    await survived(Rogue(act=act))(siege)


def survived(rogue: Rogue) -> Attack:
    """A call with such a model ends when its caller hangs up, and not before."""

    async def attack(siege: Siege) -> None:
        async with siege.phone() as phone:
            await siege.dial(phone, rogue)
            await phone.wait_heard(HEARD_BYTES)
            assert phone.live
            await phone.hang_up()
            assert not phone.violations
            assert not phone.errors
            await siege.daemon.record(phone.call_sid)

    return attack


def fatal(name: str) -> Attack:
    """Where the model breaks WebSocket, it is told so, and the caller hears words instead of silence."""
    data, code = FATAL[name]

    async def attack(siege: Siege) -> None:
        codes: list[int] = []

        async def act(connection: ServerConnection) -> None:
            await configured(connection)
            connection.transport.write(data)
            codes.append(await until_closed(connection))

        async with siege.phone() as phone:
            await siege.dial(phone, Rogue(act=act))
            await asyncio.wait_for(phone.ended(), 10)
            assert phone.said
        assert codes == [code]

    return attack


async def answer_without_end(siege: Siege) -> None:
    """150 s of speech at once: what outgrows two minutes is cancelled, and the call goes on."""
    cancelled: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def act(connection: ServerConnection) -> None:
        await configured(connection)
        await say(connection, "response.created", response={"id": "resp_1", "status": "in_progress"})
        for _ in range(3000):
            await connection.send(delta(b"\x11" * 400), text=True)
        cancelled.set_result((await sent_to(connection, "response.cancel"))["response_id"])
        await until_closed(connection)

    async with siege.phone() as phone:
        await siege.dial(phone, Rogue(act=act))
        assert await asyncio.wait_for(cancelled, 10) == "resp_1"
        await phone.wait_heard(HEARD_BYTES)
        assert phone.live
        await phone.hang_up()
        assert not phone.violations


async def deaf_model(siege: Siege) -> None:
    """A model that does not read for 10 s, while far more audio comes than usual, gets what could wait."""
    reads_again = asyncio.Event()
    appended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def act(connection: ServerConnection) -> None:
        await configured(connection)
        connection.transport.pause_reading()
        await reads_again.wait()
        connection.transport.resume_reading()
        count = 0
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            while True:
                event = orjson.loads(await asyncio.wait_for(connection.recv(), 1))
                count += len(base64.b64decode(event["audio"])) if "audio" in event else 0
        appended.set_result(count)
        await until_closed(connection)

    async with siege.promised(Rogue(act=act)) as line, siege.socket() as attacker:
        attacker.send(line.start())
        sent = 0
        for _ in range(round(DEAF_SECONDS * 10)):
            attacker.send(b"".join(line.media() for _ in range(300)))
            sent += 300 * 160
            await asyncio.sleep(0.1)
        reads_again.set()
        got = await asyncio.wait_for(appended, 15)
        assert not attacker.cut
        assert 80_000 < got < sent


async def deaf_line(siege: Siege) -> None:
    """A line that does not read for 10 s, while the model has a lot to say, has missed nothing after it."""
    script = Script(greeting=Answer(text="x", audio=b"\x11" * 8000 * 60, pace=30), vad="manual")
    async with siege.promised(script) as line, siege.socket(receive_bytes=4096) as attacker:
        attacker.send(line.start())
        await attacker.read_for(0.5)
        attacker.stop_reading()
        for _ in range(round(DEAF_SECONDS * 50)):
            attacker.send(line.media())
            await asyncio.sleep(0.02)
        attacker.read_on()
        reading = asyncio.create_task(attacker.read_for(1.0))
        for _ in range(50):
            attacker.send(line.media())
            await asyncio.sleep(0.02)
        await reading
        assert not attacker.cut
        spoken = [orjson.loads(message) for message in attacker.messages()]
        audio = b"".join(base64.b64decode(it["media"]["payload"]) for it in spoken if it["event"] == "media")
        assert audio.strip(b"\x11") == b""
        assert len(audio) > (DEAF_SECONDS + 1) * 8000


ROGUES: Attacks = {
    **{f"model_{name}": nonsense(name) for name in NONSENSE},
    "model_binary": binary_nonsense,
    **{f"model_breaks_websocket_{name}": fatal(name) for name in FATAL},
    "answer_without_end": answer_without_end,
    "deaf_model": deaf_model,
    "deaf_line": deaf_line,
}


# ---- the sieges ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Damage:
    once = {name: breaking(name, rounds=1) for name in BROKEN}
    return besiege(tmp_path_factory.mktemp("refused"), REFUSED, warm_up=once)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Damage:
    return besiege(tmp_path_factory.mktemp("slow"), SLOW)


@pytest.fixture(scope="module")
def floods(tmp_path_factory: pytest.TempPathFactory) -> Damage:
    return besiege(tmp_path_factory.mktemp("floods"), FLOODS)


@pytest.fixture(scope="module")
def rogues(tmp_path_factory: pytest.TempPathFactory) -> Damage:
    return besiege(tmp_path_factory.mktemp("rogues"), ROGUES)


def judge(raised: BaseException | None) -> None:
    if raised is not None:
        raise raised


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, refused: Damage) -> None:
    """Each attacker is refused with a named code and reason, or an HTTP status."""
    judge(refused.raised[name])


@pytest.mark.parametrize("name", SLOW)
def test_slow(name: str, slow: Damage) -> None:
    """Each client that takes his time is cut off."""
    judge(slow.raised[name])


@pytest.mark.parametrize("name", FLOODS)
def test_flood(name: str, floods: Damage) -> None:
    """Each flood is cut off, or passes by."""
    judge(floods.raised[name])


@pytest.mark.parametrize("name", ROGUES)
def test_rogue(name: str, rogues: Damage) -> None:
    """Each call with such an end goes on, or ends in order."""
    judge(rogues.raised[name])


@pytest.mark.parametrize(
    ("siege", "kept", "most"),
    [("refused", 8, 24), ("slow", 16, 48), ("floods", 16, 48), ("rogues", 16, 48)],
)
def test_nothing_else_is_disturbed(
    siege: str, kept: int, most: int, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """The daemon keeps none of its attackers, and the call beside them loses no frame.

    Args:
        kept: MiB that the daemon may have grown afterwards, and
        most: meanwhile.
    """
    damage: Damage = request.getfixturevalue(siege)
    before, highest, after = (size / MIB for size in damage.memory)
    call = damage.call
    with capsys.disabled():
        print(
            f"\n{siege}: {damage.connections} connections; the call beside them: {call.frames} frames, "
            f"p50 {call.p50_ms:.1f} ms, p99 {call.p99_ms:.1f} ms (frames sent late: {call.late_ms:.1f} ms); "
            f"memory {before:.1f} MiB, {highest:.1f} at the most, {after:.1f} afterwards; "
            f"{len(damage.log)} lines in the log"
        )
    assert call.lost == 0
    assert call.p99_ms < CALL_P99_MS
    assert damage.complaints == []
    assert after - before < kept
    assert highest - before < most
    assert damage.files[1] <= damage.files[0]


@pytest.mark.parametrize("siege", ["refused", "slow", "floods", "rogues"])
def test_log_names_each_refusal_once(siege: str, request: pytest.FixtureRequest) -> None:
    """There is one line for each refusal, and none that would be a fault of ours."""
    damage: Damage = request.getfixturevalue(siege)
    reasons = Counter(line["fields"].get("reason") for line in damage.log)
    assert {reason: reasons[reason] for reason in damage.expected} == damage.expected
    assert [line for line in damage.log if line["exception"] or line["level"] == "ERROR"] == []


@pytest.mark.soak
def test_no_descriptor_left(tmp_path: Path) -> None:
    """A daemon that may open 100 files lets go of what comes on top; its call goes on, and so does it."""

    async def more_than_it_can_have(siege: Siege) -> None:
        endings = await many(siege, 400, b"")
        assert sum(ending.seconds < 3 for ending in endings) >= 300
        async with siege.phone() as phone:
            await siege.dial(phone, Script(echo=True))
            assert phone.live
            await phone.hang_up()

    damage = besiege(tmp_path, {"flood": more_than_it_can_have}, open_files=100)
    judge(damage.raised["flood"])
    assert damage.call.lost == 0
    assert damage.files[1] <= damage.files[0]
    assert len(damage.log) < 20
