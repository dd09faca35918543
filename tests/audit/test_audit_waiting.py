"""Since when does a repository wait for its oldest message?"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicom_secure_node.audit.messages import AuditMessage, Participant, application_activity
from dicom_secure_node.audit.trail import DROP_OLDEST, AuditTrail
from dicom_secure_node.audit.transport import Repository
from dicom_secure_node.spec.audit import APPLICATION_START
from tests.audit.samples import SOURCE
from tests.parts import free_port

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


class Clock:
    """A minute later each time."""

    def __init__(self) -> None:
        self.now = NOON - timedelta(minutes=1)

    def __call__(self) -> datetime:
        self.now += timedelta(minutes=1)
        return self.now


def message() -> AuditMessage:
    return application_activity(APPLICATION_START, Participant("1"))


@pytest.fixture
def trail(tmp_path: Path) -> Callable[..., AuditTrail]:
    def make(**more: object) -> AuditTrail:
        away = Repository("away", "127.0.0.1", free_port(), "udp")
        return AuditTrail(tmp_path / "audit", SOURCE, [away], clock=Clock(), **more)

    return make


def test_nothing_waits(trail: Callable[..., AuditTrail]) -> None:
    one = trail()
    assert one.waiting_since() == {}
    one.stop()


def test_the_oldest_that_waits_is_told(trail: Callable[..., AuditTrail]) -> None:
    one = trail()  # delivery is never started
    for _ in range(3):
        one.emit(message())
    assert one.waiting_since() == {"away": NOON}
    assert one.waiting_since() == {"away": NOON}, "looked up once"
    one.stop()


def test_what_is_given_up_does_not_wait(trail: Callable[..., AuditTrail]) -> None:
    one = trail(spool_limit=2, when_full=DROP_OLDEST)
    for _ in range(5):
        one.emit(message())
    assert one.waiting_since() == {"away": NOON + timedelta(minutes=3)}
    one.stop()
