"""Calls from a worker to its supervisor: only those meant for it, and none without an answer."""

from __future__ import annotations

import os
import pickle
import resource
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import pytest

from dicom_secure_node import errors
from dicom_secure_node.audit import messages
from dicom_secure_node.errors import IdentityRefused, ServiceUnavailable
from dicom_secure_node.secure_node.channel import LONGEST, Channel, answer
from dicom_secure_node.secure_node.crew import Pauses
from dicom_secure_node.spec import audit as codes


class Supervisor:
    """The other end, with a table of a few calls."""

    def __init__(self) -> None:
        self.near, self.far = Pipe()
        self.seen: list[Any] = []
        table = {"keep": self.seen.append, "add": lambda a, b: a + b,
                 "refuse": self._refuse, "break": self._break}  # fmt: skip
        self.thread = threading.Thread(target=answer, args=(self.near, table))
        self.thread.start()

    @staticmethod
    def _refuse() -> None:
        raise IdentityRefused("no")

    @staticmethod
    def _break() -> None:
        raise ZeroDivisionError("a secret")


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    made = Supervisor()
    yield made
    made.far.close()
    made.thread.join()


@pytest.fixture
def channel(supervisor: Supervisor) -> Channel:
    return Channel([supervisor.far])


def test_an_answer(channel: Channel) -> None:
    assert channel.call("add", 2, 3) == 5


def test_an_audit_message_arrives_as_it_was(channel: Channel, supervisor: Supervisor) -> None:
    message = messages.security_alert(
        codes.NODE_AUTHENTICATION, "why", messages.Participant("me"), when=datetime.now(UTC)
    )
    channel.call("keep", message)
    assert supervisor.seen == [message]


def test_our_own_error_comes_back_as_what_it_is(channel: Channel) -> None:
    with pytest.raises(IdentityRefused, match=r"^no$") as caught:
        channel.call("refuse")
    assert caught.value.source == 2


def test_another_error_is_told_to_nobody(
    channel: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ServiceUnavailable, match="break failed") as caught:
        channel.call("break")
    assert "secret" not in str(caught.value)
    assert "ZeroDivisionError" in caplog.text
    assert channel.call("add", 1, 1) == 2, "the pipe is still good"


@pytest.mark.parametrize("name", ["stop", "__class__", "append", ""])
def test_a_call_that_is_not_in_the_table(channel: Channel, name: str) -> None:
    with pytest.raises(ServiceUnavailable, match="no such call"):
        channel.call(name)


class Command:
    """What a worker that somebody has taken over would send."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("made by a worker",)


GARBLED = {
    "no pickle": b"\x00garbage",
    "nothing": b"",
    "half a pickle": pickle.dumps(("add", (1, 2)))[:-3],
    "not a call": pickle.dumps(["add", 1, 2]),
    "a name that is none": pickle.dumps((1, ())),
    "something to run": pickle.dumps(("keep", (Command(),))),
    "a type that is not for calls": pickle.dumps(("keep", (threading.Event,))),
    "an attribute of a class": b"\x80\x02X\x04\0\0\0keep"
    b"cdicom_secure_node.audit.model\nAuditMessage\n"
    b"N}X\x07\0\0\0spoiledK\x01s\x86b\x85\x86.",
    "an attribute of a function": b"\x80\x02X\x04\0\0\0keep"
    b"cdicom_secure_node.errors\n_again\n}X\x07\0\0\0spoiledK\x01sb\x85\x86.",
    "too long": bytes(LONGEST + 1),
}


@pytest.mark.parametrize("case", GARBLED)
def test_what_cannot_be_a_call_ends_the_pipe(
    case: str, supervisor: Supervisor, channel: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    with suppress(BrokenPipeError):  # too long a one is not read to its end
        supervisor.far.send_bytes(GARBLED[case])
    supervisor.thread.join(20)
    assert not supervisor.thread.is_alive()
    assert not supervisor.seen
    assert "a worker's call" in caplog.text
    with pytest.raises(ServiceUnavailable, match="is gone"):
        channel.call("add", 1, 1)


def test_a_worker_cannot_change_what_its_supervisor_runs(supervisor: Supervisor) -> None:
    for case in ("an attribute of a class", "an attribute of a function"):
        with suppress(OSError):  # the first one has ended the pipe
            supervisor.far.send_bytes(GARBLED[case])
    supervisor.thread.join(20)
    assert not hasattr(messages.AuditMessage, "spoiled")
    assert not hasattr(errors._again, "spoiled")


def test_a_few_bytes_take_no_gigabytes(supervisor: Supervisor) -> None:
    """A place of the memo by its number, which is no promise that there are others before it."""
    far_away = pickle.LONG_BINPUT + (1 << 31).to_bytes(4, "little")
    question = pickle.dumps(("add", (1, 2)), 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    supervisor.far.send_bytes(question[:-1] + far_away + pickle.STOP)
    assert supervisor.far.recv_bytes() == pickle.dumps((3, None))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


def test_too_long_a_call_is_not_sent(channel: Channel) -> None:
    with pytest.raises(ServiceUnavailable, match="too long"):
        channel.call("keep", bytes(LONGEST + 1))
    assert channel.call("add", 1, 1) == 2


def test_without_a_supervisor_every_call_fails_at_once() -> None:
    ends: list[Connection] = []
    ours = []
    for _ in range(2):
        near, far = Pipe()
        ends.append(near)
        ours.append(far)
    channel = Channel(ours)
    for end in ends:
        end.close()
    for _ in range(5):
        with pytest.raises(ServiceUnavailable, match="is gone"):
            channel.call("add", 1, 1)


def test_a_supervisor_that_goes_during_a_call() -> None:
    near, far = Pipe()
    channel = Channel([far])
    failed: list[str] = []

    def ask() -> None:
        try:
            channel.call("add", 1, 1)
        except ServiceUnavailable as exc:
            failed.append(exc.reason)

    thread = threading.Thread(target=ask)
    thread.start()
    near.recv_bytes()
    near.close()
    thread.join(20)
    assert failed == ["is gone"]


def test_who_dies_at_once_again_and_again_is_started_ever_more_slowly() -> None:
    pauses = Pauses()
    assert [pauses.after(0.1) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert pauses.after(3600) == 0
    assert pauses.after(0.1) == 1
