import timeit

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from handlehome.codecs.framepool import BLOCK_BYTES, RESERVE_BLOCKS, FramePool, FrameQueue


def numbered(start: int, count: int) -> bytes:
    """Bytes that tell their position in the stream (modulo a prime, so that no block size divides it)."""
    return bytes((start + n) % 251 for n in range(count))


def test_a_new_queue_and_its_pool_hold_nothing() -> None:
    pool = FramePool(4)
    queue = FrameQueue(pool, 1000)
    assert len(queue) == 0
    assert bytes(queue.read(160)) == b""
    assert (pool.in_use, pool.high_water, pool.refused, pool.reserved) == (0, 0, 0, 0)
    assert pool.block_bytes == BLOCK_BYTES == 20 * 480


def test_reads_return_what_was_pushed_in_order_across_blocks() -> None:
    queue = FrameQueue(FramePool(10, 16), 160)
    assert queue.push(numbered(0, 10))
    assert queue.push(numbered(10, 100))
    got = b""
    while piece := queue.read(7):
        got += piece
    assert got == numbered(0, 110)


def test_a_read_ends_at_the_end_of_its_block() -> None:
    queue = FrameQueue(FramePool(3, 16), 48)
    queue.push(numbered(0, 20))
    assert bytes(queue.read(100)) == numbered(0, 16)
    assert bytes(queue.read(100)) == numbered(16, 4)


def test_slices_of_60_ms_never_straddle_blocks() -> None:
    queue = FrameQueue(FramePool(4), 4 * BLOCK_BYTES)
    for _ in range(3 * BLOCK_BYTES // 160):
        queue.push(bytes(160))
    assert {len(queue.read(480)) for _ in range(3 * BLOCK_BYTES // 480)} == {480}


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_push_takes_any_bytes(kind: type) -> None:
    queue = FrameQueue(FramePool(2, 16), 32)
    assert queue.push(kind(numbered(0, 20)))
    assert bytes(queue.read(16)) + bytes(queue.read(16)) == numbered(0, 20)


def test_a_push_beyond_the_limit_stores_nothing_and_is_counted() -> None:
    pool = FramePool(10, 16)
    queue = FrameQueue(pool, 20)
    assert queue.push(bytes(15))
    assert not queue.push(bytes(6))
    assert (len(queue), queue.dropped_bytes, pool.in_use, pool.refused) == (15, 6, 1, 0)
    assert queue.push(bytes(5))


def test_a_push_into_an_exhausted_pool_stores_nothing_and_is_counted() -> None:
    pool = FramePool(2, 16)
    first, second = FrameQueue(pool, 1000), FrameQueue(pool, 1000)
    assert first.push(bytes(10))
    assert not second.push(bytes(17))
    assert (len(second), second.dropped_bytes, pool.refused, pool.in_use) == (0, 17, 1, 1)
    assert second.push(bytes(16))
    assert first.push(bytes(6))
    assert not first.push(bytes(1))
    assert (pool.refused, pool.in_use, pool.high_water) == (2, 2, 2)


def test_pushing_nothing_succeeds_and_takes_no_block() -> None:
    pool = FramePool(1, 16)
    queue = FrameQueue(pool, 16)
    assert queue.push(b"")
    assert (pool.in_use, queue.dropped_bytes) == (0, 0)
    queue.push(bytes(16))
    assert queue.push(b"")


@pytest.mark.parametrize("size", [0, -1])
def test_reading_or_skipping_no_bytes_takes_nothing(size: int) -> None:
    queue = FrameQueue(FramePool(1, 16), 16)
    queue.push(bytes(5))
    assert len(queue.read(size)) == 0
    assert queue.skip(size) == 0
    assert len(queue) == 5


def test_reads_of_a_block_that_stays_are_not_copied() -> None:
    queue = FrameQueue(FramePool(2, 16), 32)
    queue.push(bytes(20))
    first = queue.read(8)
    second = queue.read(8)
    assert first.obj is second.obj


def test_the_block_of_a_view_goes_back_at_the_next_call_of_its_queue() -> None:
    pool = FramePool(3, 16)
    queue, other = FrameQueue(pool, 48), FrameQueue(pool, 48)
    queue.push(numbered(0, 20))
    view = queue.read(16)
    other.push(b"\xee" * 16)
    assert pool.in_use == 3
    assert bytes(view) == numbered(0, 16)
    queue.read(1)
    assert pool.in_use == 2


@pytest.mark.parametrize("call", ["push", "read", "skip", "clear", "close"])
def test_every_call_gives_the_spent_block_back(call: str) -> None:
    pool = FramePool(3, 16)
    queue = FrameQueue(pool, 48)
    queue.push(bytes(20))
    queue.read(16)
    arguments = {"push": (b"x",), "read": (1,), "skip": (1,)}.get(call, ())
    getattr(queue, call)(*arguments)
    assert pool.in_use == (0 if call in ("clear", "close") else 1)


def test_the_read_that_empties_the_queue_gives_its_block_back_at_once() -> None:
    pool = FramePool(1, 16)
    queue, other = FrameQueue(pool, 16), FrameQueue(pool, 16)
    queue.push(numbered(0, 10))
    view = queue.read(160)
    assert pool.in_use == 0
    other.push(b"\xee" * 16)
    assert bytes(view) == numbered(0, 10)


def test_skip_drops_from_the_head_and_says_how_much() -> None:
    pool = FramePool(4, 16)
    queue = FrameQueue(pool, 64)
    queue.push(numbered(0, 60))
    assert queue.skip(35) == 35
    assert pool.in_use == 2
    assert bytes(queue.read(5)) == numbered(35, 5)
    assert queue.skip(100) == 20
    assert (pool.in_use, len(queue), queue.dropped_bytes) == (0, 0, 0)


def test_clear_says_how_much_it_dropped_and_leaves_a_usable_queue() -> None:
    pool = FramePool(4, 16)
    queue = FrameQueue(pool, 64)
    queue.push(bytes(40))
    assert queue.clear() == 40
    assert queue.clear() == 0
    assert pool.in_use == 0
    queue.push(numbered(7, 20))
    assert bytes(queue.read(16)) == numbered(7, 16)


def test_a_closed_queue_refuses_and_is_empty() -> None:
    pool = FramePool(4, 16)
    queue = FrameQueue(pool, 64)
    queue.push(bytes(40))
    queue.close()
    queue.close()
    assert not queue.push(bytes(3))
    assert queue.dropped_bytes == 3
    assert len(queue.read(10)) == len(queue) == pool.in_use == pool.refused == 0


def test_blocks_are_reused_and_a_burst_is_given_back_to_the_allocator() -> None:
    pool = FramePool(10 * RESERVE_BLOCKS, 16)
    queue = FrameQueue(pool, 10**6)
    assert pool.reserved == 0
    queue.push(bytes(3 * RESERVE_BLOCKS * 16))
    assert queue.clear() == 3 * RESERVE_BLOCKS * 16
    assert (pool.reserved, pool.high_water) == (RESERVE_BLOCKS, 3 * RESERVE_BLOCKS)
    queue.push(bytes(16))
    assert pool.reserved == RESERVE_BLOCKS - 1


@pytest.mark.parametrize("sizes", [(0, 160), (1, 0), (-1, 1)])
def test_a_pool_without_room_is_an_error(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="positive sizes"):
        FramePool(*sizes)


def test_a_queue_without_room_is_an_error() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        FrameQueue(FramePool(1), 0)


def test_a_frame_in_and_out_costs_microseconds(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the cost of push and read; the bound only catches a change of order of magnitude."""
    frame = bytes(160)
    queue = FrameQueue(FramePool(64), 1000 * 160)

    def fill() -> None:
        queue.clear()
        for _ in range(1000):
            queue.push(frame)

    def through() -> None:
        queue.push(frame)
        queue.read(160)

    push = min(timeit.repeat(lambda: queue.push(frame), setup=queue.clear, number=1000, repeat=30)) * 1e3
    read = min(timeit.repeat(lambda: queue.read(160), setup=fill, number=1000, repeat=30)) * 1e3
    queue.clear()
    both = min(timeit.repeat(through, number=1000, repeat=30)) * 1e3
    with capsys.disabled():
        print(
            f"\nframepool, 160 bytes: push {push:.2f} us, read {read:.2f} us, "
            f"both through an empty queue {both:.2f} us"
        )
    assert max(push, read, both / 2) < 10


class SharedPool(RuleBasedStateMachine):
    """Many queues over one small pool against plain byte strings; views must hold up to their last moment."""

    QUEUES = 5
    BLOCKS, BLOCK_BYTES, LIMIT = 7, 16, 70

    @initialize()
    def open(self) -> None:
        self.pool = FramePool(self.BLOCKS, self.BLOCK_BYTES)
        self.queues = [FrameQueue(self.pool, self.LIMIT) for _ in range(self.QUEUES)]
        self.models = [b""] * self.QUEUES
        self.views: list[tuple[memoryview, bytes]] = [(memoryview(b""), b"")] * self.QUEUES
        self.pushed = self.dropped = 0

    which = st.integers(0, QUEUES - 1)

    def end_view(self, which: int) -> FrameQueue:
        """The last view of a queue must hold until just before the queue's next call."""
        view, expected = self.views[which]
        assert bytes(view) == expected
        self.views[which] = (memoryview(b""), b"")
        return self.queues[which]

    @rule(which=which, count=st.integers(0, 90))
    def push(self, which: int, count: int) -> None:
        data = numbered(self.pushed, count)
        self.pushed += count
        queue = self.end_view(which)
        before = self.pool.refused
        fits = len(queue) + count <= self.LIMIT
        if queue.push(data):
            assert fits
            self.models[which] += data
        else:
            assert not fits or self.pool.refused == before + 1
            self.dropped += count

    @rule(which=which, size=st.integers(-1, 50))
    def read(self, which: int, size: int) -> None:
        view = self.end_view(which).read(size)
        model = self.models[which]
        assert model.startswith(view)
        assert len(view) <= max(size, 0)
        assert len(view) > 0 or size <= 0 or not model
        self.models[which] = model[len(view) :]
        self.views[which] = (view, model[: len(view)])

    @rule(which=which, size=st.integers(-1, 80))
    def skip(self, which: int, size: int) -> None:
        expected = min(max(size, 0), len(self.models[which]))
        assert self.end_view(which).skip(size) == expected
        self.models[which] = self.models[which][expected:]

    @rule(which=which)
    def clear(self, which: int) -> None:
        assert self.end_view(which).clear() == len(self.models[which])
        self.models[which] = b""

    @rule(which=which)
    def replace(self, which: int) -> None:
        """A call ends and the next one starts."""
        queue = self.end_view(which)
        self.dropped -= queue.dropped_bytes
        queue.close()
        self.queues[which] = FrameQueue(self.pool, self.LIMIT)
        self.models[which] = b""

    @invariant()
    def lengths_and_blocks_agree(self) -> None:
        most = 0
        for queue, model in zip(self.queues, self.models, strict=True):
            assert len(queue) == len(model)
            # A spent block, a head and a tail that are partly used, and full ones between them.
            most += 0 if not model else 1 + (len(model) + 2 * self.BLOCK_BYTES - 2) // self.BLOCK_BYTES
        assert self.pool.in_use <= min(most, self.pool.high_water) <= self.BLOCKS
        assert sum(queue.dropped_bytes for queue in self.queues) == self.dropped

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        for which, model in enumerate(self.models):
            got = b""
            while piece := self.end_view(which).read(1000):
                got += piece
            assert got == model
            assert len(self.queues[which]) == 0
        assert self.pool.in_use == 0


SharedPool.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestSharedPool = SharedPool.TestCase
