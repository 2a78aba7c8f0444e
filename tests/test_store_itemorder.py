"""The order of a conversation's items, whenever they become known."""

import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlehome.store.itemorder import ItemOrder


def order(*placed: tuple[Any, ...]) -> list[str]:
    items = ItemOrder()
    for arguments in placed:
        items.place(*arguments)
    assert len(items) == len(list(items))
    return list(items)


def test_item_known_late_lands_in_its_place() -> None:
    assert order(("a", None), ("c", "b"), ("d", "c"), ("b", "a")) == ["a", "b", "c", "d"]


def test_item_behind_one_that_never_came_stands_by_its_time() -> None:
    """The answer follows a function call that left no item; the question is placed after it."""
    assert order(("answer", "call_1", 9000), ("next", "answer", 12000), ("question", None, 3000)) == [
        "question",
        "answer",
        "next",
    ]


def test_session_without_times_stands_behind_what_was_there() -> None:
    assert order(("a1", None), ("b1", None), ("a2", "a1"), ("b2", "b1")) == ["a1", "a2", "b1", "b2"]


def test_untimed_item_stands_behind_all_placed_before_it_even_when_an_early_one_came_last() -> None:
    assert order(("b", None, 50), ("a", None, 3), ("new", None)) == ["a", "b", "new"]


def test_session_has_the_time_of_the_first_item_that_has_one() -> None:
    assert order(("b1", None), ("b2", "b1", 70), ("a1", None), ("a2", "a1", 10)) == ["a1", "a2", "b1", "b2"]


def test_items_behind_the_same_one_stand_by_time() -> None:
    assert order(("a", None), ("c", "a", 30), ("b", "a", 20)) == ["a", "b", "c"]


def test_predecessor_may_be_told_later_and_is_then_kept() -> None:
    assert order(("x", None), ("b", None), ("a", None), ("b", "a"), ("b", "x"), ("b", None)) == [
        "x",
        "a",
        "b",
    ]


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_circle_is_cut(length: int) -> None:
    names = [f"i{number}" for number in range(length)]
    circle = [(name, names[number - 1]) for number, name in enumerate(names)]
    for arrival in itertools.permutations(circle):
        assert sorted(order(*arrival, *arrival)) == sorted(names)


def test_membership() -> None:
    items = ItemOrder()
    items.place("a", "b")
    assert "a" in items
    assert "b" not in items


def test_long_call_is_ordered_without_recursion_in_any_arrival() -> None:
    chain = [(f"i{number}", f"i{number - 1}" if number else None) for number in range(5000)]
    expected = [name for name, _ in chain]
    assert order(*chain) == expected
    assert order(*reversed(chain)) == expected


names = st.sampled_from("abcdefgh")


@given(st.lists(st.tuples(names, st.none() | names, st.none() | st.integers(0, 9))))
def test_any_placements_give_each_item_once_behind_the_one_it_follows(
    placements: list[tuple[str, str | None, int | None]],
) -> None:
    """Whatever is named, circles included; the first predecessor counts, unless it closes a circle."""
    result = order(*placements)
    assert sorted(result) == sorted({item for item, _, _ in placements})
    first: dict[str, str] = {}
    for item, after, _ in placements:
        step: str | None = after
        while step is not None and step != item:
            step = first.get(step)
        if after is not None and step is None:
            first.setdefault(item, after)
    for item, after in first.items():
        if after in result:
            assert result.index(after) < result.index(item)


@st.composite
def conversations(draw: st.DrawFn) -> list[tuple[str, str | None, int]]:
    """Sessions one after another; some items' predecessors are function calls, which leave no item."""
    items: list[tuple[str, str | None, int]] = []
    for session in range(draw(st.integers(1, 3))):
        after = None
        for number in range(draw(st.integers(1, 6))):
            name = f"s{session}i{number}"
            items.append(
                (name, f"call_{name}" if draw(st.booleans()) and number else after, 1000 * len(items))
            )
            after = name
    return items


@given(conversations(), st.randoms(use_true_random=False))
def test_any_arrival_gives_the_same_conversation(
    items: list[tuple[str, str | None, int]], chance: random.Random
) -> None:
    arrival = chance.sample(items, len(items))
    assert order(*arrival) == [name for name, _, _ in items]
