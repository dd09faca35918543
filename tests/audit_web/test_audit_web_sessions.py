"""Sessions end: unused, after a day's work, and when there are too many."""

from __future__ import annotations

from dicom_secure_node.audit_web.sessions import MOST_OF_ONE_USER, MOST_SESSIONS, Sessions


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_session_ends_when_it_is_not_used_and_at_last_anyway() -> None:
    clock = Clock()
    sessions = Sessions(60, 200, clock)
    word = sessions.begin("ada", "stamp")
    for clock.now in (50.0, 100.0, 150.0, 199.0):
        assert sessions.find(word) is not None
    clock.now = 200.0
    assert sessions.find(word) is None
    idle = sessions.begin("ada", "stamp")
    clock.now += 60
    assert sessions.find(idle) is None


def test_words_are_unlike_and_end_alone() -> None:
    sessions = Sessions(60, 200, Clock())
    one, other = sessions.begin("ada", "s"), sessions.begin("ada", "s")
    assert one != other
    sessions.end(one)
    assert sessions.find(one) is None
    found = sessions.find(other)
    assert found is not None
    assert found.token not in (one, other)
    assert found.token not in repr(found)
    sessions.end("never begun")


def test_there_is_an_end_to_how_many_there_are() -> None:
    sessions = Sessions(60, 200, Clock())
    own = [sessions.begin("ada", "s") for _ in range(MOST_OF_ONE_USER + 1)]
    assert sessions.find(own[0]) is None
    assert sessions.find(own[1]) is not None
    for number in range(MOST_SESSIONS):
        sessions.begin(f"user {number}", "s")
    assert sessions.find(own[-1]) is None
