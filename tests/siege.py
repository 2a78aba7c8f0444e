"""A daemon under attack, and the ordinary call that is relayed beside it and must not notice."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import resource
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from handlehome.bench import twiml
from handlehome.bench.phone import PhoneCall
from handlehome.bench.realtime.handle import SimSession
from handlehome.bench.realtime.script import Script
from tests.attackers import Attacker, Door, Line, MixedModel
from tests.harness import KEY, TOKEN, RunningDaemon, Stage, running_daemon

FRAME_BYTES = 160
HEAD_START = b"\xff" * 4000
"""Half a second of audio: a real model is as far ahead of the ear, so that its line never runs dry."""

SOCKETS = 4096
"""Open files that attackers and daemon may have; some systems allow 1024 if they are not asked."""

Attack = Callable[["Siege"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Passage:
    """What the ordinary call went through in a stretch of time.

    Attributes:
        frames: the caller's frames in it.
        lost: those that did not come back.
        p50_ms: from a frame's way into the phone's socket to its audio's way out of it, by the model.
        p99_ms: the same.
        late_ms: p99 of how late this process itself sent them, which is in the numbers above.
    """

    frames: int
    lost: int
    p50_ms: float
    p99_ms: float
    late_ms: float


class OrdinaryCall:
    """A caller whose frames are numbered, and a model that says at once what it hears."""

    def __init__(self, stage: Stage) -> None:
        self.phone: PhoneCall = stage.phone(source=_numbered)
        self._stage = stage
        self._session: SimSession
        self._head_at = 0

    async def begin(self) -> None:
        """Dials, and waits until frames come back."""
        number = await self._stage.dial(self.phone, Script(echo=True))
        session = self._session = await self._stage.session(number)
        await session.wait_until(
            lambda it: any(sent.type == "response.output_item.added" for sent in it.sent)
        )
        added = next(sent for sent in session.sent if sent.type == "response.output_item.added")
        self._head_at = session.appended
        (item_id,) = (item for item, body in session.items.items() if body.body["role"] == "assistant")
        session.send_raw(
            {
                "type": "response.output_audio.delta",
                "event_id": "event_head_start",
                "response_id": added.response_id,
                "item_id": item_id,
                "output_index": 0,
                "content_index": 0,
                "delta": base64.b64encode(HEAD_START).decode(),
            }
        )
        await self.phone.wait_heard(len(HEAD_START))

    @property
    def sent(self) -> int:
        """Frames so far."""
        return len(self.phone.leg.sent_at)

    async def passage(self, first: int, within: float = 3.0) -> Passage:
        """Looks at the frames from number `first` to now; waits for those on their way."""
        last = self.sent
        leg, session = self.phone.leg, self._session
        wanted = last * FRAME_BYTES + len(HEAD_START)
        deadline = time.monotonic() + within
        while leg.playback.appended_bytes < wanted and time.monotonic() < deadline:  # noqa: ASYNC110 - bounded
            await asyncio.sleep(0.02)
        pieces = ((int(it.detail), it.at) for it in leg.received if it.event == "media")
        back = _arrivals(pieces, last, self._head_at)
        took = sorted((at - leg.sent_at[number]) * 1000 for number, at in enumerate(back) if number >= first)
        late = sorted(
            (leg.sent_at[number] - leg.began - (number + 1) * FRAME_BYTES / 8000) * 1000
            for number in range(first, last)
        )
        heard = bytes(session.audio)
        assert heard[: last * FRAME_BYTES] == leg.sent_ulaw[: last * FRAME_BYTES], "the model heard otherwise"
        said = leg.sent_ulaw[: self._head_at] + HEAD_START + leg.sent_ulaw[self._head_at :]
        leg.playback.played_at(time.monotonic())
        played = leg.playback.played()
        assert played == said[: len(played)], "the caller heard otherwise"
        return Passage(
            last - first, last - len(back), _share(took, 0.5), _share(took, 0.99), _share(late, 0.99)
        )

    def complaints(self) -> list[object]:
        """What either simulator has to say against the daemon."""
        return [*self.phone.violations, *self.phone.errors, *self._session.violations]


def _numbered(number: int, size: int) -> bytes:
    return (b"%08d" % number) * (size // 8)


def _arrivals(pieces: Iterable[tuple[int, float]], frames: int, head_at: int) -> list[float]:
    """When each frame had come back whole, from sizes and times of what came.

    Args:
        pieces: size in bytes and time of each message.
        frames: how many to look at.
        head_at: where in the caller's audio the head start was put in.
    """
    arrivals: list[float] = []
    position = 0
    for size, at in pieces:
        position += size
        while len(arrivals) < frames:
            end = (len(arrivals) + 1) * FRAME_BYTES
            if position < end + (len(HEAD_START) if end > head_at else 0):
                break
            arrivals.append(at)
    return arrivals


def _share(ordered: list[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


@dataclass(slots=True)
class Damage:
    """What a siege has done.

    Attributes:
        raised: by each attack; None where all went as it should.
        memory: the daemon's resident bytes: before, at the most, and afterwards.
        files: its open files before and afterwards, without its databases': SQLite keeps the descriptors
            of files that it has closed for the next opening, since closing them would end its locks.
        call: what the ordinary call went through meanwhile.
        complaints: its simulators'.
        connections: opened by attackers.
        log: lines that were written meanwhile.
        expected: how many lines with which reason the attacks must have caused.
    """

    raised: dict[str, BaseException | None] = field(default_factory=dict)
    memory: tuple[int, int, int] = (0, 0, 0)
    files: tuple[int, int] = (0, 0)
    call: Passage = field(default_factory=lambda: Passage(0, 0, 0, 0, 0))
    complaints: list[object] = field(default_factory=list)
    connections: int = 0
    log: list[dict[str, Any]] = field(default_factory=list)
    expected: Counter[str] = field(default_factory=Counter)


class Siege(Stage):
    """A daemon, its simulated model, the ordinary call, and what attackers need.

    Attributes:
        call: the ordinary one.
        door: the media socket's.
        damage: done so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.model = MixedModel(self._take, api_key=KEY, seed=1)
        self.call: OrdinaryCall
        self.door: Door
        self.damage = Damage()

    @asynccontextmanager
    async def attacker(self, greeting: bytes = b"", **options: Any) -> AsyncIterator[Attacker]:
        """A TCP connection, on which `greeting` was sent."""
        self.damage.connections += 1
        async with await Attacker.open(self.door.port, **options) as attacker:
            attacker.send(greeting)
            yield attacker

    @asynccontextmanager
    async def socket(self, **options: Any) -> AsyncIterator[Attacker]:
        """A WebSocket that Twilio might have opened."""
        async with self.attacker(self.door.upgrade(), **options) as attacker:
            assert await attacker.status() == 101
            yield attacker

    @asynccontextmanager
    async def promised(self, script: Script | None = None) -> AsyncIterator[Line]:
        """A call whose webhook was answered; it is over in the end."""
        async with self.phone() as phone:
            documents: list[bytes] = []

            async def ring() -> None:
                documents.append((await phone.webhook("/incoming-call", CallStatus="ringing")).body)

            await self.dial(phone, script or Script(), ring)
            (connect,) = twiml.parse(documents[0], f"{self.daemon.url}/incoming-call")
            assert isinstance(connect, twiml.Connect)
            try:
                yield Line(phone.call_sid, dict(connect.stream.parameters))
            finally:
                await phone.webhook("/call-status", CallStatus="completed")

    def expect_line(self, reason: str) -> None:
        """One line with this reason has to stand in the log in the end."""
        self.damage.expected[reason] += 1


def besiege(
    folder: Path,
    attacks: Mapping[str, Attack],
    *,
    seconds: float = 25.0,
    warm_up: Mapping[str, Attack] | None = None,
    open_files: int | None = None,
) -> Damage:
    """Carries out attacks, all at once, on a daemon of their own, and tells what became of it.

    Args:
        folder: of the daemon.
        attacks: by name; each raises what it did not expect.
        seconds: how long any of them may take.
        warm_up: attacks to carry out once before anything is measured.
        open_files: how many the daemon may have; None leaves it what it has.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (SOCKETS if most < 0 else min(SOCKETS, most), most))
    return uvloop.run(_besiege(folder, attacks, seconds, warm_up or {}, open_files))


async def _besiege(
    folder: Path,
    attacks: Mapping[str, Attack],
    seconds: float,
    warm_up: Mapping[str, Attack],
    open_files: int | None,
) -> Damage:
    siege = Siege()
    # What is lost is given up at once, so that what belongs to it is freed within the siege.
    settings = {"RESUME_SECONDS": "1", "DRAIN_SECONDS": "1", "MAX_CALLS": "200"}
    async with siege.model, running_daemon(folder, siege.model.url, settings) as siege.daemon:
        if open_files is not None:
            resource.prlimit(siege.daemon.pid, resource.RLIMIT_NOFILE, (open_files, open_files))
        siege.url = siege.daemon.url
        siege.call = OrdinaryCall(siege)
        async with siege.call.phone as phone:
            await siege.call.begin()
            (connect,) = twiml.parse(phone.documents[0], f"{siege.daemon.url}/incoming-call")
            assert isinstance(connect, twiml.Connect)
            siege.door = Door(connect.stream.url, TOKEN)
            files = _open_files(siege.daemon)
            await _attack(siege, warm_up, seconds)
            damage = siege.damage = Damage()
            await _measure(siege, attacks, seconds, files)
            damage.complaints = siege.call.complaints()
            await phone.hang_up()
    return damage


async def _attack(
    siege: Siege, attacks: Mapping[str, Attack], seconds: float
) -> dict[str, BaseException | None]:
    async def bounded(attack: Attack) -> None:
        async with asyncio.timeout(seconds):
            await attack(siege)

    raised = await asyncio.gather(*map(bounded, attacks.values()), return_exceptions=True)
    return dict(zip(attacks, raised, strict=True))


async def _measure(siege: Siege, attacks: Mapping[str, Attack], seconds: float, files: int) -> None:
    daemon, damage = siege.daemon, siege.damage
    files = await _settled(daemon, files)
    lines, first, before = len(daemon.log()), siege.call.sent, daemon.memory_bytes()
    most = before

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, daemon.memory_bytes())
            await asyncio.sleep(0.1)

    watching = asyncio.create_task(watch())
    damage.raised = await _attack(siege, attacks, seconds)
    watching.cancel()
    damage.call = await siege.call.passage(first)
    damage.files = (files, await _settled(daemon, files))
    damage.memory = (before, most, daemon.memory_bytes())
    damage.log = daemon.log()[lines:]


async def _settled(daemon: RunningDaemon, files: int, within: float = 5.0) -> int:
    """Waits until the daemon has no more than `files` open; gives what it has."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            while _open_files(daemon) > files:  # noqa: ASYNC110 - nothing tells when another process has closed one
                await asyncio.sleep(0.05)
    return _open_files(daemon)


def _open_files(daemon: RunningDaemon) -> int:
    count = 0
    for descriptor in Path(f"/proc/{daemon.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += not descriptor.readlink().is_relative_to(daemon.data)
    return count
