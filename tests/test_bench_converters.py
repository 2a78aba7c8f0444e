import numpy as np
import pytest

from handlehome.bench.converters import OTHERS, OURS, optional, subjects

DIRECTIONS = [(8000, 24000), (24000, 8000), (8000, 16000), (16000, 8000)]


def test_a_package_that_is_not_installed_is_none() -> None:
    assert optional("handlehome_has_no_such_module") is None
    assert optional("numpy") is np


def test_without_the_others_ours_is_alone() -> None:
    assert [subject.name for subject in subjects(8000, 24000, dict.fromkeys(OTHERS))] == [OURS]


@pytest.mark.parametrize(("source", "target"), DIRECTIONS)
def test_every_converter_turns_a_second_into_a_second(source: int, target: int) -> None:
    """Chunk by chunk, give or take a delay; and all that is asked for is int16."""
    everyone = subjects(source, target, {name: optional(name) for name in OTHERS})
    assert len(everyone) == 7
    for subject in everyone:
        stream = subject.make()
        frame = np.full(source // 50, 1000, np.int16)
        parts = [*(stream.process(frame) for _ in range(50)), stream.flush()]
        out = np.concatenate(parts)
        assert out.dtype == np.int16
        assert len(out) == pytest.approx(target, abs=target // 200)
        assert np.median(out) == pytest.approx(1000, abs=2)
        assert subject.streams == any(len(part) for part in parts[:-1])


def test_each_stream_is_a_new_one() -> None:
    for subject in subjects(8000, 24000, {name: optional(name) for name in OTHERS}):
        first, second = subject.make(), subject.make()
        first.process(np.full(800, 20000, np.int16))
        second.process(np.zeros(800, np.int16))
        assert np.abs(second.flush()).max(initial=0) <= 2  # soxr dithers
