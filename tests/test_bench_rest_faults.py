"""Plans of faults."""

from __future__ import annotations

import pytest

from handlehome.bench.rest import faults
from handlehome.bench.rest.request import RESPONSES, TRANSCRIPTIONS, RestRequest


def request(number: int, path: str = RESPONSES) -> RestRequest:
    return RestRequest(number, "POST", path, {}, b"", 0.0, "req_0")


def test_by_default_nothing_goes_wrong() -> None:
    assert faults.none(request(0)) is None


def test_always_means_every_request_of_the_path() -> None:
    assert faults.always(faults.CUT)(request(7)) is faults.CUT
    plan = faults.always(faults.CUT, path=TRANSCRIPTIONS)
    assert plan(request(0)) is None
    assert plan(request(0, TRANSCRIPTIONS)) is faults.CUT


def test_numbered_faults_hit_their_requests_only() -> None:
    plan = faults.numbered({1: faults.SLOW_DOWN}, path=RESPONSES)
    assert [plan(request(number)) for number in range(3)] == [None, faults.SLOW_DOWN, None]
    assert plan(request(1, TRANSCRIPTIONS)) is None


def test_random_faults_come_about_as_often_as_wanted_and_the_same_each_time() -> None:
    chances = {faults.CUT: 0.2, faults.OVERLOADED: 0.1}
    plan = faults.at_random(chances, seed=3, path=RESPONSES)
    drawn = [plan(request(number)) for number in range(1000)]
    assert 150 < drawn.count(faults.CUT) < 250
    assert 60 < drawn.count(faults.OVERLOADED) < 140
    again = faults.at_random(chances, seed=3)
    assert [again(request(number)) for number in reversed(range(1000))] == drawn[::-1]
    assert [faults.at_random(chances, seed=4)(request(number)) for number in range(1000)] != drawn
    assert plan(request(0, TRANSCRIPTIONS)) is None


def test_more_than_certain_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 1"):
        faults.at_random({faults.CUT: 0.6, faults.SILENT: 0.6})


@pytest.mark.parametrize(("seconds", "header"), [(None, None), (3, "3"), (0.25, "0.25")])
def test_a_rate_limit_says_when_to_try_again_or_not(seconds: float | None, header: str | None) -> None:
    fault = faults.rate_limited(seconds)
    assert fault.error is not None
    assert fault.error().headers.get("retry-after") == header
