"""The order of a conversation's items, of which each names the one that it follows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

__all__ = ["ItemOrder"]


class ItemOrder:
    """Puts conversation items into the order of the conversation, whenever they become known.

    Each item names the item that it follows. Rules, in this order:

    - An item stands behind the one that it follows, even when that one becomes known later.
    - Items that follow the same item, and items that follow nothing or something that was never placed
      (the first item of a session, an item behind a function call that left no turn), stand by `at`:
      their own, or else the first one known among the items that follow them. Those without any stand
      behind all that were placed before them.
    - What is equal by these rules stands in the order of placement.

    An item keeps its place: the first predecessor and the first `at` that were given for it count. A
    predecessor that would close a circle counts as none.
    """

    __slots__ = ("_after", "_at", "_named")

    def __init__(self) -> None:
        self._after: dict[str, str | None] = {}
        self._at: dict[str, float] = {}
        self._named: set[str] = set()  # every predecessor that was ever named, placed or not

    def place(self, item_id: str, after: str | None, at: float | None = None) -> None:
        """Makes an item known, or more about it.

        Args:
            item_id: the item; it need not become a turn.
            after: the item that it follows (`previous_item_id`), None where there is none or it is not known.
            at: its start in call time, milliseconds; used only where the chain of items says nothing.
        """
        if self._after.get(item_id) is None:
            if after is not None and self._leads_to(item_id, after):
                after = None
            self._after[item_id] = after
            if after is not None:
                self._named.add(after)
        if at is not None:
            self._at.setdefault(item_id, at)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._after

    def __len__(self) -> int:
        return len(self._after)

    def __iter__(self) -> Iterator[str]:
        """All items in the order of the conversation; costs O(n log n)."""
        followers: dict[str | None, list[str]] = {}
        for item, after in self._after.items():
            followers.setdefault(after if after in self._after else None, []).append(item)
        waiting = self._in_time(followers.get(None, []), followers)[::-1]
        while waiting:
            item = waiting.pop()
            yield item
            waiting.extend(self._in_time(followers.get(item, []), followers)[::-1])

    def _leads_to(self, item_id: str, after: str) -> bool:
        """Whether the way back from `after` comes to the item itself."""
        if after == item_id:
            return True
        if item_id not in self._named:
            return False  # nothing follows it yet; this spares nearly every item the way back
        step: str | None = after
        while step is not None and step != item_id:
            step = self._after.get(step)
        return step is not None

    def _in_time(self, items: list[str], followers: Mapping[str | None, list[str]]) -> list[str]:
        if len(items) < 2:
            return items
        keys: dict[str, float] = {}
        latest = -math.inf
        for item in items:
            at = self._time(item, followers)
            keys[item] = latest if at is None else at
            latest = max(latest, keys[item])
        return sorted(items, key=keys.__getitem__)

    def _time(self, item: str, followers: Mapping[str | None, list[str]]) -> float | None:
        waiting = [item]
        while waiting:
            item = waiting.pop()
            if item in self._at:
                return self._at[item]
            waiting.extend(reversed(followers.get(item, [])))
        return None
