"""What was played of which item, from proofs and by the clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlehome.codecs.ledger import Heard, Item, Ledger
from handlehome.codecs.played import Played, PlayedLog

REACH = 0.050


def sent(ledger: Ledger, now: float, item: Item, size: int, *, joined: bool = False) -> None:
    if not item.received:
        ledger.items.append(item)
    item.received += size
    ledger.add(now, item, size, joined)


def test_an_untouched_ledger_is_empty() -> None:
    ledger = Ledger()
    assert not ledger.open
    assert ledger.position(100.0, REACH) == 0
    assert ledger.completed() == ()
    assert ledger.close(100.0, REACH) == ()
    assert ledger.find("item") is None


def test_without_proofs_audio_plays_when_it_reaches_the_line() -> None:
    ledger = Ledger()
    sent(ledger, 100.0, Item("item"), 8000)
    assert ledger.open
    assert ledger.position(100.05, REACH) == 0
    assert ledger.position(100.55, REACH) == pytest.approx(4000, abs=1)
    assert ledger.position(200.0, REACH) == 8000


def test_a_piece_that_came_too_late_leaves_a_gap() -> None:
    ledger = Ledger()
    item = Item("item")
    sent(ledger, 100.0, item, 800)
    sent(ledger, 100.5, item, 800)
    assert ledger.position(100.4, REACH) == 800
    assert ledger.position(100.6, REACH) == pytest.approx(1200, abs=1)


def test_a_proof_counts_and_what_follows_is_reckoned_from_it() -> None:
    ledger = Ledger()
    item = Item("item")
    sent(ledger, 100.0, item, 8000)
    ledger.reached(800, 100.20, 100.22, REACH)  # began at 100.11, later than thought
    assert item.played == 800
    assert item.first_heard == pytest.approx(100.11)
    assert ledger.position(100.31, REACH) == pytest.approx(1600, abs=1)


def test_proofs_of_one_stretch_narrow_it_down() -> None:
    """It began between 100.10 and 100.12, and between 100.115 and 100.135."""
    ledger = Ledger()
    sent(ledger, 100.0, Item("item"), 8000)
    ledger.reached(800, 100.20, 100.22, REACH)
    ledger.reached(1600, 100.315, 100.335, REACH)
    assert ledger.position(100.4175, REACH) == pytest.approx(2400, abs=1)


@pytest.mark.parametrize("later", [0.3, -0.05])
def test_a_proof_that_contradicts_the_others_stands_alone(later: float) -> None:
    """There was a gap, or the earlier mark came late."""
    ledger = Ledger()
    sent(ledger, 100.0, Item("item"), 8000)
    ledger.reached(800, 100.20, 100.22, REACH)
    ledger.reached(1600, 100.30 + later, 100.32 + later, REACH)
    assert ledger.position(100.41 + later, REACH) == pytest.approx(2400, abs=1)


def test_a_proof_of_what_is_proven_already_changes_nothing() -> None:
    ledger = Ledger()
    sent(ledger, 100.0, Item("item"), 8000)
    ledger.reached(1600, 100.30, 100.32, REACH)
    ledger.reached(800, 105.0, 105.02, REACH)
    assert ledger.proven == 1600
    assert ledger.position(100.41, REACH) == pytest.approx(2400, abs=1)


def test_items_are_told_apart() -> None:
    ledger = Ledger()
    one, two = Item("one"), Item("two")
    sent(ledger, 100.0, one, 800)
    sent(ledger, 100.0, two, 1600, joined=True)
    assert ledger.begins(two, REACH) == pytest.approx(100.15)
    ledger.reached(1600, 100.25, 100.25, REACH)
    assert (one.played, two.played) == (800, 800)
    assert (one.first_heard, two.first_heard) == (pytest.approx(100.05), pytest.approx(100.15))
    assert ledger.begins(two, REACH) == two.first_heard
    one.ended = True
    assert ledger.completed() == (Heard("one", 100, 100, True, one.first_heard, 100),)
    assert ledger.completed() == ()
    assert [item.item_id for item in ledger.items] == ["two"]
    assert ledger.find("two") is two


def test_what_was_heard_is_told_by_the_clock_and_changes_nothing() -> None:
    ledger = Ledger()
    one, two = Item("one"), Item("two")
    sent(ledger, 100.0, one, 800)
    sent(ledger, 100.0, two, 1600)
    two.received += 8000  # that waits
    assert ledger.heard(100.0, REACH) == (
        Heard("one", 0, 100, False, None, 100),
        Heard("two", 0, 200, False, None, 1200),
    )
    ledger.reached(400, 100.09, 100.11, REACH)
    one.ended = True
    for _ in range(2):
        assert ledger.heard(100.2001, REACH) == (
            Heard("one", 100, 100, True, one.first_heard, 100),
            Heard("two", 50, 200, False, pytest.approx(100.15), 1200),  # type: ignore[arg-type]
        )
    assert (ledger.proven, one.played, two.first_heard) == (400, 400, None)


def test_an_item_that_is_settled_late_was_first_heard_when_it_began() -> None:
    """Its marks are lost; the clock says that it has been over for long."""
    ledger = Ledger()
    item = Item("item")
    sent(ledger, 100.0, item, 800)
    ledger.settle(110.0, REACH)
    assert item.first_heard == 100.0 + REACH


def test_a_log_gets_what_was_played_with_its_gaps() -> None:
    """The third proof shows a gap; of two pieces in front of it, the one that was sent late came late."""
    log = PlayedLog()
    ledger = Ledger(log)
    item = Item("item")
    sent(ledger, 100.0, item, 800)
    ledger.reached(800, 100.15, 100.15, REACH)
    sent(ledger, 100.05, item, 800)
    sent(ledger, 100.4, item, 800)
    ledger.reached(2400, 100.55, 100.55, REACH)
    sent(ledger, 100.41, item, 800)
    ledger.close(100.60, REACH)
    assert log.read(100.54, ledger.ahead(REACH)) == [
        Played(pytest.approx(100.05), 0, 1600),  # type: ignore[arg-type]
        Played(pytest.approx(100.45), 1600, 720),  # type: ignore[arg-type]
    ]
    [rest] = log.read(200.0, ledger.ahead(REACH))
    assert (rest.start, rest.size) == (2320, pytest.approx(480, abs=1))


def test_closing_tells_what_was_heard_of_each_item_and_forgets_them() -> None:
    ledger = Ledger()
    one, two, three = Item("one"), Item("two"), Item("three")
    for item in (one, two):
        sent(ledger, 100.0, item, 800)
    ledger.items.append(three)  # nothing of it was sent
    one.ended = True
    told = ledger.close(100.2, REACH)
    assert [(h.item_id, h.heard_ms, h.sent_ms, h.complete) for h in told] == [
        ("one", 100, 100, True),
        ("two", pytest.approx(50, abs=1), 100, False),
        ("three", 0, 0, False),
    ]
    assert [(h.received_ms, h.cleared_ms) for h in told] == [
        (100, 0),
        (100, pytest.approx(50, abs=1)),
        (0, 0),
    ]
    assert told[2].since is None
    assert not ledger.open
    assert ledger.position(300.0, REACH) == ledger.sent == 1600
    sent(ledger, 110.0, Item("four"), 800)
    assert ledger.position(110.1, REACH) == pytest.approx(2000, abs=1)


@given(
    st.lists(
        st.tuples(st.floats(0, 0.5), st.integers(1, 3), st.integers(1, 4000), st.booleans(), st.booleans()),
        min_size=1,
        max_size=30,
    ),
    st.floats(0, 0.3),
)
def test_played_never_exceeds_sent_and_never_goes_back(
    steps: list[tuple[float, int, int, bool, bool]], reach: float
) -> None:
    ledger = Ledger()
    items = {n: Item(str(n)) for n in range(1, 4)}
    now, last = 100.0, 0
    for wait, number, size, joined, proof in steps:
        now += wait
        sent(ledger, now, items[number], size, joined=joined)
        if proof:
            ledger.reached((ledger.proven + ledger.sent) // 2, now - 0.02, now, reach)
        position = ledger.position(now, reach)
        assert ledger.proven <= position <= ledger.sent
        ledger.settle(now, reach)
        assert last <= ledger.proven == position
        last = position
        assert sum(item.sent for item in items.values()) == ledger.sent
        assert sum(item.played for item in items.values()) == ledger.proven
        assert all(item.played <= item.sent <= item.received for item in items.values())
    ledger.settle(now + 200.0, reach)
    assert not ledger.open
