"""Whether the demonstration call really went through: what was expected, beside what was seen. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from handlehome.bench import demo_script
from handlehome.bench.demo_latency import LineItem
from handlehome.bench.demo_recording import TOLERANCE_MS, Comparison, Side
from handlehome.bench.demo_script import Line
from handlehome.store.records import CallRecord, Event, TurnRecord, fold

TRUNCATION_MS = 100.0
"""How far what the daemon takes for heard may be from what the line really played."""

WORDS_APART = 2
"""How many words the daemon may be off there; it knows how the speech is distributed no better than we."""

TAIL_BYTES = 1600
"""Of the caller's audio, what may be under way when the call is closed: 200 ms."""

TIME_ZONE = ZoneInfo("Europe/Paris")
"""The default assistant's: "today" is a day there."""

EXTRACTION_MODEL = "gpt-5.6-luna"
"""The default OPENAI_EXTRACTION_MODEL."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that had to be so.

    Attributes:
        what: Its name.
        passed: Whether it was.
        seen: What was seen, a sentence.
        expected: What should have been.
    """

    what: str
    passed: bool
    seen: str
    expected: str = ""


@dataclass(slots=True)
class Evidence:
    """All that is known of a call afterwards.

    Attributes:
        lines: What was to be said.
        trouble: What broke the conversation off; empty when it ran to its end.
        record: The stored record.
        events: The call's, in the journal.
        kept_audio: Audio that the daemon still keeps for transcripts, apart from recordings.
        recording: The daemon's recording beside what the line knows; None: there is none that can be read.
        items: The model's items as the line saw them, in order.
        truncations: `(item_id, audio_end_ms, accepted)` of each truncation that the model was sent.
        spoken: What the caller's line sent.
        understood: What the model received.
        audible: What the caller's line played, without the silence between.
        line_problems: What Twilio would have complained of.
        model_problems: What OpenAI would have complained of.
        rest_requests: Of each request after the calls, its path and the status of its answer.
        logged_errors: Lines of the daemon's error.log.
        exit_status: The daemon's; None if it was not stopped.
    """

    lines: Sequence[Line]
    trouble: str = ""
    record: CallRecord | None = None
    events: list[Event] = field(default_factory=list)
    kept_audio: list[str] = field(default_factory=list)
    recording: Comparison | None = None
    items: list[LineItem] = field(default_factory=list)
    truncations: list[tuple[str, int, bool]] = field(default_factory=list)
    spoken: bytes = b""
    understood: bytes = b""
    audible: bytes = b""
    line_problems: list[str] = field(default_factory=list)
    model_problems: list[str] = field(default_factory=list)
    rest_requests: list[tuple[str, int | None]] = field(default_factory=list)
    logged_errors: list[str] = field(default_factory=list)
    exit_status: int | None = None

    @property
    def interrupted(self) -> TurnRecord | None:
        """The record's interrupted turn, if there is exactly one."""
        turns = [turn for turn in self.record.turns if turn.interrupted] if self.record else []
        return turns[0] if len(turns) == 1 else None

    def item(self, item_id: str) -> LineItem | None:
        """What the line saw of an item."""
        return next((item for item in self.items if item.item_id == item_id), None)


def check_call(evidence: Evidence) -> list[Check]:
    """Judges a call; it went through if all of the checks passed."""
    checks = [
        Check(
            "conversation",
            not evidence.trouble,
            evidence.trouble or f"{len(evidence.lines)} turns were spoken, to the end",
            "every turn is spoken and the assistant hangs up after the goodbye",
        )
    ]
    record = evidence.record
    if record is None:
        checks.append(Check("record", False, "no record of this call", "a record in the store"))
    else:
        checks += _record(record)
        checks += _words(evidence.lines, record)
        checks += _interruption(evidence, record)
        checks += _after_the_call(evidence, record)
    checks += _audio(evidence)
    checks.append(_recording(evidence.recording))
    checks.append(_none("Twilio's protocol", evidence.line_problems, "no violation"))
    checks.append(_none("OpenAI's protocol", evidence.model_problems, "no violation"))
    refused = [f"{path}: {status or 'no answer'}" for path, status in evidence.rest_requests if status != 200]
    accepted = f"{len(evidence.rest_requests)} requests, all accepted"
    checks.append(
        Check(
            "OpenAI's REST API",
            bool(evidence.rest_requests) and not refused,
            "; ".join(refused) or accepted,
            "some requests, all accepted",
        )
    )
    checks.append(_none("error.log", evidence.logged_errors, "empty"))
    checks.append(
        Check(
            "end of the daemon",
            evidence.exit_status == 0,
            f"exit status {evidence.exit_status}",
            "exit status 0 after SIGTERM",
        )
    )
    return checks


def _none(what: str, problems: Sequence[str], nothing: str) -> Check:
    return Check(what, not problems, "; ".join(problems) or nothing, nothing)


def _record(record: CallRecord) -> list[Check]:
    seen = f"{record.status}, {record.end_reason}, {len(record.legs)} media stream(s)"
    expected = "ended, assistant_said_goodbye, 1 media stream(s)"
    return [Check("record", seen == expected, seen, expected)]


def _words(lines: Sequence[Line], record: CallRecord) -> list[Check]:
    expected = [(line.role, line.text) for line in lines]
    seen = [(turn.role, turn.text) for turn in record.turns]
    if seen == expected:
        return [Check("words and order", True, f"{len(seen)} turns, as they were spoken")]
    wrong = [
        Check(f"turn {number}", False, _quote(seen, number), _quote(expected, number))
        for number in range(1, max(len(seen), len(expected)) + 1)
        if seen[number - 1 : number] != expected[number - 1 : number]
    ]
    return [Check("words and order", False, f"{len(seen)} turns", f"{len(expected)} turns as below"), *wrong]


def _quote(turns: Sequence[tuple[str, str | None]], number: int) -> str:
    if number > len(turns):
        return "no such turn"
    role, text = turns[number - 1]
    return f"{role} “{text}”" if text is not None else f"{role}, without words"


def _interruption(evidence: Evidence, record: CallRecord) -> list[Check]:
    cut = [line.text for line in evidence.lines if line.cut_after is not None]
    seen = [turn.text for turn in record.turns if turn.interrupted]
    numbers = [str(number) for number, turn in enumerate(record.turns, 1) if turn.interrupted]
    turn = evidence.interrupted
    checks = [
        Check(
            "interruption",
            seen == cut,
            f"{len(seen)}: turn {', '.join(numbers)}" if seen else "none",
            f"{len(cut)}: {'; '.join(cut)}",
        )
    ]
    if turn is None:
        return checks
    told = "; ".join(
        f"{'' if item_id == turn.id else 'another item, '}{ms} ms, {'accepted' if accepted else 'refused'}"
        for item_id, ms, accepted in evidence.truncations
    )
    checks.append(
        Check(
            "truncation",
            [(item_id, accepted) for item_id, _, accepted in evidence.truncations] == [(turn.id, True)],
            told or "none",
            "one, of the interrupted answer, accepted",
        )
    )
    item = evidence.item(turn.id)
    if item is None:
        checks.append(Check("heard", False, "the line never got it", "a part of the answer"))
        return checks
    for name, claimed in (
        ("heard, by the record", turn.heard_ms),
        *(("heard, as told to the model", float(ms)) for _, ms, _ in evidence.truncations),
    ):
        close = claimed is not None and abs(claimed - item.played_ms) <= TRUNCATION_MS
        seen_ms = "nothing" if claimed is None else f"{claimed:.0f} ms"
        seen_ms += f"; the line played {item.played_ms:.0f} ms"
        checks.append(
            Check(name, close, seen_ms, f"{item.played_ms:.0f} ms, give or take {TRUNCATION_MS:.0f}")
        )
    checks.append(_heard_words(turn, item))
    return checks


def _heard_words(turn: TurnRecord, item: LineItem) -> Check:
    text, heard = turn.text or "", turn.heard_text or ""
    share = item.played / item.generated
    proper = text.startswith(heard) and 0 < len(heard) < len(text)
    apart = abs(len(heard.split()) - share * len(text.split()))
    return Check(
        "words heard",
        proper and apart <= WORDS_APART + 1,
        f"{len(heard.split())} of {len(text.split())}: “{heard}”",
        f"the first words of the answer, of which {share:.0%} was heard; {WORDS_APART} more or fewer",
    )


def _audio(evidence: Evidence) -> list[Check]:
    missing = len(evidence.spoken) - len(evidence.understood)
    whole = evidence.spoken.startswith(evidence.understood) and 0 <= missing <= TAIL_BYTES
    assistants = [line.recording.ulaw for line in evidence.lines if line.role == "assistant"]
    expected = b"".join(
        ulaw[: item.played] if item.cut else ulaw
        for ulaw, item in zip(assistants, evidence.items, strict=False)
    )
    same = evidence.audible == expected and len(assistants) == len(evidence.items)
    return [
        Check(
            "caller's audio",
            bool(evidence.understood) and whole,
            f"{len(evidence.understood):,} of {len(evidence.spoken):,} bytes at the model, "
            f"{'all the same' if whole else 'not what was spoken'}",
            f"each byte once and in order at the model; the last {TAIL_BYTES // 8} ms may be missing",
        ),
        Check(
            "assistant's audio",
            bool(evidence.audible) and same,
            f"{len(evidence.audible):,} bytes audible, {'all the same' if same else 'not what was sent'}",
            f"{len(expected):,} bytes, each once and in order",
        ),
    ]


def _recording(recording: Comparison | None) -> Check:
    expected = (
        f"the caller left and the assistant right, as the line has them, within {TOLERANCE_MS:.0f} ms, "
        "and nothing else"
    )
    if recording is None:
        return Check("recording", False, "there is none that can be read", expected)

    def told(side: Side) -> str:
        stray = f", {side.stray_ms:.0f} ms of other sound" if side.stray_ms else ""
        return f"{side.found:.0%} of {side.seconds:.1f} s, at most {side.off_ms:.1f} ms off{stray}"

    seen = (
        f"caller: {told(recording.caller)}; assistant: {told(recording.assistant)}; "
        f"it begins {recording.lead_ms:.0f} ms before the media stream"
    )
    return Check("recording", recording.caller.right and recording.assistant.right, seen, expected)


# After the call


def _after_the_call(evidence: Evidence, record: CallRecord) -> Iterator[Check]:
    yield _extraction(record)
    yield from _customer(evidence.lines, record)
    yield _support(evidence.lines, record)
    yield from _transcribed(evidence, record)
    yield _usage(record.usage or {})
    yield _none("kept audio", evidence.kept_audio, "none any more, besides the recording")
    yield _saved(evidence.events)


def _extraction(record: CallRecord) -> Check:
    extraction = record.extraction or {}
    names = ("status", "method", "model", "schema", "error")
    expected = f"complete, model, {EXTRACTION_MODEL}, default, None"
    seen = ", ".join(str(extraction.get(name)) for name in names)
    what = f"{extraction.get('status')}, by the {extraction.get('method')} {extraction.get('model')}"
    return Check("extraction", seen == expected, what if seen == expected else seen, expected)


def _customer(lines: Sequence[Line], record: CallRecord) -> Iterator[Check]:
    """What was said of the customer, and nothing else; and when the appointment is."""
    data = record.data or {}
    customer = _part(data, "customer")
    told = {name: value for name, (value, _) in demo_script.customer(lines).items()}
    source = "said"
    if "phone" not in told:
        told["phone"], source = str(record.from_), "caller_id"
    names = ("first_name", "last_name", "phone", "email", "street", "postcode", "city", "company")
    address = _part(customer, "address")
    found = {name: address.get(name) if name in address else customer.get(name) for name in names}
    expected = f"{', '.join(told[name] for name in names if name in told)} (phone: {source})"
    seen = (
        f"{', '.join(str(each) for each in found.values() if each)} (phone: {customer.get('phone_source')})"
    )
    right = {name: told.get(name) for name in names} == found and customer.get("phone_source") == source
    yield Check("customer", right, seen, expected)
    appointment, time = _part(data, "appointment"), demo_script.appointment(lines)
    day = datetime.fromtimestamp(record.started_at, TIME_ZONE).date().isoformat() if time else None
    at = (appointment.get("date"), appointment.get("time"))
    yield Check("appointment", at == (day, time), _moment(*at), _moment(day, time))


def _moment(day: str | None, time: str | None) -> str:
    return f"{day} at {time}" if day or time else "none"


def _support(lines: Sequence[Line], record: CallRecord) -> Check:
    """Each field's evidence is the turn that tells it."""
    numbers = {turn.id: number for number, turn in enumerate(record.turns, 1)}
    entries = (record.data or {}).get("evidence") or ()
    seen = {entry["field"]: [numbers.get(turn, 0) for turn in entry["turns"]] for entry in entries}
    expected = {name: [number] for name, (_, number) in demo_script.customer(lines).items()}
    return Check("evidence", seen == expected, _turns(seen), _turns(expected))


def _turns(fields: Mapping[str, Sequence[int]]) -> str:
    """Which turns tell which field; turn 0 does not exist."""
    told = (
        f"{name.replace('_', ' ')}: turn {', '.join(map(str, at))}" for name, at in sorted(fields.items())
    )
    return "; ".join(told) or "none"


def _transcribed(evidence: Evidence, record: CallRecord) -> Iterator[Check]:
    """What had no words at the call's end got them afterwards; see `_words` for which words."""
    ends = [number for number, event in enumerate(evidence.events) if event.kind == "call_ended"]
    during = _texts(evidence.events[: ends[0]] if ends else ())
    after = _texts(evidence.events[ends[0] :] if ends else ())
    for number, line in enumerate(evidence.lines, 1):
        if line.untranscribed:
            turn = record.turns[number - 1].id if number <= len(record.turns) else ""
            early, late = during.get(turn), after.get(turn)
            yield Check(
                "transcribed after it",
                early is None and late == line.text,
                f"turn {number}, “{early or late}”{', while the call went on' if early else ''}",
                f"turn {number}, “{line.text}”, after the call",
            )


def _texts(events: Sequence[Event]) -> dict[str, str | None]:
    """The last text of each turn in some events."""
    return {event.data["id"]: event.data["text"] for event in events if event.kind == "turn"}


def _usage(usage: Mapping[str, Any]) -> Check:
    sources = [name for name in ("realtime", "transcription", "extraction") if len(_part(usage, name)) > 1]
    cost = usage.get("cost")
    right = len(sources) == 3 and isinstance(cost, float) and cost > 0 and usage.get("currency") == "USD"
    price = f"{cost:.6f} {usage.get('currency')}" if cost is not None else "of unknown cost"
    expected = "realtime, transcription and extraction counted, with their cost in USD"
    return Check("usage", right, f"{', '.join(sources) or 'nothing'} counted, {price}", expected)


def _saved(events: Sequence[Event]) -> Check:
    """One writing for each state that was to be saved."""
    seen = []
    for event in events:
        if event.kind == "call_saved":
            record = fold(each for each in events if each.seq <= event.data["seq"])
            seen.append(str((record.extraction or {}).get("status")))
    expected = ["waiting", "complete"]
    # Once more, with what rules have found, where the model takes its time.
    right = seen in (expected, ["waiting", *expected])
    return Check("saved", right, _states(seen), _states(expected))


def _states(states: Sequence[str]) -> str:
    return f"{len(states)} times: {', '.join(states)}" if states else "never"


def _part(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = data.get(name)
    return value if isinstance(value, Mapping) else {}
