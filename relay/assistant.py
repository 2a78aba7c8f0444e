"""The assistant's persona: who answers the phone, what it says first and how it listens.

A persona is a TOML file (`ASSISTANT_FILE`); `assistants/home_services_fr.toml` ships with the package
and shows every key. Whatever is wrong with a file is named at start, never found out by a caller.
"""

import difflib
import re
import string
import tomllib
import zoneinfo
from collections.abc import Iterable
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from handlehome.relay.config import VOICE_EXPECTED, check_voice

PLACEHOLDERS: Final = ("date", "time", "caller_number", "company", "name")
"""What `instructions` may contain in braces."""

_BUILT_IN: Final = "home_services_fr.toml"
_E164: Final = re.compile(r"\+[1-9]\d{6,14}", re.ASCII)

_WEEKDAYS: Final = {
    "fr": ("lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"),
    "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
}
# fmt: off
_MONTHS: Final = {
    "fr": ("janvier", "février", "mars", "avril", "mai", "juin",
           "juillet", "août", "septembre", "octobre", "novembre", "décembre"),
    "en": ("January", "February", "March", "April", "May", "June",
           "July", "August", "September", "October", "November", "December"),
}
# fmt: on
_HIDDEN_NUMBER: Final = {"fr": "numéro masqué", "en": "number withheld"}
_SAY_LANGUAGE: Final = {"fr": "fr-FR", "en": "en-GB"}


class AssistantError(Exception):
    """A persona's file can't be used.

    Attributes:
        lines: One line per problem: `file: key: problem`.
    """

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def _check_spoken(text: str) -> str:
    if "{" in text or "}" in text:
        raise ValueError("is said as it stands: placeholders and braces work in instructions only")
    return text


def _check_instructions(text: str) -> str:
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError:
        raise ValueError("has a single { or }; write {{ or }} for the brace itself") from None
    for _, field, spec, conversion in parts:
        if field is None:
            continue
        if field not in PLACEHOLDERS:
            known = ", ".join(f"{{{each}}}" for each in PLACEHOLDERS)
            raise ValueError(
                f"unknown placeholder {{{field}}}{_hint(field, PLACEHOLDERS)}; known are {known}"
            )
        if spec or conversion:
            raise ValueError(f"write {{{field}}} without anything behind the name")
    return text


def _check_time_zone(key: str) -> str:
    try:
        zoneinfo.ZoneInfo(key)
    except (KeyError, ValueError, OSError):  # A directory's name is an OSError, `../x` a ValueError.
        if not zoneinfo.available_timezones():
            raise ValueError("this machine has no time zone data; install the package tzdata") from None
        raise ValueError(f"unknown time zone {key!r}; expected a name like Europe/Paris") from None
    return key


def _check_voice(voice: str) -> str:
    try:
        return check_voice(voice)
    except ValueError as error:
        raise ValueError(f"{error}; expected {VOICE_EXPECTED}") from None


def _check_language_code(code: str) -> str:
    if not re.fullmatch(r"[a-z]{2}", code):
        raise ValueError(f"{code!r} is no language code; expected two letters (ISO 639-1) like fr")
    return code


def _check_keyword(keyword: str) -> str:
    if not keyword or re.search(r"[<>\r\n]", keyword):
        raise ValueError("must not be empty or contain <, > or a line break")
    return keyword


def _hint(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word.lower(), list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


class _Table(BaseModel):
    # Strict: TOML has types, so `"500"` where a number belongs is a mistake.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Word = Annotated[str, Field(min_length=1, max_length=100)]
Spoken = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_check_spoken)]
LanguageCode = Annotated[str, AfterValidator(_check_language_code)]
Keyword = Annotated[str, Field(max_length=100), AfterValidator(_check_keyword)]
Milliseconds = Annotated[int, Field(ge=0, le=10_000)]


class ServerVad(_Table):
    """Turn detection by silence, `turn_detection.type` = `server_vad`.

    The names, ranges and defaults are the Realtime API's. `silence_duration_ms` is always sent,
    because the server's own default is documented as 500 and shown as 200.
    """

    type: Literal["server_vad"]
    threshold: float = Field(0.5, ge=0.0, le=1.0)
    prefix_padding_ms: Milliseconds = 300
    silence_duration_ms: Milliseconds = 500
    interrupt_response: bool = True
    idle_timeout_ms: int | None = Field(None, ge=5000, le=30_000)


class SemanticVad(_Table):
    """Turn detection by meaning, `turn_detection.type` = `semantic_vad`.

    `eagerness` bounds the wait for more words: 8 s (low), 4 s (medium, auto), 2 s (high).
    """

    type: Literal["semantic_vad"]
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    interrupt_response: bool = True


class SpeechToText(_Table):
    """Help for the transcription of the caller: languages (ISO 639-1) and words to expect."""

    languages: Annotated[tuple[LanguageCode, ...], Field(strict=False)] = ()
    keywords: Annotated[tuple[Keyword, ...], Field(strict=False)] = ()


class Texts(_Table):
    """What Twilio's own voice says (`<Say>`) when the model can't."""

    line_full: Spoken
    unavailable: Spoken
    goodbye: Spoken


class Assistant(_Table):
    """A persona, checked. Immutable; one instance serves all calls."""

    name: Word
    company: Word
    language: Literal["fr", "en"]
    greeting: Spoken
    instructions: Annotated[str, Field(min_length=1, max_length=40_000), AfterValidator(_check_instructions)]
    texts: Texts
    voice: Annotated[str, AfterValidator(_check_voice)] | None = None
    time_zone: Annotated[str, AfterValidator(_check_time_zone)] = "Europe/Paris"
    noise_reduction: Literal["off", "near_field", "far_field"] = "off"
    speech_to_text: SpeechToText = SpeechToText()
    vad: Annotated[ServerVad | SemanticVad, Field(discriminator="type")] = ServerVad(type="server_vad")

    @property
    def say_language(self) -> str:
        """The `language` of `<Say>` for `texts`, as BCP 47 tag (`fr-FR`)."""
        return _SAY_LANGUAGE[self.language]

    def turn_detection(self) -> dict[str, object]:
        """The session's `audio.input.turn_detection`; the server answers by itself at the end of a turn."""
        return {**self.vad.model_dump(exclude_none=True), "create_response": True}

    def input_noise_reduction(self) -> dict[str, str] | None:
        """The session's `audio.input.noise_reduction`."""
        return None if self.noise_reduction == "off" else {"type": self.noise_reduction}

    def instructions_for(self, now: datetime, caller: str | None) -> str:
        """The instructions of one call, with the placeholders filled in.

        Args:
            now: The time of the call, aware; it is told in the assistant's time zone.
            caller: The calling number as Twilio gives it. Anything but an E.164 number (`anonymous`,
                a SIP address) reads as withheld, so that no caller writes into the instructions.

        Raises:
            ValueError: `now` has no time zone.
        """
        if now.tzinfo is None:
            raise ValueError("now has no time zone")
        local = now.astimezone(zoneinfo.ZoneInfo(self.time_zone))
        number = caller if caller and _E164.fullmatch(caller) else _HIDDEN_NUMBER[self.language]
        return self.instructions.format(
            date=_date_in_words(local, self.language),
            time=_time_in_words(local, self.language),
            caller_number=number,
            company=self.company,
            name=self.name,
        )


def _date_in_words(day: datetime, language: str) -> str:
    number = "1er" if language == "fr" and day.day == 1 else str(day.day)
    return f"{_WEEKDAYS[language][day.weekday()]} {number} {_MONTHS[language][day.month - 1]} {day.year}"


def _time_in_words(time: datetime, language: str) -> str:
    if language == "fr":
        return f"{time.hour} h {time.minute:02}" if time.minute else f"{time.hour} h"
    return f"{time.hour}:{time.minute:02}"


def load_assistant(path: Path | None = None) -> Assistant:
    """Reads and checks a persona.

    Args:
        path: The TOML file; None takes the one that ships with the package.

    Raises:
        AssistantError: The file can't be read, is no TOML, or says something wrong; all of it is listed.
    """
    source = resources.files("handlehome.relay.assistants") / _BUILT_IN if path is None else path.expanduser()
    label = _BUILT_IN if path is None else str(path)
    wrong: list[ErrorDetails] = []
    try:
        return Assistant.model_validate(tomllib.loads(source.read_bytes().decode("utf-8-sig")))
    except ValidationError as error:
        wrong = error.errors(include_url=False)
    except tomllib.TOMLDecodeError as error:
        raise AssistantError([f"{label}: {_syntax_problem(str(error))}"]) from None
    except UnicodeDecodeError as error:
        raise AssistantError([f"{label}: is not UTF-8 (byte {error.start})"]) from None
    except OSError as error:
        raise AssistantError([f"{label}: cannot be read: {error.strerror}"]) from None
    raise AssistantError([f"{label}: {_problem(details)}" for details in wrong])


def _syntax_problem(message: str) -> str:
    match = re.fullmatch(r"(.*) \(at (line \d+, column \d+)\)", message, re.DOTALL)
    return f"{match[2]}: {match[1]}" if match else message


def _problem(details: ErrorDetails) -> str:
    # The discriminator's value stands in the location of what is wrong inside `vad`.
    path = [str(part) for part in details["loc"] if part not in ("server_vad", "semantic_vad")]
    key = ".".join(path)
    match details["type"]:
        case "missing":
            problem = "missing"
        case "extra_forbidden":
            table = Assistant.model_fields if len(path) == 1 else _keys_of(details["loc"])
            problem = f"unknown key{_hint(path[-1], table)}"
        case "union_tag_not_found" | "union_tag_invalid":
            problem = "type is missing or unknown; expected server_vad or semantic_vad"
        case "value_error":
            problem = str(details["ctx"]["error"])
        case "model_type" | "model_attributes_type":
            problem = f"expected a table, [{key}]"
        case _:
            problem = details["msg"].replace("Input should be", "expected")
    return f"{key}: {problem}"


def _keys_of(location: tuple[int | str, ...]) -> Iterable[str]:
    tables: dict[str, type[_Table]] = {
        "speech_to_text": SpeechToText,
        "texts": Texts,
        "server_vad": ServerVad,
        "semantic_vad": SemanticVad,
    }
    return tables[str(location[-2])].model_fields
