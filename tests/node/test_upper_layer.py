"""What fuzzing and the walk through the state machine have found, each by its name."""

from __future__ import annotations

import logging
import socket

import pytest
from pynetdicom import evt
from pynetdicom.timer import Timer

from dicom_secure_node.node.timer import SteadyTimer
from tests.loopback import Recorder, knock, port_of, request_pdu, serving
from tests.node.test_server import Raw, p_data

REQUEST = request_pdu()
A_ABORT = b"\x07\0\0\0\0\x04\0\0\0\0"


def with_version(version: bytes) -> bytes:
    return REQUEST[:6] + version + REQUEST[8:]


def test_PS38_932_a_version_that_is_not_ours_is_rejected_and_audited_as_such() -> None:
    """It used to hold its connection until the time for a request was over."""
    recorder = Recorder()
    with serving([recorder]) as node:
        answer = knock(port_of(node), with_version(b"\0\2"))
        _, error = recorder.wait_for("on_handshake_failed", 5)
    assert (answer[0], answer[7:10]) == (0x03, b"\x01\x02\x02")
    assert error.reason == "not DICOM: protocol version 0x0002 (PS3.8 9.3.2)"


def test_PS38_932_only_bit_0_of_the_version_counts() -> None:
    with serving() as node, socket.create_connection(("127.0.0.1", port_of(node)), 20) as peer:
        peer.sendall(with_version(b"\x80\x03"))
        assert peer.recv(1) == b"\x02"


def test_PS38_AA_2_an_abort_before_any_request_gets_no_answer() -> None:
    recorder = Recorder()
    with serving([recorder]) as node:
        assert knock(port_of(node), A_ABORT) == b""
        _, error = recorder.wait_for("on_handshake_failed")
    assert error.kind == "closed by peer"


def test_PS38_932_another_application_context_is_refused() -> None:
    recorder = Recorder()
    with serving([recorder]) as node:
        answer = knock(port_of(node), request_pdu(application_context=b"1.2.840.10008.3.1.1.2"))
        _, error = recorder.wait_for("on_association_refused")
    assert (answer[0], answer[7:10]) == (0x03, b"\x01\x01\x02")
    assert "application context '1.2.840.10008.3.1.1.2'" in error.reason


@pytest.mark.parametrize("shows_pdus", [False, True])
def test_PS37_631_a_command_that_cannot_be_decoded_is_a_fault_and_no_traceback(
    shows_pdus: bool, caplog: pytest.LogCaptureFixture
) -> None:
    handlers = [(evt.EVT_PDU_RECV, lambda _event: None)] if shows_pdus else []
    caplog.set_level(logging.WARNING, "dicom_secure_node")
    with serving(evt_handlers=handlers) as node:
        peer = Raw(port_of(node))
        peer.send(p_data(1, 3, b"no command at all, or is it"))
        assert peer.pdu()[0] == 0x07
        peer.close()
    ours = [one for one in caplog.records if one.name.startswith("dicom_secure_node")]
    assert any("cannot be decoded" in one.getMessage() for one in ours)
    assert not [one for one in ours if one.exc_info]


def test_an_idle_timer_runs_by_its_own_clock() -> None:
    now = [100.0]
    timer = SteadyTimer(5, lambda: now[0])
    assert (timer.remaining, timer.expired) == (5, False)
    timer.start()
    now[0] += 5
    assert (timer.remaining, timer.expired) == (0, False)
    now[0] += 1
    assert timer.expired
    timer.restart()
    assert not timer.expired
    timer.stop()
    now[0] += 60
    assert not timer.expired
    timer.timeout = None
    assert (timer.remaining, timer.expired) == (1, False)


def test_no_timer_of_an_association_looks_at_the_time_of_day() -> None:
    with serving() as node, socket.create_connection(("127.0.0.1", port_of(node)), 20) as peer:
        peer.sendall(REQUEST)
        assert peer.recv(1) == b"\x02"
        (assoc,) = node.associations()
        timers = [one for one in vars(assoc.dul).values() if isinstance(one, Timer)]
        assert [type(one) for one in timers] == [SteadyTimer] * 2
        assert {one.timeout for one in timers} == {
            assoc.limits.idle_seconds,
            assoc.limits.request_seconds,
        }
