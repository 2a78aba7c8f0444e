"""What the demonstration shows: on a terminal with colours and a live line, elsewhere in plain lines."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, JustifyMethod
from rich.live import Live
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from handlehome.bench.demo_checks import Check
from handlehome.bench.demo_latency import percentile
from handlehome.bench.demo_record import Row
from handlehome.store.records import CallRecord, TurnRecord

PLAIN_WIDTH = 110
"""Columns where there is no terminal to ask."""

_WHO = {"caller": ("👤 Caller", "bold cyan"), "assistant": ("🤖 Assistant", "bold magenta")}
_TIME = (7, "right")
_SPEAKER = (12, "left")
_STEP = (29, "left")


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

    # Before and after the call

    def say(self, text: str = "", style: str = "") -> None:
        """A line of text; a long one is left to the terminal to wrap."""
        self.console.print(Text(text, style), soft_wrap=True)

    def headline(self, title: str) -> None:
        """Begins a part."""
        self.say()
        self.console.print(Rule(Text(title, "bold"), align="left", characters="─", style="dim"))

    def working(self, what: str) -> None:
        """What takes a moment, empty when nothing does any more; a line where there is no terminal."""
        if self._live is not None:
            self._live.update(Text(what and f"… {what}", "dim"), refresh=True)
        elif what:
            self.say(f"… {what}")

    def done(self, what: str, detail: str) -> None:
        """A step that has been taken."""
        self._row(_STEP, Text.assemble(("✔ ", "green"), (what, "bold")), Text(detail))

    def pairs(self, rows: Sequence[tuple[str, str]]) -> None:
        """Names and what they stand for; not wrapped by us, so that it can be copied."""
        width = max(len(name) for name, _ in rows) + 2
        for name, value in rows:
            self.console.print(Text.assemble((f"{name:<{width}}", "dim"), value), soft_wrap=True)

    def verdict(self, failed: int, of: int) -> None:
        """The last line."""
        self.say()
        if failed:
            self.say(f"✘ The call did not go through: {failed} of {of} checks failed.", "bold red")
        else:
            self.say(f"✔ The call went through: {of} of {of} checks passed.", "bold green")

    # The call

    def status(self, seconds: float, caller: bool, queued: float) -> None:
        """The live line at the bottom; nothing where there is no terminal.

        Args:
            seconds: Since the media stream began.
            caller: The caller speaks.
            queued: Seconds of the assistant's speech that the line has in hand.
        """
        if self._live is None:
            return
        text = Text.assemble(
            (f"{seconds:5.1f} s  ", "bold"),
            ("👤 speaks" if caller else "👤       ", _WHO["caller"][1]),
            "  ",
            ("🤖 speaks" if queued else "🤖       ", _WHO["assistant"][1]),
            ("   the line has in hand ", "dim"),
            f"{queued:4.2f} s ",
            ("█" * round(queued * 10), "magenta"),
            no_wrap=True,
        )
        self._live.update(text, refresh=True)

    def happened(self, at_ms: float, text: str, style: str = "") -> None:
        """Something of the call, with its call time."""
        self._row(_TIME, _clock(at_ms), Text(text, style))

    def turn(self, turn: TurnRecord) -> None:
        """A turn of the conversation, and how long the caller waited for it."""
        label, style = _WHO[turn.role]
        body = Table.grid(padding=(0, 2, 0, 0), expand=True)
        body.add_column(width=_SPEAKER[0], no_wrap=True)
        body.add_column(ratio=1)
        body.add_column(justify="right", no_wrap=True)
        answered = "" if turn.response_ms is None else f"⏱ {turn.response_ms:.0f} ms"
        words = Text(turn.text) if turn.text else Text("… (no words yet; the audio is kept)", "yellow")
        body.add_row(Text(label, style), words, Text(answered, "green"))
        self._row(_TIME, _clock(turn.start_ms), body)

    def interruption(self, turn: TurnRecord) -> None:
        """The caller has cut in."""
        last = " ".join((turn.heard_text or "").split()[-3:])
        text = f"✋ The caller cuts in: {turn.heard_ms or 0:.0f} ms were heard, up to “… {last}”"
        self._row(_TIME, _clock(turn.end_ms), Text(text, "bold yellow"))

    def transcribed(self, at_ms: float, turn: TurnRecord) -> None:
        """A turn has got its words after the call."""
        at = f"{(turn.start_ms or 0) / 1000:.1f} s"
        text = f"📝 Transcribed from the kept audio, the turn at {at}: “{turn.text}”"
        self._row(_TIME, _clock(at_ms), Text(text, "bold yellow"))

    # Results

    def record(self, record: CallRecord) -> None:
        """The stored record."""
        duration = "not ended" if record.duration_ms is None else f"{record.duration_ms / 1000:.1f} s"
        self.pairs(
            [
                ("_id", record.call_sid),
                ("from, to", f"{record.from_}, {record.to} ({record.direction})"),
                ("status", f"{record.status}, {record.end_reason}, {duration}"),
                ("legs", ", ".join(f"{leg.stream_sid} ({leg.end_reason})" for leg in record.legs)),
            ]
        )
        self.say()
        table = _table(("turn", "right"), ("start", "right"), ("end", "right"), ("role", "left"))
        table.add_column("text", ratio=1)
        for heading in ("heard", "response"):
            table.add_column(heading, justify="right", no_wrap=True)
        for number, turn in enumerate(record.turns, 1):
            table.add_row(
                Text(str(number), "dim"),
                _clock(turn.start_ms),
                _clock(turn.end_ms),
                Text(turn.role, _WHO[turn.role][1]),
                self._words(turn),
                _ms(turn.heard_ms),
                _ms(turn.response_ms),
            )
        self.console.print(table)

    def _words(self, turn: TurnRecord) -> Text:
        """What was said, with what was not heard of it set off."""
        text, heard = turn.text or "…", turn.heard_text or ""
        if not turn.interrupted or not text.startswith(heard):
            return Text(text)
        rest = text[len(heard) :].strip()
        # Brackets where there are no colours.
        rest = rest if self.console.is_terminal else f"[not heard: {rest}]"
        return Text.assemble(heard, (" ✋ ", "bold yellow"), (rest, "dim strike"))

    def data(self, rows: Sequence[Row]) -> None:
        """The customer's data, part by part; "–" where there is nothing."""
        table = _table(("", "left"), ("", "left"))
        table.add_column("", ratio=1)
        table.add_column("said in", justify="right", no_wrap=True)
        part = ""
        for row in rows:
            value = Text(row.value) if row.value else Text("–", "dim")
            heading = Text("" if row.part == part else row.part, "bold")
            table.add_row(heading, Text(row.name, "dim"), value, Text(row.said_in, "cyan"))
            part = row.part
        self.console.print(Panel(table, border_style="green", padding=(0, 1)))

    def comparison(self, rows: Sequence[tuple[str, str, str]]) -> None:
        """Who takes how much of the interrupted answer for heard: who, how long, which words."""
        table = _table(("", "left"), ("heard", "right"))
        table.add_column("words", ratio=1)
        for row in rows:
            table.add_row(*map(Text, row))
        self.console.print(table)

    def latency(self, rows: Sequence[tuple[str, str, Sequence[float]]]) -> None:
        """Added latency: name, what it is measured between, seconds."""
        table = _table(("", "left"))
        table.add_column("", ratio=1)
        for heading in ("count", "p50", "p95", "p99"):
            table.add_column(heading, justify="right", no_wrap=True)
        for name, between, values in rows:
            numbers = (f"{percentile(values, share) * 1000:.2f} ms" for share in (0.5, 0.95, 0.99))
            seen = numbers if values else ("–", "–", "–")
            table.add_row(Text(name, "bold"), between, str(len(values)), *seen)
        self.console.print(table)

    def checks(self, checks: Sequence[Check]) -> None:
        """What was checked; of what failed, what was expected too."""
        for check in checks:
            if check.passed:
                self.done(check.what, check.seen)
                continue
            detail = f"expected: {check.expected}\nseen:     {check.seen}"
            self._row(_STEP, Text.assemble("✘ ", check.what, style="bold red"), Text(detail))

    def _row(self, column: tuple[int, str], left: Text, right: Text | Table) -> None:
        """A column of fixed width, and the rest of the line, wrapped there."""
        width, justify = column
        grid = Table.grid(padding=(0, 2, 0, 0), expand=isinstance(right, Table))
        grid.add_column(width=width, justify=_justify(justify), no_wrap=True)
        grid.add_column(ratio=1, overflow="fold")
        grid.add_row(left, right)
        self.console.print(grid)


def _table(*columns: tuple[str, str]) -> Table:
    """A table without lines, with narrow columns to begin with."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    for heading, justify in columns:
        table.add_column(heading, justify=_justify(justify), no_wrap=True)
    return table


def _justify(name: str) -> JustifyMethod:
    return "right" if name == "right" else "left"


def _clock(ms: float | None) -> Text:
    """Call time."""
    return Text("" if ms is None else f"{ms / 1000:.1f} s", "dim")


def _ms(ms: float | None) -> str:
    return "" if ms is None else f"{ms:.0f} ms"
