"""The persona's file: what it may say, and every error by its name."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from openai.types.realtime import realtime_audio_input_turn_detection as vad_types
from pydantic import TypeAdapter, ValidationError

from handlehome.relay.assistant import Assistant, AssistantError, load_assistant

MINIMAL = """
name = "Ann"
company = "Example Ltd"
language = "en"
greeting = "Hello."
instructions = '''{extra}'''
texts = {{line_full = "Busy.", unavailable = "Down.", goodbye = "Bye."}}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "persona.toml"
    path.write_text(text, "utf-8")
    return path


def minimal(tmp_path: Path, instructions: str = "Be brief.", more: str = "") -> Assistant:
    return load_assistant(write(tmp_path, MINIMAL.format(extra=instructions) + more))


def problems(tmp_path: Path, text: str) -> list[str]:
    path = write(tmp_path, text)
    with pytest.raises(AssistantError) as caught:
        load_assistant(path)
    for line in caught.value.lines:
        assert line.startswith(f"{path}: ")
        assert "\n" not in line
    return [line.removeprefix(f"{path}: ") for line in caught.value.lines]


def test_the_built_in_persona_is_french_and_says_what_it_is() -> None:
    assistant = load_assistant()
    assert assistant.language == "fr"
    assert assistant.say_language == "fr-FR"
    assert "intelligence artificielle" in assistant.greeting
    text = assistant.instructions_for(datetime(2026, 8, 1, 12, 5, tzinfo=UTC), "+33612345678")
    assert "Nous sommes le samedi 1er août 2026, il est 14 h 05." in text
    assert "numéro suivant : +33612345678." in text
    assert assistant.company in text
    assert "{" not in text
    for number in ("112", "18", "0 800 47 33 33"):
        assert number in text


@pytest.mark.parametrize(
    "caller", [None, "", "anonymous", "sip:obey@evil", "+33612345678\nobey", "0612345678"]
)
def test_a_caller_without_an_e164_number_reads_as_withheld(caller: str | None, tmp_path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert "numéro suivant : numéro masqué." in load_assistant().instructions_for(now, caller)
    english = minimal(tmp_path, "{caller_number}")
    assert english.instructions_for(now, caller) == "number withheld"


def test_date_and_time_are_written_out_in_the_assistants_time_zone(tmp_path: Path) -> None:
    english = minimal(tmp_path, "{date} {time}")
    assert english.instructions_for(datetime(2026, 12, 31, 23, 30, tzinfo=UTC), None) == (
        "Friday 1 January 2027 0:30"
    )
    elsewhere = minimal(tmp_path, "{date} {time}", 'time_zone = "America/New_York"')
    assert elsewhere.instructions_for(datetime(2026, 12, 31, 23, 30, tzinfo=UTC), None) == (
        "Thursday 31 December 2026 18:30"
    )
    french = load_assistant().instructions_for(datetime(2026, 2, 2, 7, tzinfo=UTC), None)
    assert "le lundi 2 février 2026, il est 8 h." in french


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        load_assistant().instructions_for(datetime(2026, 1, 1), None)


def test_doubled_braces_are_literal(tmp_path: Path) -> None:
    assistant = minimal(tmp_path, '{{"by": "{name}"}}')
    assert assistant.instructions_for(datetime.now(UTC), None) == '{"by": "Ann"}'


@pytest.mark.parametrize(
    ("instructions", "problem"),
    [
        ("{dat}", "unknown placeholder {dat} (did you mean date?); known are {date}, {time}"),
        ("{date.year}", "unknown placeholder {date.year}"),
        ("{name[0]}", "unknown placeholder {name[0]}"),
        ("{}", "unknown placeholder {}"),
        ("{date:>99999999}", "write {date} without anything behind the name"),
        ("{name!r}", "write {name} without anything behind the name"),
        ("{date", "has a single { or }; write {{ or }} for the brace itself"),
        ("date}", "has a single { or }"),
    ],
)
def test_wrong_placeholders_are_named(instructions: str, problem: str, tmp_path: Path) -> None:
    (line,) = problems(tmp_path, MINIMAL.format(extra=instructions))
    assert line.startswith(f"instructions: {problem}")


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("nam = 1", "nam: unknown key (did you mean name?)"),
        ("xyzzy = 1", "xyzzy: unknown key"),
        ('voice = "bob"', "voice: 'bob' is no known voice; expected one of alloy"),
        ('time_zone = "Europe/Pari"', "time_zone: unknown time zone 'Europe/Pari'"),
        ('time_zone = "Europe"', "time_zone: unknown time zone 'Europe'"),
        ('time_zone = "../../etc/passwd"', "time_zone: unknown time zone"),
        ('noise_reduction = "some"', "noise_reduction: expected 'off', 'near_field' or 'far_field'"),
        ('speech_to_text = "fr"', "speech_to_text: expected a table, [speech_to_text]"),
        (
            '[speech_to_text]\nlanguages = ["french"]',
            "speech_to_text.languages.0: 'french' is no language code",
        ),
        (
            '[speech_to_text]\nkeywords = ["a", "<b>"]',
            "speech_to_text.keywords.1: must not be empty or contain <",
        ),
        ("[speech_to_text]\nkeyword = []", "speech_to_text.keyword: unknown key (did you mean keywords?)"),
        ("vad = 5", "vad: expected a table, [vad]"),
        ("[vad]\nthreshold = 0.5", "vad: type is missing or unknown; expected server_vad or semantic_vad"),
        ('[vad]\ntype = "vad"', "vad: type is missing or unknown"),
        ('[vad]\ntype = "server_vad"\ntreshold = 0.5', "vad.treshold: unknown key (did you mean threshold?)"),
        ('[vad]\ntype = "server_vad"\neagerness = "low"', "vad.eagerness: unknown key"),
        ('[vad]\ntype = "server_vad"\nthreshold = 1.1', "vad.threshold: expected less than or equal to 1"),
        (
            '[vad]\ntype = "server_vad"\nsilence_duration_ms = "5"',
            "vad.silence_duration_ms: expected a valid integer",
        ),
        (
            '[vad]\ntype = "server_vad"\nprefix_padding_ms = -1',
            "vad.prefix_padding_ms: expected greater than or equal",
        ),
        (
            '[vad]\ntype = "server_vad"\nidle_timeout_ms = 4999',
            "vad.idle_timeout_ms: expected greater than or equal",
        ),
        (
            '[vad]\ntype = "server_vad"\ninterrupt_response = 1',
            "vad.interrupt_response: expected a valid boolean",
        ),
        (
            '[vad]\ntype = "semantic_vad"\neagerness = "very"',
            "vad.eagerness: expected 'low', 'medium', 'high' or 'auto'",
        ),
        ('[vad]\ntype = "semantic_vad"\nthreshold = 0.5', "vad.threshold: unknown key"),
    ],
)
def test_wrong_keys_and_values_are_named(more: str, problem: str, tmp_path: Path) -> None:
    (line,) = problems(tmp_path, MINIMAL.format(extra="x") + more)
    assert line.startswith(problem)


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    lines = problems(tmp_path, 'language = "de"\ngreeting = "I am {name}"\n[texts]\nline_full = 5')
    assert [line.split(":")[0] for line in lines] == [
        "name", "company", "language", "greeting", "instructions",
        "texts.line_full", "texts.unavailable", "texts.goodbye",
    ]  # fmt: skip


def test_broken_toml_is_named_with_its_line(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, 'name = "Ann"\ncompany = \n')
    assert line.startswith("line 2, column 11: Invalid value")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(AssistantError, match=r"missing\.toml: cannot be read: No such file"):
        load_assistant(tmp_path / "missing.toml")
    path = tmp_path / "latin1.toml"
    path.write_bytes('name = "Zoé"'.encode("latin-1"))
    with pytest.raises(AssistantError, match=r"latin1\.toml: is not UTF-8 \(byte 10\)"):
        load_assistant(path)


def test_session_fields_are_what_the_realtime_api_knows(tmp_path: Path) -> None:
    adapter: TypeAdapter[object] = TypeAdapter(vad_types.RealtimeAudioInputTurnDetection)
    server = load_assistant().turn_detection()
    assert server == {
        "type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500,
        "interrupt_response": True, "create_response": True,
    }  # fmt: skip
    semantic = minimal(tmp_path, more='[vad]\ntype = "semantic_vad"\neagerness = "low"').turn_detection()
    assert semantic == {
        "type": "semantic_vad", "eagerness": "low", "interrupt_response": True, "create_response": True,
    }  # fmt: skip
    for fields in (server, semantic):
        adapter.validate_python(fields)
    assert load_assistant().input_noise_reduction() is None
    near = minimal(tmp_path, more='noise_reduction = "near_field"')
    assert near.input_noise_reduction() == {"type": "near_field"}


def test_optional_keys_have_defaults_and_nothing_can_be_changed(tmp_path: Path) -> None:
    assistant = minimal(tmp_path)
    assert (assistant.voice, assistant.time_zone) == (None, "Europe/Paris")
    assert assistant.speech_to_text.languages == assistant.speech_to_text.keywords == ()
    assert assistant.texts.goodbye == "Bye."
    with pytest.raises(ValidationError):
        assistant.name = "Bob"
