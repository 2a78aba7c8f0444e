"""What the demonstration shows: on a terminal with colours and a live line, elsewhere in plain lines."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from handlehome.bench.demo_checks import Check
from handlehome.bench.demo_latency import percentile
from handlehome.store.records import CallRecord, Event, TurnRecord

PLAIN_WIDTH = 110

_WHO = {"caller": ("👤 Caller", "bold cyan"), "assistant": ("🤖 Assistant", "bold magenta")}
_WHO_WIDTH = 14


class Screen:
    """The demonstration's output. Use it as a context manager, which leaves the terminal as it was.

    Args:
        stream: By default stdout.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        out = stream or sys.stdout
        if isinstance(out, io.TextIOWrapper):
            # Visible at once in a pipe too, and no crash where the encoding lacks a character.
            out.reconfigure(line_buffering=True, errors="replace")
        terminal = out.isatty() and os.environ.get("TERM") not in {None, "", "dumb"}
        width = None if terminal or os.environ.get("COLUMNS") else PLAIN_WIDTH
        self.console = Console(file=out, highlight=False, emoji=False, width=width)
        self._live = Live(console=self.console, auto_refresh=False, transient=True) if terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.update(Text(), refresh=True)
            self._live.stop()

    # Lines

    def headline(self, title: str) -> None:
        """Begins a part."""
        self.console.print()
        self.console.print(Rule(Text(title, "bold"), align="left", characters="─", style="dim"))

    def say(self, text: str = "", style: str = "") -> None:
        """A line of text."""
        self.console.print(Text(text, style), soft_wrap=True)

    def done(self, what: str, detail: str) -> None:
        """A step that has been taken."""
        self._row(_STEP_WIDTH, Text.assemble(("✔ ", "green"), (what, "bold")), Text(detail))

    def _row(self, width: int, left: Text, *right: Text | Table, justify: JustifyMethod = "left") -> None:
        """A column of fixed width and what stands right of it, wrapped there."""
        grid = Table.grid(padding=(0, 2, 0, 0), expand=len(right) > 1)
        grid.add_column(width=width, no_wrap=True, justify=justify)
        grid.add_column(ratio=1)
        if len(right) > 1:
            grid.add_column(justify="right", no_wrap=True)
        grid.add_row(left, *right)
        self.console.print(grid)

    def working(self, what: str) -> None:
        """What takes a moment; gone when it is done. A line where there is no terminal."""
        if self._live is not None:
            self._live.update(Text(what and f"  {what}", "dim"), refresh=True)
        elif what:
            self.say(what)

    def status(self, now: tuple[float, bool, float]) -> None:
        """The live line at the bottom of a call; nothing where there is no terminal.

        Args:
            now: Seconds of the stream, whether the caller speaks, seconds of speech in hand at the line.
        """
        if self._live is None:
            return
        seconds, caller, queued = now
        bar = "█" * round(queued * 10)
        text = Text.assemble(
            (f"{seconds:5.1f} s  ", "bold"),
            ("👤 speaks" if caller else "👤       ", "bold cyan"),
            "  ",
            ("🤖 speaks" if queued else "🤖       ", "bold magenta"),
            (f"  at the line, to be heard: {queued:4.2f} s ", "dim"),
            (bar, "magenta"),
        )
        text.no_wrap = True
        self._live.update(text, refresh=True)

    def verdict(self, failed: int, of: int) -> None:
        """The last line."""
        self.say()
        if failed:
            self.say(
                f"✘ The call did not go through as it should: {failed} of {of} checks failed.", "bold red"
            )
        else:
            self.say(f"✔ The call went through: {of} of {of} checks passed.", "bold green")

    def happened(self, at_ms: float, text: str, style: str = "") -> None:
        """A line with its call time."""
        self._at(at_ms, Text(text, style))

    def turn(self, turn: TurnRecord) -> None:
        """A turn of the conversation."""
        label, style = _WHO[turn.role]
        grid = Table.grid(padding=(0, 2, 0, 0), expand=False)
        grid.add_column(width=_WHO_WIDTH, no_wrap=True)
        grid.add_column(ratio=1)
        words = Text(turn.text or "…")
        if turn.response_ms is not None:
            words.append(f"  ⏱ answered after {turn.response_ms:.0f} ms", "dim green")
        grid.add_row(Text(label, style), words)
        self._at(turn.start_ms, grid)

    def interruption(self, turn: TurnRecord) -> None:
        """The caller has cut in."""
        body = Text("✋ The caller cuts in", "bold yellow")
        body.append(
            f": {turn.heard_ms or 0:.0f} ms were heard, up to “… {_last_words(turn.heard_text)}”", "yellow"
        )
        self._at(turn.end_ms, body)

    def _at(self, at_ms: float | None, body: Text | Table) -> None:
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(justify="right", width=7, no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_row(Text("" if at_ms is None else f"{at_ms / 1000:.1f} s", "dim"), body)
        self.console.print(grid)

    # Tables

    def record(self, record: CallRecord) -> None:
        """The stored record."""
        duration = "?" if record.duration_ms is None else f"{record.duration_ms / 1000:.1f} s"
        for name, value in (
            ("_id", record.call_sid),
            ("from, to", f"{record.from_}, {record.to} ({record.direction})"),
            ("status", f"{record.status}: {record.end_reason}, after {duration}"),
            ("legs", ", ".join(f"{leg.stream_sid} ({leg.end_reason})" for leg in record.legs)),
        ):
            self.console.print(Text.assemble((f"{name:<9} ", "dim"), value))
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for heading, justify in (("start", "right"), ("end", "right"), ("role", "left"), ("text", "left")):
            table.add_column(heading, justify=justify, no_wrap=heading != "text")  # type: ignore[arg-type]  # a literal
        table.add_column("heard", justify="right", no_wrap=True)
        table.add_column("response", justify="right", no_wrap=True)
        for turn in record.turns:
            table.add_row(
                _seconds(turn.start_ms),
                _seconds(turn.end_ms),
                Text(turn.role, _WHO[turn.role][1]),
                self._words(turn),
                "" if turn.role == "caller" else _ms(turn.heard_ms),
                _ms(turn.response_ms),
            )
        self.console.print(table)

    def _words(self, turn: TurnRecord) -> Text:
        """What was said, with what was not heard of it set off."""
        text = turn.text or "…"
        if not turn.interrupted:
            return Text(text)
        heard = turn.heard_text or ""
        rest = text[len(heard) :].strip() if text.startswith(heard) else text
        words = Text(heard)
        words.append(" ✋ ", "bold yellow")
        # Without colours the brackets tell it.
        words.append(rest if self._live is not None else f"[not heard: {rest}]", "dim strike")
        return words

    def comparison(self, rows: Sequence[tuple[str, str, str]]) -> None:
        """Who takes how much of the interrupted answer for heard: who, how long, which words."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("", no_wrap=True)
        table.add_column("heard", justify="right", no_wrap=True)
        table.add_column("words")
        for row in rows:
            table.add_row(*row)
        self.console.print(table)

    def latency(self, rows: Sequence[tuple[str, str, Sequence[float]]]) -> None:
        """Added latency: name, what it is measured between, seconds."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("", no_wrap=True)
        table.add_column("measured")
        for heading in ("count", "p50", "p95", "p99"):
            table.add_column(heading, justify="right", no_wrap=True)
        for name, between, values in rows:
            shares = (percentile(values, share) for share in (0.5, 0.95, 0.99))
            numbers = (f"{value * 1000:.2f} ms" if values else "–" for value in shares)
            table.add_row(Text(name, "bold"), between, str(len(values)), *numbers)
        self.console.print(table)

    def checks(self, checks: Sequence[Check]) -> None:
        """What was checked; of what failed, what was expected."""
        for check in checks:
            if check.passed:
                self.done(check.what, check.seen)
            else:
                self.console.print(Text.assemble(("✘ ", "bold red"), (check.what, "bold red")))
                for name, text in (("expected", check.expected), ("seen", check.seen)):
                    self.console.print(Padding(Text.assemble((f"{name:<9} ", "dim"), text), (0, 0, 0, 4)))

    def pairs(self, rows: Sequence[tuple[str, str]]) -> None:
        """Names and what they stand for; long values are not wrapped, so that they can be copied."""
        width = max(len(name) for name, _ in rows) + 2
        for name, value in rows:
            self.console.print(Text.assemble((f"{name:<{width}}", "dim"), value), soft_wrap=True)


class Story:
    """Tells a call turn by turn from its journal, as it is written: what the daemon knows, no more.

    Args:
        screen: Where to tell it.
    """

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._began = 0.0
        self._told: set[str] = set()
        self._cut: set[str] = set()
        self.saved = False

    def tell(self, events: Sequence[Event]) -> None:
        """Takes the next events of the journal."""
        for event in events:
            data = event.data
            at_ms = (event.at - self._began) * 1000
            match event.kind:
                case "call_started":
                    self._began = event.at
                    self._screen.happened(0, f"📞 Call from {data['from']} to {data['to']}", "bold")
                case "leg_started":
                    self._screen.happened(at_ms, "🔌 The media stream is open")
                case "turn":
                    self._turn(TurnRecord.from_document(data))
                case "call_ended":
                    self._screen.happened(
                        at_ms, f"👋 Call ended: {str(data['reason']).replace('_', ' ')}", "bold"
                    )
                case "call_saved":
                    self._screen.happened(at_ms, "💾 The record is saved")
                    self.saved = True

    def _turn(self, turn: TurnRecord) -> None:
        if turn.text and turn.id not in self._told and turn.start_ms is not None:
            self._told.add(turn.id)
            self._screen.turn(turn)
        if turn.interrupted and turn.heard_text and turn.id not in self._cut:
            self._cut.add(turn.id)
            self._screen.interruption(turn)


def _last_words(text: str | None, count: int = 3) -> str:
    return " ".join((text or "").split()[-count:])


def _seconds(ms: float | None) -> str:
    return "" if ms is None else f"{ms / 1000:.1f} s"


def _ms(ms: float | None) -> str:
    return "" if ms is None else f"{ms:.0f} ms"
