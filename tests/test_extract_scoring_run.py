import io
import json
import threading
from typing import Any

from rich.console import Console

from handlehome.extract import corpus, rules
from handlehome.extract.corpus import Case
from handlehome.extract.scoring_run import run, to_json, to_table

CASES = corpus.load()[:6]


def perfect(case: Case) -> dict[str, Any]:
    return case.expected


def by_rules(case: Case) -> dict[str, Any]:
    return rules.extract(case.record, region=case.region, time_zone=case.time_zone, language=case.language)


def test_what_extracts_what_is_expected_has_no_errors() -> None:
    result = run("perfect", perfect, CASES)
    assert result.score.overall.f1 == 1
    assert result.failed == 0
    assert [case.name for case in result.cases] == [case.name for case in CASES]


def test_an_extraction_that_fails_has_found_nothing_and_says_why() -> None:
    def failing(case: Case) -> dict[str, Any]:
        if case is CASES[2]:
            raise TimeoutError("no answer")
        return case.expected

    result = run("failing", failing, CASES)
    assert result.failed == 1
    assert result.cases[2].error == "TimeoutError: no answer"
    assert result.cases[2].score.overall.hits == 0


def test_cases_are_extracted_at_once_and_stay_in_order() -> None:
    """Three at a time must meet at the barrier, or they would never pass it."""
    barrier = threading.Barrier(3)

    def waiting(case: Case) -> dict[str, Any]:
        barrier.wait(timeout=30)
        return case.expected

    result = run("waiting", waiting, CASES, workers=3)
    assert result.failed == 0
    assert [case.name for case in result.cases] == [case.name for case in CASES]


def test_progress_and_table_are_shown() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    result = run("rules", by_rules, CASES, console=console)
    console.print(to_table(result))
    shown = console.file.getvalue()
    assert "Scoring rules" in shown
    assert f"rules on {len(CASES)} calls" in shown
    assert "precision" in shown
    assert "postcode" in shown
    assert "overall" in shown


def test_the_result_is_json() -> None:
    result = run("rules", by_rules, CASES)
    content = json.loads(json.dumps(to_json(result)))
    assert content["name"] == "rules"
    assert [case["name"] for case in content["cases"]] == [case.name for case in CASES]
    assert any(each["field"] == "last_name" for case in content["cases"] for each in case["differences"])
    assert {row["field"] for row in content["fields"]} >= {"phone", "overall"}
