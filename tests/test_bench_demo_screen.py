"""The demonstration's output, on a terminal and elsewhere."""

import io

import pytest

from handlehome.bench.demo_checks import Check
from handlehome.bench.demo_record import Row
from handlehome.bench.demo_screen import Screen
from handlehome.store.records import CallRecord, LegRecord, TurnRecord

RECORD = CallRecord(
    "CA1",
    0.0,
    from_="+33612345678",
    to="+33123456789",
    direction="inbound",
    status="ended",
    ended_at=2.0,
    end_reason="caller_hung_up",
    legs=(LegRecord(1, "MZ1", 0.0, 2.0, "stopped"),),
    turns=(
        TurnRecord("i1", "caller", "Une question.", 0, 500),
        TurnRecord("i2", "assistant", "Voici la réponse.", 1100, 1500, 400, "Voici", True, 600),
    ),
)


@pytest.fixture(autouse=True)
def no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tests run in several processes, they are told the terminal's width."""
    monkeypatch.delenv("COLUMNS", raising=False)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def plain(out: io.StringIO) -> list[str]:
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def test_elsewhere_there_is_no_control_sequence() -> None:
    out = io.StringIO()
    with Screen(out) as screen:
        screen.working("Starting")
        screen.status(1.0, True, 0.5)
        screen.working("")
        screen.record(RECORD)
    assert "\x1b" not in out.getvalue()
    lines = plain(out)
    assert lines[0] == "… Starting"
    assert "status ended, caller_hung_up, 2.0 s" in lines
    assert "2 1.1 s 1.5 s assistant Voici ✋ [not heard: la réponse.] 400 ms 600 ms" in lines


def test_a_terminal_shows_a_live_line_and_is_left_as_it_was(terminal: Terminal) -> None:
    with Screen(terminal) as screen:
        screen.status(12.3, True, 0.8)
        screen.say("Something happened")
    text = terminal.getvalue()
    assert "12.3 s" in text
    assert "████████" in text
    assert text.index("\x1b[?25l") < text.index("12.3 s") < text.rindex("\x1b[?25h")


def test_a_terminal_strikes_out_what_was_not_heard(terminal: Terminal) -> None:
    Screen(terminal).record(RECORD)
    assert "not heard" not in terminal.getvalue()
    assert "\x1b[2;9mla réponse." in terminal.getvalue()


def test_a_dumb_terminal_gets_plain_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with Screen(terminal) as screen:
        screen.status(12.3, True, 0.8)
        screen.working("Waiting")
    assert terminal.getvalue() == "… Waiting\n"


def test_a_turn_without_words_says_so_and_gets_them_later() -> None:
    out = io.StringIO()
    screen = Screen(out)
    screen.turn(TurnRecord("i1", "caller", None, 1600, 2000))
    screen.transcribed(9000, TurnRecord("i1", "caller", "Bonjour.", 1600, 2000))
    assert plain(out) == [
        "1.6 s 👤 Caller … (no words yet; the audio is kept)",
        "9.0 s 📝 Transcribed from the kept audio, the turn at 1.6 s: “Bonjour.”",
    ]


def test_data_stand_in_parts_and_what_is_missing_is_seen() -> None:
    out = io.StringIO()
    Screen(out).data(
        [
            Row("Customer", "name", "Claire", "turn 2"),
            Row("Customer", "email", ""),
            Row("Call", "summary", "x"),
        ]
    )
    assert [line.strip(" │") for line in plain(out)[1:-1]] == [
        "said in",
        "Customer name Claire turn 2",
        "email –",
        "Call summary x",
    ]


def test_an_encoding_without_the_characters_is_no_crash() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    Screen(out).say("✔ réponse")
    assert raw.getvalue() == b"? r?ponse\n", "and it is written at once"


def test_failed_checks_say_what_was_expected_and_seen() -> None:
    out = io.StringIO()
    screen = Screen(out)
    screen.checks([Check("record", True, "ended"), Check("words", False, "8 turns", "9 turns")])
    screen.verdict(1, 2)
    assert plain(out) == [
        "✔ record ended",
        "✘ words expected: 9 turns",
        "seen: 8 turns",
        "",
        "✘ The call did not go through: 1 of 2 checks failed.",
    ]


def test_latency_that_was_not_seen_has_no_percentiles() -> None:
    out = io.StringIO()
    Screen(out).latency([("Uplink", "a to b", [0.001, 0.002]), ("Barge-in", "b to a", [])])
    assert plain(out)[1:] == ["Uplink a to b 2 1.00 ms 2.00 ms 2.00 ms", "Barge-in b to a 0 – – –"]


def test_what_can_be_copied_is_not_wrapped() -> None:
    out = io.StringIO()
    Screen(out).pairs([("Data", "x" * 300), ("A command", "handlehome start")])
    assert out.getvalue() == f"Data       {'x' * 300}\nA command  handlehome start\n"
