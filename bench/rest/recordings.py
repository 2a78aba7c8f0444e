"""The recordings, as far as the simulated models understand them: their words, and what they tell.

Neither understands anything else: no speech, and no sentence that isn't one of the recordings'.
"""

from __future__ import annotations

import audioop
import functools
import re
from collections.abc import Iterator
from typing import Any

import orjson

from handlehome.bench import speech
from handlehome.bench.rest.audio import Wav
from handlehome.bench.rest.request import Json, RestRequest

# Of each recording's middle: enough to tell them apart, and in the audio even when turn detection has cut
# something off its ends.
SAMPLES = 4000


def transcribe(wav: Wav, _request: RestRequest | None = None) -> str:
    """The texts of all recordings that are in the audio, in the order of their places; else nothing.

    They are found sample by sample, as a line without loss hands them on.
    """
    heard = audioop.lin2ulaw(wav.pcm(), 2)
    found = [(at, text) for text, middle in _middles() if (at := heard.find(middle)) >= 0]
    return " ".join(text for _, text in sorted(found))


# What each sentence tells, in the shape of a home-services company's record; a schema that has other places
# takes what fits.
FACTS: dict[str, Json] = {
    "caller-leak": {
        "customer": {"first_name": "Claire", "last_name": "Martin"},
        "request": {
            "type": "intervention",
            "services": ["plomberie"],
            "description": "Fuite d'eau sous l'évier de la cuisine.",
            "urgency": "normal",
        },
        "summary": "Claire Martin signale une fuite d'eau sous l'évier de sa cuisine.",
        "language": "fr",
        "sentiment": "neutral",
    },
    "caller-urgent": {"request": {"type": "emergency", "urgency": "emergency"}, "language": "fr"},
    "caller-address": {
        "customer": {
            "phone": "06 12 34 56 78",
            "address": {"street": "12 rue des Lilas", "city": "Lyon"},
        },
        "language": "fr",
    },
    "assistant-appointment": {
        "appointment": {"date": "today", "time": "15:00", "mode": "on_site"},
        "follow_up": "Un plombier passera au 12 rue des Lilas à 15 h.",
    },
    "caller-confirm": {"sentiment": "positive", "language": "fr"},
    "caller-heating": {
        "customer": {"first_name": "Paul", "last_name": "Durand"},
        "request": {
            "type": "intervention",
            "services": ["chauffage"],
            "description": "Le chauffage ne marche plus depuis la veille au soir.",
            "urgency": "normal",
        },
        "summary": "Paul Durand signale une panne de chauffage.",
        "language": "fr",
        "sentiment": "neutral",
    },
}

_DATE = re.compile(r"\b\d{4}-\d{2}-\d{2}\b")


def extract(request: RestRequest) -> Json:
    """What the recordings' sentences in the request's text tell; what is told later counts.

    The text's first date is taken for the day of the call. Where lines are JSON objects with a `turn`, it is
    given as the evidence of what the line tells of the customer.
    """
    found: Json = {}
    day = _DATE.search(request.text)
    for turn, text in _lines(request.text):
        for recording in map(speech.load, FACTS):
            if recording.text not in text:
                continue
            facts = FACTS[recording.id]
            _merge(found, facts)
            customer = facts.get("customer", {})
            fields = [name for name in customer if name != "address"] + list(customer.get("address", ()))
            for name in fields if turn else ():
                evidence = {"field": name, "turns": [turn], "confidence": 1.0}
                found.setdefault("evidence", []).append(evidence)
    if found.get("appointment", {}).get("date") == "today":
        found["appointment"]["date"] = day[0] if day else None
    return found


def _lines(text: str) -> Iterator[tuple[str | None, str]]:
    for line in text.splitlines():
        try:
            turn = orjson.loads(line)
        except orjson.JSONDecodeError:
            turn = None
        if isinstance(turn, dict) and isinstance(turn.get("text"), str):
            yield turn.get("turn"), turn["text"]
        else:
            yield None, line


def _merge(found: dict[str, Any], facts: dict[str, Any]) -> None:
    for name, value in facts.items():
        if isinstance(value, dict):
            _merge(found.setdefault(name, {}), value)
        else:
            found[name] = value


@functools.cache
def _middles() -> list[tuple[str, bytes]]:
    middles = []
    for recording in map(speech.load, speech.ids()):
        start = max(0, (len(recording.ulaw) - SAMPLES) // 2)
        middle = recording.ulaw[start : start + SAMPLES]
        # There and back, because mu-law has two zeros and PCM has one.
        middles.append((recording.text, audioop.lin2ulaw(audioop.ulaw2lin(middle, 2), 2)))
    return middles
