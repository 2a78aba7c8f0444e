"""Scores anything that extracts data on the corpus: the rules, or any model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from handlehome.extract import scoring
from handlehome.extract.corpus import Case
from handlehome.extract.scoring import Score

__all__ = ["CaseResult", "Result", "run", "to_json", "to_table"]


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What came of one case.

    Attributes:
        name: of the case.
        score: the comparison; an extraction that failed has found nothing.
        seconds: how long the extraction took.
        error: why it failed, None when it did not.
    """

    name: str
    score: Score
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What came of all cases.

    Attributes:
        name: of what was scored: "rules", or a model.
        cases: in the order of the corpus.
    """

    name: str
    cases: tuple[CaseResult, ...]

    @property
    def score(self) -> Score:
        return scoring.total(case.score for case in self.cases)

    @property
    def failed(self) -> int:
        return sum(case.error is not None for case in self.cases)


def run(
    name: str,
    extract: Callable[[Case], dict[str, Any]],
    cases: Sequence[Case],
    *,
    workers: int = 1,
    console: Console | None = None,
) -> Result:
    """Extracts the data of each case and scores it, with a progress bar where there is a console.

    Args: name: of what is scored, as it is shown. extract: gives the data object of a case, in the default
    schema, from its record, region and time zone. It is called from `workers` threads at once. An exception
    counts as nothing found, and is named in the result. cases: what to score it on; see `corpus.load`.
    workers: how many cases at once. console: where progress is shown; None shows none."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console or Console(quiet=True),
        disable=console is None,
    )
    results: list[CaseResult] = []
    with bar, ThreadPoolExecutor(workers, thread_name_prefix="score") as pool:
        task = bar.add_task(f"Scoring {name}", total=len(cases))
        for result in pool.map(lambda case: _one(extract, case), cases):
            results.append(result)
            bar.advance(task)
    return Result(name, tuple(results))


def _one(extract: Callable[[Case], dict[str, Any]], case: Case) -> CaseResult:
    began = time.perf_counter()
    error: str | None = None
    data: dict[str, Any] = {}
    try:
        data = extract(case)
    except Exception as problem:  # whatever a model's client raises: one case must not end the run
        error = f"{type(problem).__name__}: {problem}"
    return CaseResult(case.name, scoring.score(case.expected, data), time.perf_counter() - began, error)


def to_table(result: Result) -> Table:
    """A table with one row per field, to be printed by rich."""
    table = Table(title=f"{result.name} on {len(result.cases)} calls", title_justify="left")
    table.add_column("field")
    for column in ("hits", "wrong", "missed", "precision", "recall", "F1"):
        table.add_column(column, justify="right")
    for row in scoring.table(result.score):
        if row["field"] == "overall":
            table.add_section()
        counts = (str(row[key]) for key in ("hits", "wrong", "missed"))
        shares = ("-" if row[key] is None else f"{row[key]:.3f}" for key in ("precision", "recall", "f1"))
        table.add_row(row["field"], *counts, *shares)
    return table


def to_json(result: Result) -> dict[str, Any]:
    """The same and each case's differences, as JSON can hold it."""
    return {
        "name": result.name,
        "failed": result.failed,
        "fields": scoring.table(result.score),
        "cases": [
            {
                "name": case.name,
                "seconds": round(case.seconds, 4),
                "error": case.error,
                "differences": [
                    {"field": each.field, "expected": each.expected, "got": each.got}
                    for each in case.score.differences
                ],
            }
            for case in result.cases
        ],
    }
