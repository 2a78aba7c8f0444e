"""Handing results over: the last word, and silence after the end."""

import threading
from dataclasses import replace

import pytest

from handlehome.extract.attempt import Found
from handlehome.extract.backlog import Job
from handlehome.extract.results import Abandoned, NotTaken, Results
from tests.extract_room import ENDED_AT, Ledger

BY_RULES = Found({"summary": "rules"}, "rules", None, "default")
BY_MODEL = Found({"summary": "model"}, "model", "m", "default")


@pytest.fixture
def ledger() -> Ledger:
    made = Ledger()
    made.add("CA1")
    return made


@pytest.fixture
def results(ledger: Ledger) -> Results:
    return Results(ledger.calls, lambda: ENDED_AT + 0.25)


def test_what_is_kept_is_journaled_and_saved(ledger: Ledger, results: Results) -> None:
    assert results.keep(Job("CA1", 0.0), BY_MODEL, "complete", 2, None)
    assert ledger.of("CA1", "extracted") == [
        {
            "data": {"summary": "model"},
            "extraction": {
                "status": "complete",
                "method": "model",
                "model": "m",
                "schema": "default",
                "attempts": 2,
                "error": None,
                "at": "2026-11-24T14:32:00.250Z",
            },
        }
    ]
    assert ledger.saved == ["CA1"]


def test_a_result_is_not_replaced_by_what_was_to_help_out_until_it_came(
    ledger: Ledger, results: Results
) -> None:
    job = Job("CA1", 0.0)
    assert results.keep(job, BY_RULES, "waiting", 0, None)
    assert results.keep(job, BY_MODEL, "complete", 1, None)
    assert not results.keep(job, BY_RULES, "waiting", 0, None)
    assert len(ledger.of("CA1", "extracted")) == len(ledger.saved) == 2


def test_a_journal_that_takes_nothing_keeps_nothing(ledger: Ledger, results: Results) -> None:
    ledger.refuses = {"extracted"}
    job = Job("CA1", 0.0)
    with pytest.raises(NotTaken):
        results.keep(job, BY_MODEL, "complete", 1, None)
    assert (job.kept, ledger.saved) == (False, [])


def test_after_the_end_nothing_is_appended_or_saved(ledger: Ledger, results: Results) -> None:
    results.close()
    with pytest.raises(Abandoned):
        results.append("CA1", "usage", {})
    with pytest.raises(Abandoned):
        results.keep(Job("CA1", 0.0), BY_MODEL, "complete", 1, None)
    results.done("CA1")
    assert (ledger.of("CA1", "usage"), ledger.of("CA1", "extracted"), ledger.saved) == ([], [], [])


def test_a_save_that_takes_its_time_holds_up_no_other_result(ledger: Ledger) -> None:
    began, end = threading.Event(), threading.Event()

    def done(_: str) -> None:
        began.set()
        assert end.wait(10)

    results = Results(replace(ledger.calls, done=done), lambda: ENDED_AT)
    saving = threading.Thread(target=results.keep, args=(Job("CA1", 0.0), BY_MODEL, "complete", 1, None))
    saving.start()
    assert began.wait(10)
    assert results.append("CA1", "usage", {"seconds": 1})
    results.close()
    end.set()
    saving.join(10)
    assert len(ledger.of("CA1", "usage")) == 1
