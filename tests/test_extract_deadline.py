"""What may be in the way of a request's connection when its time is over; the SDK's part is tested there."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from handlehome.extract.deadline import Deadline


class Stream:
    """As httpcore announces it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def get_extra_info(self, name: str) -> Any:
        assert name == "socket"
        return self.sock


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)
        yield ours, theirs


Pair = tuple[socket.socket, socket.socket]


def waited(deadline: Deadline) -> None:
    deadline._timer.join(10)
    assert deadline.passed


def test_a_read_under_way_ends_at_the_deadline(pair: Pair) -> None:
    with Deadline(0.05) as deadline:
        deadline.trace("connection.connect_tcp.complete", {"return_value": Stream(pair[0])})
        assert pair[0].recv(1) == b""
    assert deadline.passed


def test_a_connection_made_too_late_is_shut_down_at_once(pair: Pair) -> None:
    with Deadline(0.0) as deadline:
        waited(deadline)
        deadline.trace("connection.connect_tcp.complete", {"return_value": Stream(pair[0])})
        assert pair[0].recv(1) == b""


def test_after_the_request_nothing_is_shut_down(pair: Pair) -> None:
    with Deadline(60) as deadline:
        deadline.trace("connection.connect_tcp.complete", {"return_value": Stream(pair[0])})
    deadline._pass()  # as if it had been on its way
    pair[1].send(b"x")
    assert pair[0].recv(1) == b"x"


def test_it_leaves_no_thread_behind() -> None:
    with Deadline(60) as deadline:
        pass
    deadline._timer.join(10)
    assert not deadline._timer.is_alive()
    assert not deadline.passed


@pytest.mark.parametrize("info", [{}, {"return_value": None}, {"return_value": (b"HTTP/1.1", 200)}])
def test_other_events_tell_nothing(info: dict[str, Any]) -> None:
    with Deadline(60) as deadline:
        deadline.trace("http11.receive_response_headers.complete", info)
        assert deadline._socket is None


def test_a_connection_that_is_closed_already_is_no_error(pair: Pair) -> None:
    pair[0].close()
    with Deadline(0.0) as deadline:
        waited(deadline)
        deadline.trace("connection.connect_tcp.complete", {"return_value": Stream(pair[0])})


def test_a_connection_that_tls_superseded_is_not_meant_any_more() -> None:
    first, second = socket.socketpair(), socket.socketpair()
    with first[0], first[1], second[0], second[1], Deadline(0.05) as deadline:
        deadline.trace("connection.connect_tcp.complete", {"return_value": Stream(first[0])})
        deadline.trace("connection.start_tls.complete", {"return_value": Stream(second[0])})
        second[0].settimeout(10)
        assert second[0].recv(1) == b""
        first[1].send(b"x")
        assert first[0].recv(1) == b"x"
