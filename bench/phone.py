"""A simulated phone call: Twilio's webhooks, the TwiML that they answer, and the media streams it opens.

    async with PhoneCall("http://127.0.0.1:8080", auth_token=token) as call:
        await call.dial()
        await call.wait_answer()
        await call.say(speech.load("caller-leak").ulaw)
        await call.hang_up()

One `PhoneCall` is one call (CallSid). Each `<Connect><Stream>` that it runs is a `Leg`; a call may have
several, one after another. All times are seconds of `time.monotonic()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from handlehome.bench import media, twilio, twiml
from handlehome.bench.leg import NO_DELAY, FrameSource, Leg, Violation
from handlehome.bench.mouth import CallOverError, Mouth, Spoken
from handlehome.bench.network import LineDelay
from handlehome.bench.playback import BYTES_PER_SECOND, SILENCE
from handlehome.bench.twilio import Origin, WebhookAnswer, WebhookError
from handlehome.bench.webhooks import CallError, CallWebhooks
from handlehome.bench.websocket import CLOSE_SECONDS, StreamRefusedError

ACCOUNT_SID = "AC00000000000000000000000000000001"


class PhoneCall:
    """One inbound call. Use it as an asynchronous context manager, which leaves nothing behind.

    Args:
        base_url: Where the daemon listens.
        auth_token: Signs webhooks and the stream's upgrade; without it they carry no signature.
        public_url: What Twilio knows the daemon by; by default `base_url`.
        from_: The caller's number.
        to: The company's number.
        call_sid: By default a new one.
        account_sid: The Twilio account.
        delay: The line's delay.
        seed: Of the delay; by default the CallSid.
        source: The caller's audio, frame by frame; replaces `say`.
        frame_bytes: Size of an inbound payload.
        compact_json: Without spaces after separators.
        extra_fields: Unknown fields, added to every message of the stream.
        start_hook: Changes the `start` message (a wrong token, another callSid), or drops it with None.
        start_delay: Seconds between `connected` and `start`.
        webhook_path: Of the voice webhook.
        status_path: Of the call status callback.
        method: Of the voice webhook, `GET` or `POST`.
        form_extra: Further parameters of every webhook.
        dial_status: What `<Dial>` comes to, told to its action.
        keep_audio: Keep both sides' audio.

    Attributes:
        legs: The call's streams, the newest last.
        said: What `<Say>` told the caller.
        dialled: The numbers that `<Dial>` called.
        errors: What Twilio's Debugger would list.
    """

    def __init__(
        self,
        base_url: str,
        *,
        auth_token: str | None = None,
        public_url: str = "",
        from_: str = "+33612345678",
        to: str = "+33123456789",
        call_sid: str | None = None,
        account_sid: str = ACCOUNT_SID,
        delay: LineDelay = NO_DELAY,
        seed: int | str | None = None,
        source: FrameSource | None = None,
        frame_bytes: int = 160,
        compact_json: bool = True,
        extra_fields: Mapping[str, object] | None = None,
        start_hook: media.StartHook | None = None,
        start_delay: float = 0.0,
        webhook_path: str = "/incoming-call",
        status_path: str = "/call-status",
        method: str = "POST",
        form_extra: Mapping[str, str] | None = None,
        dial_status: str = "completed",
        keep_audio: bool = True,
    ) -> None:
        self.call_sid = call_sid or twilio.new_sid("CA")
        self.legs: list[Leg] = []
        self.said: list[str] = []
        self.dialled: list[str] = []
        self.errors: list[CallError] = []
        self._account_sid = account_sid
        self._auth_token = auth_token
        self._origin = Origin(base_url, public_url)
        form = twilio.voice_form(call_sid=self.call_sid, account_sid=account_sid, from_=from_, to=to)
        self._webhooks = CallWebhooks(self._origin, auth_token, form | dict(form_extra or {}), self.errors)
        self._delay = delay
        self._seed = self.call_sid if seed is None else seed
        self._frame_bytes = frame_bytes
        self._compact_json = compact_json
        self._extra_fields = extra_fields
        self._start_hook = start_hook
        self._start_delay = start_delay
        self._webhook_path = webhook_path
        self._status_path = status_path
        self._method = method
        self._dial_status = dial_status
        self._keep_audio = keep_audio
        self._mouth = Mouth()
        self._source = source or self._mouth.next_frame
        self._flow: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._began = asyncio.Event()
        self._hung_up = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cuts off whatever is still going on, without a word to the daemon, and frees everything."""
        self._hung_up = True
        self._mouth.close("the call was cut off")
        if self._flow is not None:
            self._flow.cancel()
            await asyncio.wait({self._flow})
        for leg in self.legs:
            leg.abort()
            await asyncio.wait_for(leg.gone.wait(), CLOSE_SECONDS)
        await self._webhooks.aclose()

    # What a caller does

    async def dial(self) -> None:
        """Requests the voice webhook and runs its TwiML, up to the first stream's `start`.

        Returns as well when the call is over without a stream: see `live`, `said` and `errors`.

        Raises:
            WebhookError: The webhook gave nothing to run; the caller hears an application error.
            twiml.TwimlError: Its TwiML is wrong.
        """
        verbs = await self._webhooks.fetch(self._webhook_path, self._method, CallStatus="ringing")
        self._flow = asyncio.create_task(self._run(verbs))
        await self._began.wait()
        if self._flow.done():
            self._flow.result()

    def say(self, ulaw: bytes, at: float = 0.0) -> asyncio.Future[Spoken]:
        """Puts speech into the line, behind what is already queued.

        Args:
            ulaw: Any mu-law; its last frame is filled up with silence.
            at: Begin no earlier than this time.

        Returns:
            A future, done when the last frame was sent; it raises `CallOverError` if the call ends first.
        """
        return self._mouth.say(ulaw, at)

    def dtmf(self, digits: str) -> None:
        """Presses keys."""
        for digit in digits:
            self.leg.dtmf(digit)

    async def hang_up(
        self,
        *,
        stop: bool = True,
        status_callback: bool = True,
        callback_first: bool = False,
        callback_twice: bool = False,
    ) -> None:
        """The caller hangs up: `stop`, close with 1000, then the status callback `completed`.

        Args:
            stop: Send the `stop` message.
            status_callback: Post the status callback at all.
            callback_first: Post it before the stream ends.
            callback_twice: Post it again, as a retry with the same idempotency token.
        """
        if self._hung_up:
            await self.ended()
            return
        self._hung_up = True
        repeat = 2 if callback_twice else 1
        if status_callback and callback_first:
            await self._webhooks.post_status(self._status_path, repeat)
        if self.legs and not self.leg.gone.is_set():
            leg = self.leg
            leg.close(stop=stop)
            try:
                await asyncio.wait_for(leg.gone.wait(), 2 * CLOSE_SECONDS)
            except TimeoutError:
                leg.abort()
        await self.ended()
        if status_callback and not callback_first:
            await self._webhooks.post_status(self._status_path, repeat)

    async def drop(self) -> None:
        """The stream is lost: its connection is reset without `stop`. The call goes on with its TwiML."""
        leg = self.leg
        leg.abort()
        await leg.gone.wait()

    def go_silent(self) -> None:
        """The stream is half-open: nothing more is sent, the connection stays."""
        self.leg.go_silent()

    async def ended(self) -> None:
        """Waits until the call is over: its TwiML has run to the end and its callbacks are answered."""
        if self._flow is not None:
            await asyncio.shield(self._flow)

    async def webhook(
        self, path_or_url: str, *, method: str = "POST", idempotency_token: str | None = None, **extra: str
    ) -> WebhookAnswer:
        """Requests any URL of the daemon with this call's parameters and `extra` ones, signed."""
        return await self._webhooks.request(path_or_url, method, idempotency_token, **extra)

    # What is known

    @property
    def leg(self) -> Leg:
        """The newest stream.

        Raises:
            CallOverError: There has been none.
        """
        if not self.legs:
            raise CallOverError(f"no stream was opened; errors: {self.errors}, said: {self.said}")
        return self.legs[-1]

    @property
    def webhook_ms(self) -> float:
        """How long the voice webhook took; 0.0 before."""
        return self._webhooks.first_ms

    @property
    def documents(self) -> list[str]:
        """The TwiML documents that were run."""
        return self._webhooks.documents

    @property
    def live(self) -> bool:
        """A stream is open."""
        return bool(self.legs) and self.legs[-1].live

    @property
    def over(self) -> bool:
        """The call has ended."""
        return self._flow is not None and self._flow.done()

    @property
    def violations(self) -> list[Violation]:
        """Messages of the relay, on any stream, that Twilio would have warned of."""
        return [violation for leg in self.legs for violation in leg.violations]

    @property
    def heard_bytes(self) -> int:
        """Bytes of the relay's audio that were audible so far, on all streams."""
        now = time.monotonic()
        return sum(
            leg.playback.played_at(now) if leg.live else leg.playback.played_bytes for leg in self.legs
        )

    def heard(self) -> bytes:
        """What the caller heard since the first `start`, as mu-law; 0xFF where nothing played."""
        now = time.monotonic()
        for leg in self.legs:
            if leg.live:
                leg.playback.played_at(now)
        return self._timeline(lambda leg: leg.playback.heard(leg.began, leg.ended or now))

    def spoken(self) -> bytes:
        """What the caller put into the line, on the same time line as `heard`."""
        return self._timeline(lambda leg: bytes(leg.sent_ulaw))

    def _timeline(self, audio: Callable[[Leg], bytes]) -> bytes:
        line = bytearray()
        for leg in self.legs:
            if not leg.began:
                continue
            begin = round((leg.began - self.legs[0].began) * BYTES_PER_SECOND)
            line += SILENCE * (begin - len(line))
            line[begin:] = audio(leg)
        return bytes(line)

    # Waiting, always for a bounded time; with the call's end all of it ends in CallOverError

    async def wait_leg(self, number: int, within: float = 10.0) -> Leg:
        """Waits for the call's stream of this number, from 1, to begin."""
        async with asyncio.timeout(within):
            while len(self.legs) < number or not self.legs[number - 1].began:
                if self.over:
                    raise CallOverError(f"over after {len(self.legs)} streams; errors: {self.errors}")
                self._changed.clear()
                await self._changed.wait()
        return self.legs[number - 1]

    async def wait_heard(self, count: int, within: float = 10.0) -> None:
        """Waits until `count` bytes of the relay's audio were audible, on all streams together."""

        def check(_now: float) -> float | None:
            missing = count - self.heard_bytes
            if missing <= 0:
                return 0.0
            return missing / BYTES_PER_SECOND if self.leg.playback.queued_bytes >= missing else None

        await self._until(check, within, f"{count} bytes heard")

    async def wait_quiet(self, quiet: float = 0.6, within: float = 30.0) -> None:
        """Waits until nothing has been audible for `quiet` seconds."""

        def check(now: float) -> float:
            return self.leg.playback.dry_at + quiet - now

        await self._until(check, within, f"{quiet} s of silence")

    async def wait_answer(self, quiet: float = 0.6, within: float = 30.0) -> None:
        """Waits until something new has been audible, and then nothing for `quiet` seconds."""
        deadline = time.monotonic() + within
        await self.wait_heard(self.heard_bytes + 1, within)
        await self.wait_quiet(quiet, deadline - time.monotonic())

    async def wait_stream_end(self, within: float = 10.0) -> None:
        """Waits until the newest stream has ended: the relay has sent its close frame, or it is lost."""
        await self._until(lambda _now: 0.0 if self.leg.ended else None, within, "the stream's end")

    async def _until(self, check: Callable[[float], float | None], within: float, what: str) -> None:
        """Waits until `check` is at most 0: it tells the seconds that are left, None if the relay decides."""
        deadline = time.monotonic() + within
        while True:
            now = time.monotonic()
            left = check(now)
            if left is not None and left <= 0:
                return
            if self.over or self._hung_up:
                raise CallOverError(f"the call ended before {what}; errors: {self.errors}")
            if now >= deadline:
                raise TimeoutError(f"no {what} within {within} s")
            wait = min(deadline - now, math.inf if left is None else left)
            self._changed.clear()
            try:
                # A millisecond more, because uvloop's timers may fire one early.
                await asyncio.wait_for(self._changed.wait(), wait + 0.001)
            except TimeoutError:
                continue

    # Running TwiML

    async def _run(self, verbs: list[twiml.Verb]) -> None:
        try:
            while verbs and not self._hung_up:
                verbs = await self._perform(verbs)
        except (WebhookError, twiml.TwimlError) as error:
            # The caller hears an application error, and the call ends.
            self.errors.append(CallError(error.code, error.reason))
        finally:
            self._mouth.close("the call has ended")
            self._began.set()
            self._changed.set()
        if not self._hung_up:
            self._hung_up = True
            await self._webhooks.post_status(self._status_path)

    async def _perform(self, verbs: list[twiml.Verb]) -> list[twiml.Verb]:
        """Runs a document; returns the next one, empty when the call is over."""
        for verb in verbs:
            match verb:
                case twiml.Connect(stream, action, method):
                    await self._stream(stream)
                    if self._hung_up:
                        return []
                    if action:
                        return await self._webhooks.fetch(action, method)
                case twiml.Dial(number, action, method):
                    self.dialled.append(number)
                    if action:
                        return await self._webhooks.fetch(action, method, DialCallStatus=self._dial_status)
                case twiml.Redirect(url, method):
                    return await self._webhooks.fetch(url, method)
                case twiml.Say(text):
                    self.said.append(text)
                case twiml.Pause():
                    pass
                case twiml.Hangup() | twiml.Reject():
                    return []
        return []

    async def _stream(self, stream: twiml.Stream) -> None:
        """Runs one media stream to its end."""
        stream_sid = twilio.new_sid("MZ")
        leg = Leg(
            media.StreamMessages(
                self._account_sid,
                self.call_sid,
                stream_sid,
                stream.parameters,
                compact=self._compact_json,
                extra=self._extra_fields,
            ),
            self._source,
            delay=self._delay,
            seed=f"{self._seed} {len(self.legs)}",
            frame_bytes=self._frame_bytes,
            keep_audio=self._keep_audio,
            changed=self._changed,
        )
        parts = urlsplit(stream.url)
        signature = twilio.signature(self._auth_token, stream.url) if self._auth_token is not None else None
        try:
            # Twilio drops the query.
            target = self._origin.connect(urlunsplit(parts._replace(query="", fragment="")))
            await leg.open(target, host=parts.netloc, signature=signature)
        except StreamRefusedError as error:
            self.errors.append(CallError(error.code, error.reason))
            await self._webhooks.post_stream_status(stream, stream_sid, "stream-error", str(error))
            return
        self.legs.append(leg)
        if self._start_delay:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(leg.gone.wait(), self._start_delay)
        if self._hung_up:
            leg.close()
        else:
            leg.begin(self._start_hook)
        self._began.set()
        self._changed.set()
        await self._webhooks.post_stream_status(stream, stream_sid, "stream-started")
        await leg.gone.wait()
        if leg.close_code is None and not self._hung_up:
            self.errors.append(CallError(31921, "the stream was lost"))
        elif leg.close_code not in {None, 1000}:
            self.errors.append(CallError(31921, f"closed by the relay: {leg.close_code} {leg.close_reason}"))
        await self._webhooks.post_stream_status(stream, stream_sid, "stream-stopped")
