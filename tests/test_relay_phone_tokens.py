"""One-time tokens: what opens a stream, and what each refusal is called."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlehome.relay.phone.tokens import LIFETIME_SECONDS, TokenRegister, TokenVerdict

CALL = "CA" + "1" * 32
OTHER = "CA" + "2" * 32


def test_a_token_opens_its_call_once() -> None:
    register = TokenRegister()
    token = register.issue(CALL, 0.0)
    assert register.redeem(token, CALL, 1.0) is TokenVerdict.OK
    assert register.redeem(token, CALL, 1.0) is TokenVerdict.USED


def test_a_token_is_good_for_a_minute_and_not_a_moment_longer() -> None:
    register = TokenRegister()
    early, late = register.issue(CALL, 10.0), register.issue(CALL, 10.0)
    assert register.redeem(early, CALL, 10.0 + LIFETIME_SECONDS - 0.001) is TokenVerdict.OK
    assert register.redeem(late, CALL, 10.0 + LIFETIME_SECONDS) is TokenVerdict.EXPIRED
    assert LIFETIME_SECONDS == 60.0


def test_another_calls_token_is_foreign_and_not_spoilt() -> None:
    register = TokenRegister()
    token = register.issue(CALL, 0.0)
    assert register.redeem(token, OTHER, 1.0) is TokenVerdict.FOREIGN
    assert register.redeem(token, CALL, 2.0) is TokenVerdict.OK
    assert register.redeem(token, OTHER, 3.0) is TokenVerdict.FOREIGN


@pytest.mark.parametrize("token", ["", "no-such-token", "é", "\x00" * 1000])
def test_a_made_up_token_is_unknown(token: str) -> None:
    register = TokenRegister()
    register.issue(CALL, 0.0)
    assert register.redeem(token, CALL, 0.0) is TokenVerdict.UNKNOWN


def test_a_used_token_is_named_so_even_past_its_expiry() -> None:
    register = TokenRegister()
    token = register.issue(CALL, 0.0)
    register.redeem(token, CALL, 1.0)
    assert register.redeem(token, CALL, LIFETIME_SECONDS + 1) is TokenVerdict.USED


def test_tokens_are_forgotten_one_lifetime_past_their_expiry() -> None:
    register = TokenRegister()
    token = register.issue(CALL, 0.0)
    assert register.redeem(token, CALL, 2 * LIFETIME_SECONDS) is TokenVerdict.UNKNOWN
    assert len(register) == 0


def test_a_repeated_webhook_gets_a_second_token_and_both_are_good() -> None:
    """Twilio may use either of two answers to a request that it sent twice."""
    register = TokenRegister()
    first, second = register.issue(CALL, 0.0), register.issue(CALL, 1.0)
    assert first != second
    assert register.redeem(second, CALL, 2.0) is TokenVerdict.OK
    assert register.redeem(first, CALL, 2.0) is TokenVerdict.OK


def test_the_register_is_bounded_and_drops_the_oldest() -> None:
    register = TokenRegister(limit=3)
    tokens = [register.issue(CALL, 0.0) for _ in range(5)]
    assert len(register) == 3
    assert [register.redeem(token, CALL, 0.0) for token in tokens] == [TokenVerdict.UNKNOWN] * 2 + [
        TokenVerdict.OK
    ] * 3


def test_a_token_fits_a_parameter_and_needs_no_escape() -> None:
    """Name and value of a <Parameter> stay below 500 characters."""
    token = TokenRegister().issue(CALL, 0.0)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", token)


@pytest.mark.parametrize(("lifetime", "limit"), [(0.0, 1), (-1.0, 1), (1.0, 0)])
def test_bounds_have_to_be_positive(lifetime: float, limit: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        TokenRegister(lifetime, limit)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["issue", "redeem"]),
            st.integers(0, 20),
            st.sampled_from([CALL, OTHER]),
            st.floats(0, 40),
        ),
        max_size=60,
    )
)
def test_no_order_of_events_opens_a_token_twice_late_or_for_a_stranger(
    steps: list[tuple[str, int, str, float]],
) -> None:
    register = TokenRegister()
    issued: list[tuple[str, str, float]] = []
    opened: set[str] = set()
    now = 0.0
    for what, index, call_sid, wait in steps:
        now += wait
        if what == "issue":
            issued.append((register.issue(call_sid, now), call_sid, now))
        elif issued:
            token, owner, since = issued[index % len(issued)]
            good = owner == call_sid and token not in opened and now < since + LIFETIME_SECONDS
            assert (register.redeem(token, call_sid, now) is TokenVerdict.OK) == good
            if good:
                opened.add(token)
