"""A light load: many calls at once, both ends of a relay in one process.

    async with Load(calls=100) as load:
        ...  # start a relay that opens its sessions at load.model_url
        await load.dial("http://127.0.0.1:8080")
        load.begin_window()
        await asyncio.sleep(10)
        window = load.end_window()

Each phone sends a frame of 160 bytes every 20 ms, by absolute deadlines; the phones' phases are spread over
the 20 ms. Each model session returns every append's audio at once, as a delta of one endless response, and is
half a second ahead, as a real model is: otherwise the relay would, rightly, gather audio whenever the load is
late. Latencies are measured here, outside the relay, so what this process itself adds is in them.

The simulators (`phone`, `realtime`) follow the protocols to the letter. This is a load: its messages are
right, and everything else is as little as it takes. Messages are put together and cut up by hand, and clients
mask with zeros, which costs the relay what any mask costs.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from types import TracebackType
from typing import Self

from handlehome.bench import twilio, twiml
from handlehome.bench.loadcall import Ledger, Phone, Session, Totals, Window
from handlehome.bench.phone import ACCOUNT_SID
from handlehome.bench.twilio import Origin, WebhookClient

FRAME_SECONDS = 0.02
SLOTS = 20
"""Phases of the phones; also the ticks, one a millisecond."""


class LoadError(Exception):
    """The relay did not do what the load needs."""


class Load:
    """The calls and their clock. Use it as an asynchronous context manager, on uvloop.

    Args:
        calls: How many, at most 999.
        auth_token: Signs webhooks and upgrades.

    Attributes:
        model_url: Where the relay is to open its sessions.
        ledger: What both ends have noted.
        webhook_ms: How long each voice webhook took.
    """

    def __init__(self, calls: int, *, auth_token: str | None = None) -> None:
        if not 1 <= calls <= 999:
            raise ValueError(f"{calls} calls: 1 to 999 are possible")
        self.model_url = ""
        self.ledger = Ledger()
        self.webhook_ms: list[float] = []
        self._auth_token = auth_token
        self._phones = self.ledger.phones
        self._phones.extend(Phone(self.ledger, index) for index in range(calls))
        bounds = [slot * calls // SLOTS for slot in range(SLOTS + 1)]
        self._slots = [self._phones[bounds[slot] : bounds[slot + 1]] for slot in range(SLOTS)]
        self._server: asyncio.Server | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._sending = True
        self._ticks = 0
        self._began = 0.0
        self._window_began = (0.0, 0.0, Totals())

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Session(self.ledger), "127.0.0.1", 0, backlog=1024)
        self.model_url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1/realtime"
        self._began = time.monotonic()
        self._tick()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.hang_up()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def hang_up(self) -> None:
        """Ends all calls and waits until they are gone."""
        self.ledger.ending = True
        if self._ticker is not None:
            self._ticker.cancel()
        for phone in self._phones:
            phone.stop()
        for session in self.ledger.sessions:
            session.close()
        await asyncio.gather(*(end.gone for end in (*self._phones, *self.ledger.sessions) if end.connected))

    async def dial(self, base_url: str, *, webhook: bool = True, within: float = 30.0) -> None:
        """Sets up all calls, one after the other, and waits until every one of them is relayed.

        Args:
            base_url: Where the relay listens.
            webhook: Ask for the stream by a voice webhook, as Twilio does; otherwise it is opened at once.
            within: Seconds for the whole.

        Raises:
            LoadError: The relay has no stream for a call, or a call's frames do not arrive.
            WebhookError: No answer to a webhook.
            TwimlError: Its TwiML is wrong.
            HandshakeError: A stream was refused.
            OSError: The relay can't be reached.
        """
        origin = Origin(base_url)
        try:
            async with asyncio.timeout(within), WebhookClient(origin, self._auth_token) as client:
                for phone in self._phones:
                    await self._dial(phone, origin, client if webhook else None)
                for phone in self._phones:
                    await phone.relayed.wait()
        except TimeoutError:
            ready = sum(phone.relayed.is_set() for phone in self._phones)
            reason = f"{ready} of {len(self._phones)} calls are relayed after {within} s"
            raise LoadError("; ".join([reason, *self.ledger.faults[:3]])) from None

    async def _dial(self, phone: Phone, origin: Origin, client: WebhookClient | None) -> None:
        call_sid = twilio.new_sid("CA")
        url = origin.base_url.replace("http", "ws", 1) + "/media-stream"
        parameters: dict[str, str] = {}
        if client is not None:
            form = twilio.voice_form(
                call_sid=call_sid, account_sid=ACCOUNT_SID, from_="+33612345678", to="+33123456789"
            )
            webhook_url = origin.public("/incoming-call")
            answer = await client.request(webhook_url, form | {"CallStatus": "ringing"})
            self.webhook_ms.append(answer.ms)
            if answer.status != 200:
                raise LoadError(f"call {phone.index}: the webhook answered {answer.status}")
            verb = twiml.parse(answer.body, webhook_url)[0]
            if not isinstance(verb, twiml.Connect):
                raise LoadError(f"call {phone.index} got no stream: {answer.body.decode()}")
            url, parameters = verb.stream.url, dict(verb.stream.parameters)
        signature = twilio.signature(self._auth_token, url) if self._auth_token is not None else None
        await phone.connect(origin.connect(url), url, signature)
        phone.start(call_sid, parameters)

    def greeting_ms(self) -> list[float]:
        """For each call, ms from its `start` to the request for the greeting."""
        return [
            (phone.session.asked_at - phone.started) * 1000
            for phone in self._phones
            if phone.session is not None and phone.session.asked_at
        ]

    def begin_window(self) -> None:
        """Measures from here on."""
        self._window_began = (time.monotonic(), time.process_time(), replace(self.ledger.totals))
        self.ledger.window = Window()

    def end_window(self) -> Window:
        """Ends the measurement."""
        window, self.ledger.window = self.ledger.window, None
        if window is None:
            raise ValueError("no window was begun")
        began, cpu, totals = self._window_began
        window.seconds = time.monotonic() - began
        window.busy = (time.process_time() - cpu) / window.seconds
        window.totals = self.ledger.totals.since(totals)
        return window

    async def settle(self, within: float = 5.0) -> int:
        """Stops sending for a moment; returns how many frames are missing `within` seconds later."""
        self._sending = False
        for _ in range(round(within / FRAME_SECONDS)):
            if not self.ledger.totals.missing:
                break
            await asyncio.sleep(FRAME_SECONDS)
        self._sending = True
        return self.ledger.totals.missing

    async def barge_in(self, seconds: float) -> list[float]:
        """Interrupts the calls' responses one after the other, 100 a second at most and each once a second.

        What is lost or late from here on is due to the interruptions.

        Returns:
            Seconds from `speech_started` to `clear`, for those that were acted on.
        """
        sessions = self.ledger.sessions
        pause = max(0.01, 1.0 / len(sessions))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for session in sessions:
                session.interrupt()
                asyncio.get_running_loop().call_later(0.3, session.resume)
                await asyncio.sleep(pause)
        await asyncio.sleep(0.5)
        return self.ledger.barge_ins

    def _tick(self) -> None:
        """Runs the slots that are due, and waits for the next one."""
        seconds = FRAME_SECONDS / SLOTS
        while (late := time.monotonic() - self._began - self._ticks * seconds) >= 0:
            if self.ledger.window is not None:
                self.ledger.window.lateness.append(late)
            if self._sending:
                for phone in self._slots[self._ticks % SLOTS]:
                    phone.tick()
            self._ticks += 1
        self._ticker = asyncio.get_running_loop().call_later(seconds, self._tick)
