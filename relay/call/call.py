"""One call: its life, its legs, its model, its transcript, and who may interrupt whom.

A call is not its stream. It owns legs, one after another, and at most one at a time; only the call
ends. Phone and model are known by their interfaces; times are loop time in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from handlehome.codecs.playout import Heard
from handlehome.relay.call.leg import Leg, Stream
from handlehome.relay.call.life import EndReason, Event, Life, State
from handlehome.relay.call.premises import Party, Premises, Resumed
from handlehome.relay.call.tape import Tape
from handlehome.relay.call.tools import END_CALL
from handlehome.relay.call.transcript import Transcript
from handlehome.relay.logs import Event as Happening
from handlehome.relay.logs import call_logger, log_event
from handlehome.relay.model.interface import Model, ModelLost
from handlehome.relay.phone.handler import StreamEnd
from handlehome.relay.recording import Recording
from handlehome.relay.wheel import Timer

CLOSE_SECONDS = 30.0
"""How long Twilio may take to ask what comes after a stream that we closed."""

GOODBYE_SECONDS = 20.0
"""How long a goodbye may take to be heard, if it is not longer than that."""

GOODBYE_MARGIN_SECONDS = 2.0
"""For the last mark of a long goodbye to come back."""

TRANSCRIPT_SECONDS = 3.0
"""How long the end of a call waits for the words of the caller's last turn."""

_ENDS = {
    StreamEnd.STOPPED: Event.CALLER_HUNG_UP,
    StreamEnd.DROPPED: Event.LEG_DROPPED,
    StreamEnd.SILENT: Event.LEG_SILENT,
    StreamEnd.BROKEN: Event.LEG_BROKEN,
}


class Call:
    """A call between its webhook and its end. Implements the model's `Listener`.

    Args:
        party: who calls whom.
        premises: shared by all calls.
        finished: called once, when nothing more comes: the record can be saved.
        resumes: what an earlier process knew of this call; None for a new one.
    """

    __slots__ = (
        "_began",
        "_caller_origin",
        "_clock",
        "_dead_response",
        "_done",
        "_finished",
        "_greeted",
        "_heard_before",
        "_leaving",
        "_log",
        "_opening",
        "_outgrown",
        "_owed",
        "_premises",
        "_recording",
        "_retried",
        "_speaking",
        "_timers",
        "_told",
        "_transcript",
        "barge_ins",
        "call_sid",
        "leg",
        "legs",
        "life",
        "model",
        "party",
        "reconnects",
        "stream_refused",
    )

    def __init__(
        self,
        party: Party,
        premises: Premises,
        finished: Callable[[Call], None],
        *,
        resumes: Resumed | None = None,
    ) -> None:
        self.party = party
        self.call_sid = party.call_sid
        self.life = Life()
        self.leg: Leg | None = None
        self.legs = resumes.legs if resumes else 0
        self.reconnects = 0
        self.stream_refused = False
        self._premises = premises
        self._finished = finished
        self._clock = premises.clock
        self._began = resumes.began if resumes else self._clock()
        self._log = call_logger(party.call_sid)
        self._transcript = Transcript(self._write_turn)
        self._timers: dict[Event, Timer] = {}
        self._dead_response: str | None = None  # its late audio is dropped
        self._speaking: str | None = None  # item whose audio came last
        self._caller_origin = 0.0  # call time, ms, of the first byte that the model heard, by this leg's line
        self._heard_before = 0  # bytes that the model heard on the legs before
        self._greeted = resumes is not None
        self._owed = resumes is not None  # the caller waits for words that the line has lost
        self._outgrown: str | None = None  # item that was cut because it outgrew what may wait
        self._opening = True  # nothing has been said yet
        self._leaving = False
        self._retried = False
        self._recording: Recording | None = None
        self._done = False
        self._told: set[str] = set()  # turns that stand in the log
        self.barge_ins = 0
        if resumes is not None:
            premises.write(self.call_sid, "call_resumed", {})
        else:
            premises.write(
                self.call_sid,
                "call_started",
                {
                    "from": party.from_,
                    "to": party.to,
                    "direction": party.direction,
                    "account_sid": party.account_sid,
                    "assistant": premises.assistant,
                },
            )
        self._say(Happening.CALL_STARTED, f"Call from {party.from_ or 'unknown'} to {party.to or 'unknown'}")
        self.model: Model = premises.open_model(self, party)

    # ---- legs -----------------------------------------------------------------------------------

    def start_leg(self, stream_sid: str, stream: Stream) -> PhoneLeg | None:
        """A stream with a valid token begins a further leg; None: this call takes none now."""
        if self.leg is not None:
            # Twilio opens a stream only after the one before has ended.
            self.lose_leg("replaced by a new stream")
        if not self._apply(Event.LEG_STARTED):
            return None
        premises = self._premises
        self.legs += 1
        leg = self.leg = Leg(
            self.legs,
            stream_sid,
            stream,
            hear=self.model.hear,
            played=self._heard,
            pool=premises.pool,
            wheel=premises.wheel,
            clock=self._clock,
            lead=premises.lead,
            in_order=premises.in_order,
            tape=self._tape(),
        )
        self._heard_before = self.model.heard_bytes
        self._caller_origin = self._ms(leg.started) - self._heard_before / 8
        premises.write(self.call_sid, "leg_started", {"leg": leg.number, "stream_sid": stream_sid})
        self._say(Happening.LEG_STARTED, f"The line is open ({stream_sid})")
        if self.model.ready:
            self._speak_first()
        return PhoneLeg(self, leg)

    def _tape(self) -> Tape | None:
        """What records a further leg; the first one begins the recording."""
        premises = self._premises
        if self._recording is None and premises.record is not None:
            self._recording = premises.record(self.call_sid, self._began)
            if self._recording.both:
                facts = {"file": self._recording.file, "channels": 2}
                premises.write(self.call_sid, "recording", facts)
        if self._recording is None:
            return None
        return Tape(self._recording, premises.wheel, self._clock)

    def stream_ended(self, leg: Leg, end: StreamEnd, detail: str) -> None:
        """A leg's stream is gone."""
        self._end_leg(leg, end.value)
        if end is StreamEnd.STOPPED:
            self._log.debug("The line is closed ({})", detail)
        else:
            self._say(Happening.LEG_LOST, f"The line is lost ({detail})", reason=end.value)
        self._apply(_ENDS[end])
        if self._leaving:
            self._apply(Event.GOODBYE_SAID)

    def lose_leg(self, detail: str) -> None:
        """The leg's stream is over, though its socket has not said so."""
        if self.leg is not None:
            stream = self.leg.stream
            self.stream_ended(self.leg, StreamEnd.DROPPED, detail)
            stream.close(1000, "")

    def _end_leg(self, leg: Leg, reason: str) -> None:
        if self.leg is not leg:
            return
        self._anchor(leg)
        self.leg = None
        self._owed = self._note_cut(leg.end()) or self._owed
        if self.model.active_response is not None:
            self._owed = True
            self._dead_response = self.model.active_response
            self.model.cancel(self.model.active_response)
        speaking = self._transcript.speaking
        if speaking is not None and self.model.ready:
            self._owed = True
            self.model.commit()
            self._transcript.caller_stopped(speaking, self._ms(self._clock()))
        self._premises.write(self.call_sid, "leg_ended", {"leg": leg.number, "reason": reason})

    # ---- life -----------------------------------------------------------------------------------

    def happened(self, event: Event) -> bool:
        """Takes an event from outside: webhooks, the daemon's end.

        Returns:
            Whether it changed the call's state.
        """
        return self._apply(event)

    def _apply(self, event: Event) -> bool:
        before = self.life.state
        if not self.life.apply(event):
            return False
        state = self.life.state
        if state is not before:
            self._log.debug("Call is {} ({})", state.value, event.value)
            self._enter(state)
        return True

    def _enter(self, state: State) -> None:
        match state:
            case State.LIVE:
                self._disarm(Event.TOKEN_EXPIRED)
                self._disarm(Event.RESUME_EXPIRED)
                if Event.TIME_LIMIT not in self._timers:
                    self.arm(Event.TIME_LIMIT, self._premises.max_seconds)
            case State.INTERRUPTED:
                self.arm(Event.RESUME_EXPIRED, self._premises.resume_seconds)
            case State.CLOSING:
                self._hang_up()
                if not self._transcript.waiting:
                    self.model.close()
                self.arm(Event.CLOSE_EXPIRED, CLOSE_SECONDS)
            case State.ENDED:
                self._hang_up()
                self._end()
            case _:
                pass

    def _hang_up(self) -> None:
        leg = self.leg
        if leg is not None:
            self._end_leg(leg, (self.life.reason or EndReason.CALLER_HUNG_UP).value)
            leg.stream.close(1000, "")

    def _end(self) -> None:
        for event in list(self._timers):
            self._disarm(event)
        reason = self.life.reason or EndReason.CALLER_HUNG_UP
        self._premises.write(self.call_sid, "call_ended", {"reason": reason.value})
        if self._recording is not None:
            self._recording.close(self._clock())
        seconds = self._ms(self._clock()) / 1000
        self._say(
            Happening.CALL_ENDED, f"Call ended after {seconds:.0f} s: {reason.value}", reason=reason.value
        )
        if self.model.ready and self._transcript.waiting:
            self.arm(Event.CLOSE_EXPIRED, TRANSCRIPT_SECONDS, self._finish)
        else:
            self._finish()

    def finish(self) -> None:
        """Waits no longer for anything: the daemon ends."""
        self._apply(Event.CLOSE_EXPIRED)
        if self.life.state is State.ENDED:
            self._finish()

    def _finish(self) -> None:
        if self._done:
            return
        self._done = True
        self.model.close()
        for event in list(self._timers):
            self._disarm(event)
        self._transcript.complete()
        self._finished(self)

    def arm(self, event: Event, seconds: float, action: Callable[[], None] | None = None) -> None:
        """Sets the one timer for an event, `seconds` from now."""
        self._disarm(event)

        def due() -> None:
            self._timers.pop(event, None)
            if action is not None:
                action()
            else:
                self._apply(event)

        self._timers[event] = self._premises.wheel.at(self._clock() + seconds, due)

    def _disarm(self, event: Event) -> None:
        timer = self._timers.pop(event, None)
        if timer is not None:
            timer.cancel()

    # ---- the model's listener -------------------------------------------------------------------

    def model_ready(self) -> None:
        """The session is configured."""
        self._say(Happening.MODEL_CONNECTED, f"The model is ready after {self._ms(self._clock())} ms")
        if self.leg is not None:
            self._speak_first()

    def model_lost(self, reason: ModelLost, detail: str) -> None:
        """The model is gone."""
        if self.life.state is State.ENDED:
            self._finish()
            return
        self._say(Happening.MODEL_LOST, f"The model is lost ({reason.value}): {detail}", reason=reason.value)
        self._apply(Event.MODEL_LOST)

    def caller_started(self, item_id: str, start_ms: int) -> None:
        """Barge-in: in this order and in this turn of the loop, stop, clear, truncate, drop what is late."""
        leg = self.leg
        if leg is not None:
            self._barge_in(leg.clear())
        response = self.model.active_response
        if response is not None:
            self._dead_response = response
            if not self._premises.server_interrupts:
                self.model.cancel(response)
        self._opening = False
        # Who interrupts a goodbye wants to go on; the model may say another.
        self._leaving = False
        self._disarm(Event.GOODBYE_SAID)
        self._transcript.caller_started(item_id, self._caller_ms(start_ms + self._premises.padding_ms))

    def caller_stopped(self, item_id: str, end_ms: int) -> None:
        """The caller fell silent."""
        self._transcript.caller_stopped(item_id, self._caller_ms(end_ms - self._premises.silence_ms))

    def item_placed(self, item_id: str, after: str | None, role: str | None) -> None:
        """An item stands in the conversation."""
        self._transcript.placed(item_id, after, spoken=role in ("user", "assistant"))

    def caller_said(self, item_id: str, text: str | None) -> None:
        """The words of a caller's turn."""
        self._transcript.caller_said(item_id, text)
        if self._transcript.waiting:
            return
        if self.life.state is State.CLOSING:
            self.model.close()
        elif self.life.state is State.ENDED:
            self._finish()

    def assistant_audio(self, response_id: str, item_id: str, payload: bytes, size: int) -> None:
        """Audio of an answer. Once per delta."""
        leg = self.leg
        self._transcript.assistant_audio(item_id, size)
        if leg is None or response_id == self._dead_response:
            if response_id != self._dead_response:
                # A leg that starts now doesn't get the rest of it.
                self._dead_response = response_id
                self._owed = True
                self.model.cancel(response_id)
            if item_id != self._speaking:
                # Nothing of this item was or will be heard.
                self._speaking = item_id
                self.model.cut(item_id, 0)
                self._transcript.heard(item_id, 0, complete=False, since_ms=None)
            return
        if not leg.audio(item_id, payload, size):
            self._log.warning("An answer outgrew what may wait for the ear; it is cut here")
            self._outgrown = item_id
            self._dead_response = response_id
            self.model.cancel(response_id)
        if item_id != self._speaking:
            self._speaking = item_id
            now = self._clock()
            self._transcript.assistant_started(
                item_id, self._ms(leg.playout.first_heard(item_id) or now + leg.playout.clock.reach)
            )

    def assistant_audio_done(self, item_id: str) -> None:
        """No more audio of that item will come."""
        if self.leg is not None:
            self.leg.item_done(item_id)

    def assistant_said(self, item_id: str, text: str, *, final: bool) -> None:
        """The words of an answer."""
        self._transcript.assistant_said(item_id, text, final=final)

    def response_done(self, response_id: str, status: str, detail: str | None) -> None:
        """An answer has ended; one that failed is asked for again, once: silence is no answer."""
        if status == "failed":
            self._log.warning("The model's answer failed: {}", detail)
            if self._retried:
                self.model.close()
                self.model_lost(ModelLost.FAILING, f"two answers in a row failed: {detail}")
                return
            self._retried = True
            self.model.answer("again", self._premises.greeting if self._opening else None)
        elif status == "completed":
            self._retried = self._opening = False
        if response_id == self._dead_response:
            self._dead_response = None
        self._leave(response_id)

    def used(self, source: str, model: str, counts: Mapping[str, float]) -> None:
        """Something was used up that has a price."""
        self._premises.write(self.call_sid, "usage", {"source": source, "model": model, **counts})

    def tool_called(self, call_id: str, name: str, arguments: str) -> None:
        """The model wants to act."""
        self._say(Happening.TOOL_CALLED, f"The assistant calls {name}")
        if name == END_CALL["name"]:
            self._leaving = True
            self.model.tool_result(call_id, {"ok": True})
            self.arm(Event.GOODBYE_SAID, GOODBYE_SECONDS, self._goodbye_overdue)
        else:
            self.model.tool_result(call_id, {"error": f"there is no function {name}"})
            self.model.answer("tool")

    # ---- what was heard -------------------------------------------------------------------------

    def _note_cut(self, heard: tuple[Heard, ...]) -> bool:
        """What was playing is not heard to its end: the model and the transcript are told.

        Returns:
            Whether anything was cut.
        """
        cut = False
        for item in heard:
            if not item.complete:
                cut = True
                self.model.cut(item.item_id, item.heard_ms)
            self._note_heard(item)
        return cut

    def _barge_in(self, heard: tuple[Heard, ...]) -> None:
        if self._note_cut(heard):
            self.barge_ins += 1
            self._say(
                Happening.BARGE_IN,
                f"Interrupted after {heard[0].heard_ms} ms of {heard[0].sent_ms} that were sent",
                item_id=heard[0].item_id,
            )

    def _heard(self, heard: tuple[Heard, ...]) -> None:
        for item in heard:
            if item.item_id == self._outgrown:
                self._note_cut((replace(item, complete=False),))
            else:
                self._note_heard(item)
        self._leave()

    def _note_heard(self, item: Heard) -> None:
        since = None if item.since is None else self._ms(item.since)
        self._transcript.heard(item.item_id, item.heard_ms, complete=item.complete, since_ms=since)

    def _leave(self, done: str | None = None) -> None:
        """Hangs up once the goodbye has been heard; `done` is a response that is over by now."""
        if not self._leaving or self.model.active_response not in (None, done):
            return
        if self.leg is None or not self.leg.playout.outstanding:
            self._apply(Event.GOODBYE_SAID)

    def _goodbye_overdue(self) -> None:
        """Leaves, unless the goodbye is longer than expected and still plays."""
        left = self.leg.left() if self.leg is not None else 0.0
        if left > 0:
            self.arm(Event.GOODBYE_SAID, left + GOODBYE_MARGIN_SECONDS, self._goodbye_overdue)
        else:
            self._apply(Event.GOODBYE_SAID)

    # ---- small ----------------------------------------------------------------------------------

    def _speak_first(self) -> None:
        """On a new leg: greets, or takes up what a lost one has interrupted."""
        if not self._greeted:
            self._greeted = True
            self.model.answer("greeting", self._premises.greeting)
        elif self._owed:
            self.model.answer("resume", self._premises.greeting if self._opening else self._premises.resume)
        self._owed = False

    def _ms(self, at: float) -> int:
        """Call time of a loop time."""
        return round((at - self._began) * 1000)

    def _anchor(self, leg: Leg) -> None:
        """Finds the call time of what the model has heard by what it heard last.

        Counted from the leg's start, it would drift with the line's crystal, and jump with each lost frame.
        """
        if self.model.heard_bytes > self._heard_before:
            self._caller_origin = self._ms(leg.heard_until()) - self.model.heard_bytes / 8

    def _caller_ms(self, heard_ms: int) -> int:
        """Call time of a position in the audio that the model has heard."""
        if self.leg is not None:
            self._anchor(self.leg)
        return max(round(self._caller_origin) + heard_ms, 0)

    def _write_turn(self, turn: dict[str, Any]) -> None:
        self._premises.write(self.call_sid, "turn", turn)
        caller = turn["role"] == "caller"
        # A turn is worth one line: when it has words, and for the assistant when its last one was heard.
        if turn["id"] not in self._told and turn["text"] and (caller or turn["heard_ms"] is not None):
            self._told.add(turn["id"])
            facts = {
                key: turn[key]
                for key in ("id", "start_ms", "response_ms", "heard_ms")
                if turn[key] is not None
            }
            if turn["interrupted"]:
                facts["heard_text"] = turn["heard_text"]
            self._say(Happening.CALLER_TURN if caller else Happening.ASSISTANT_TURN, turn["text"], **facts)

    def _say(self, event: Happening, message: str, **fields: object) -> None:
        log_event(self._log, event, message, error=None, **fields)


class PhoneLeg:
    """A leg as its stream sees it: the `StreamListener` of `TwilioMessageHandler`."""

    __slots__ = ("_call", "_leg", "frame", "mark", "writing_paused", "writing_resumed")

    def __init__(self, call: Call, leg: Leg) -> None:
        self._call = call
        self._leg = leg
        self.frame = leg.frame
        self.mark = leg.mark
        self.writing_paused = leg.writing_paused
        self.writing_resumed = leg.writing_resumed

    def dtmf(self, digit: str) -> None:
        """The caller pressed a key."""
        call_logger(self._call.call_sid).debug("The caller pressed a key ({} characters)", len(digit))

    def stream_ended(self, end: StreamEnd, detail: str) -> None:
        """The socket is gone, or was closed by us for a reason of the protocol's."""
        self._call.stream_ended(self._leg, end, detail)
