"""Both ways a C-STORE may take behave alike: the fast lane, and pynetdicom's own path.

Whoever binds a notification event that shows PDUs or messages takes pynetdicom's path, and sees
everything. The tests here run over both, against an archive.
"""

from __future__ import annotations

import contextlib
import itertools
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pynetdicom import evt

from dicom_secure_node.archive import Archive
from dicom_secure_node.elements.part10 import read_header
from dicom_secure_node.errors import StoreRefused
from dicom_secure_node.node.context import AssociationContext, StoreContext
from dicom_secure_node.node.limits import Limits
from dicom_secure_node.node.memory import MemoryBudget
from dicom_secure_node.node.plugin import Plugin
from dicom_secure_node.node.plugins.storage import StoragePlugin
from dicom_secure_node.node.server import Listener, SecureServer
from dicom_secure_node.node.upper_layer import BoundedDUL
from tests.loopback import CT_SMALL, CT_STORAGE, Recorder, associate, port_of, serving
from tests.node.by_hand import ECHO, STORE, Raw, command, p_data
from tests.node.test_server import AFTER
from tests.parts import wait_until

FAST, PYNETDICOM = "fast lane", "pynetdicom"
SHOWING = (
    evt.EVT_DATA_RECV,
    evt.EVT_PDU_RECV,
    evt.EVT_FSM_TRANSITION,
    evt.EVT_DIMSE_RECV,
    evt.EVT_DIMSE_SENT,
    evt.EVT_PDU_SENT,
    evt.EVT_DATA_SENT,
)
ABORT = b"\x07\0\0\0\0\x04\0\0\0\0"
RELEASE = b"\x05\0\0\0\0\x04\0\0\0\0"


class Lanes(Plugin):
    """Notes which lane each C-STORE took, and may refuse it."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.at_the_start: Exception | None = None
        self.at_the_end: Exception | None = None

    def on_store_started(self, store: StoreContext) -> None:
        if self.at_the_start is not None:
            raise self.at_the_start

    def on_store(self, store: StoreContext) -> None:
        direct = isinstance(threading.current_thread(), BoundedDUL)
        self.taken.append(FAST if direct else PYNETDICOM)
        if self.at_the_end is not None:
            raise self.at_the_end


class SlowToHear(Plugin):
    """Is busy with the association's acceptance until its first C-STORE has begun."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.heard: list[str] = []

    def on_association_accepted(self, association: AssociationContext) -> None:
        assert self.begun.wait(20)
        self.heard.append("accepted")

    def on_store_started(self, store: StoreContext) -> None:
        self.begun.set()

    def on_store(self, store: StoreContext) -> None:
        self.heard.append(store.sop_instance)


class Site:
    """A server that archives, what its plug-ins saw, and its archive."""

    def __init__(self, node: SecureServer, archive: Archive, lanes: Lanes, seen: Recorder) -> None:
        self.node, self.archive, self.lanes, self.seen = node, archive, lanes, seen

    @property
    def port(self) -> int:
        return port_of(self.node)

    def kept(self, instance: str) -> bytes | None:
        """Return the bytes of the data set that is kept, None where there is none."""
        found = self.archive.find(instance)
        if not found:
            return None
        with (self.archive.folder / found[-1].path).open("rb") as file:
            read_header(file)
            return file.read()


def ignore(_: Any) -> None:
    """Take note of nothing."""


@contextlib.contextmanager
def site(folder: Path, lane: str, limits: Limits | None = None, **options: Any) -> Iterator[Site]:
    seen, lanes = Recorder(), Lanes()
    handlers = [] if lane == FAST else [(evt.EVT_PDU_RECV, ignore)]
    plugins = options.pop("plugins", [])
    with Archive(folder) as archive:
        storage = StoragePlugin(archive)
        listener = Listener("lanes", limits=limits or Limits())
        with serving(
            [*plugins, lanes, storage, seen],
            receive=storage.receive,
            listener=listener,
            evt_handlers=handlers,
            **options,
        ) as node:
            yield Site(node, archive, lanes, seen)


def data_set(instance: str, pixels: bytes = b"\x01\x02" * 500) -> bytes:
    """Return a small CT in implicit VR little endian, what `by_hand.Raw` proposes."""
    ds = dcmread(CT_SMALL)
    ds.SOPInstanceUID, ds.PixelData = instance, pixels
    target = DicomBytesIO()
    target.is_implicit_VR, target.is_little_endian = True, True
    write_dataset(target, ds)
    return target.getvalue()


def store(instance: str, data: bytes, message_id: int = 1) -> bytes:
    """Return the PDUs of a whole C-STORE-RQ."""
    head = command(STORE, data_set=True, message_id=message_id, instance=instance)
    return p_data(1, 3, head) + p_data(1, 2, data)


def answer(pdu: bytes) -> tuple[int, int, int]:
    """Return command field, message ID being responded to, and status of a response."""
    assert pdu[:1] == b"\x04", pdu
    ds: dict[int, bytes] = {}
    position = 12
    while position < len(pdu):
        _, number, length = struct.unpack_from("<HHL", pdu, position)
        ds[number] = pdu[position + 8 : position + 8 + length]
        position += 8 + length
    field, number, status = (int.from_bytes(ds[n], "little") for n in (0x0100, 0x0120, 0x0900))
    return field, number, status


lanes = pytest.mark.parametrize("lane", [FAST, PYNETDICOM])


@lanes
def test_a_C_STORE_takes_its_lane_and_keeps_every_byte(lane: str, tmp_path: Path) -> None:
    with site(tmp_path, lane) as here:
        peer = Raw(here.port)
        data = data_set("1.2.3")
        peer.send(store("1.2.3", data, message_id=7))
        assert answer(peer.pdu()) == (0x8001, 7, 0x0000)
        assert here.kept("1.2.3") == data
        assert here.lanes.taken == [lane]
        peer.send(RELEASE)
        assert peer.pdu()[:1] == b"\x06"
        peer.close()
        assert here.seen.wait_for("on_association_closed")[1] == "released"


@pytest.mark.parametrize("event", SHOWING, ids=[event.name for event in SHOWING])
def test_a_bound_notification_event_still_fires(event: Any, tmp_path: Path) -> None:
    fired = threading.Event()

    def note(_: Any) -> None:
        if here.lanes.taken:
            fired.set()

    with site(tmp_path, FAST) as here:
        here.node.bind(event, note)
        peer = Raw(here.port)
        data = data_set("1.2.3")
        for number in (1, 2):
            peer.send(store("1.2.3", data, number))
            assert answer(peer.pdu()) == (0x8001, number, 0x0000)
        assert here.lanes.taken == [PYNETDICOM] * 2
        assert fired.wait(20)
        assert here.kept("1.2.3") == data
        peer.close()


def test_nothing_is_stored_before_the_plugins_know_of_the_association(tmp_path: Path) -> None:
    """The audit trail counts what an association brings from its acceptance on."""
    slow = SlowToHear()
    with site(tmp_path, FAST, plugins=[slow]) as here:
        peer = Raw(here.port)
        for number, instance in enumerate(("1.2.3", "1.2.4"), 1):
            peer.send(store(instance, data_set(instance), number))
            assert answer(peer.pdu()) == (0x8001, number, 0x0000)
        assert slow.heard == ["accepted", "1.2.3", "1.2.4"]
        assert here.lanes.taken == [PYNETDICOM, FAST]
        peer.close()


@pytest.mark.parametrize(("most", "lane"), [(0, FAST), (256, FAST), (64, PYNETDICOM)])
def test_PS38_D1_no_answer_is_longer_than_the_peer_takes(
    most: int, lane: str, tmp_path: Path
) -> None:
    lengths: list[int] = []

    def note(event: evt.Event) -> None:
        lengths.append(event.pdu.pdu_length)

    with site(tmp_path, FAST) as here:
        assoc = associate(here.port, max_pdu=most, evt_handlers=[(evt.EVT_PDU_RECV, note)])
        assert assoc.send_c_store(dcmread(CT_SMALL)).Status == 0x0000
        assert here.lanes.taken == [lane]
        _, *answers = lengths
        assert answers
        assert not most or max(answers) <= most
        assoc.release()


def test_a_handler_bound_in_mid_association_counts_from_the_next_message(tmp_path: Path) -> None:
    messages: list[str] = []
    with site(tmp_path, FAST) as here:
        peer = Raw(here.port)
        peer.send(store("1.2.3", data_set("1.2.3"), 1))
        assert answer(peer.pdu())[2] == 0x0000
        (assoc,) = here.node.associations()
        assoc.bind(evt.EVT_DIMSE_RECV, lambda event: messages.append(type(event.message).__name__))
        peer.send(store("1.2.4", data_set("1.2.4"), 2))
        assert answer(peer.pdu()) == (0x8001, 2, 0x0000)
        assert here.lanes.taken == [FAST, PYNETDICOM]
        assert messages == ["C_STORE_RQ"]
        peer.close()


def test_a_handler_of_the_application_gets_an_unchanged_event(tmp_path: Path) -> None:
    got: list[tuple[str, str, str]] = []

    def mine(event: evt.Event) -> int:
        got.append(
            (
                str(event.request.AffectedSOPInstanceUID),
                str(event.dataset.SOPInstanceUID),
                str(event.context.abstract_syntax),
            )
        )
        return 0x0000

    with site(tmp_path, FAST, application={evt.EVT_C_STORE: mine}) as here:
        peer = Raw(here.port)
        peer.send(store("1.2.3", data_set("1.2.3")))
        assert answer(peer.pdu())[2] == 0x0000
        assert got == [("1.2.3", "1.2.3", CT_STORAGE)]
        assert here.lanes.taken == [PYNETDICOM]
        assert here.kept("1.2.3") == data_set("1.2.3")
        peer.close()


@lanes
@pytest.mark.parametrize("data", AFTER.values(), ids=AFTER)
def test_broken_protocol_ends_the_association_and_nothing_else(
    data: bytes, lane: str, tmp_path: Path
) -> None:
    with site(tmp_path, lane) as here:
        peer = Raw(here.port)
        peer.send(store("1.2.3", data_set("1.2.3")))
        assert answer(peer.pdu())[2] == 0x0000
        peer.send(data)
        assert peer.pdu()[:1] == b"\x07"
        peer.close()
        assert here.seen.wait_for("on_association_closed")[1] == "aborted"
        assert associate(here.port).is_established
        assert not list((tmp_path / "incoming").glob("*.part"))


@lanes
@pytest.mark.parametrize("moment", ["at_the_start", "at_the_end"])
def test_a_refusal_reaches_the_peer_and_the_association_goes_on(
    moment: str, lane: str, tmp_path: Path
) -> None:
    with site(tmp_path, lane) as here:
        peer = Raw(here.port)
        setattr(here.lanes, moment, StoreRefused("no room", status=0xA701))
        peer.send(store("1.2.3", data_set("1.2.3", b"\0" * 300_000)[:200_000], 1))
        assert answer(peer.pdu()) == (0x8001, 1, 0xA701)
        setattr(here.lanes, moment, None)
        peer.send(store("1.2.3", data_set("1.2.3"), 1))
        assert answer(peer.pdu()) == (0x8001, 1, 0x0000)
        assert here.kept("1.2.3") == data_set("1.2.3")
        error = here.seen.wait_for("on_store_ended")[1]
        assert str(error) == "no room"
        peer.close()


@lanes
@pytest.mark.parametrize("bad", ["another instance", "cut off", "empty"])
def test_a_data_set_that_does_not_fit_is_refused(bad: str, lane: str, tmp_path: Path) -> None:
    good = data_set("1.2.3")
    data, status = {
        "another instance": (data_set("1.2.4"), 0xA900),
        "cut off": (good[:-3], 0xC000),
        "empty": (b"", 0xA900),
    }[bad]
    with site(tmp_path, lane) as here:
        peer = Raw(here.port)
        peer.send(store("1.2.3", data))
        assert answer(peer.pdu()) == (0x8001, 1, status)
        assert here.kept("1.2.3") is None
        peer.send(store("1.2.3", good))
        assert answer(peer.pdu()) == (0x8001, 1, 0x0000)
        peer.close()


@lanes
@pytest.mark.parametrize("ending", ["abort", "vanish", "release"])
def test_an_association_that_ends_in_mid_store_leaves_nothing(
    ending: str, lane: str, tmp_path: Path
) -> None:
    with site(tmp_path, lane) as here:
        peer = Raw(here.port)
        whole = store("1.2.3", data_set("1.2.3"))
        peer.send(whole[: len(whole) // 2])
        here.seen.wait_for("on_store_started")
        if ending == "abort":
            peer.send(bytes(len(whole) - len(whole) // 2) + ABORT)
        elif ending == "release":  # where data was announced: still data
            peer.send(RELEASE)
        peer.close()
        error = here.seen.wait_for("on_store_ended")[1]
        assert error is not None
        here.seen.wait_for("on_association_closed")
        assert here.kept("1.2.3") is None
        assert not list((tmp_path / "incoming").glob("*.part"))


@lanes
@pytest.mark.parametrize("ending", [ABORT, RELEASE], ids=["abort", "release"])
def test_what_stands_behind_a_whole_C_STORE_comes_after_it(
    ending: bytes, lane: str, tmp_path: Path
) -> None:
    with site(tmp_path, lane) as here:
        peer = Raw(here.port)
        data = data_set("1.2.3")
        peer.send(store("1.2.3", data) + ending)
        how = here.seen.wait_for("on_association_closed")[1]
        assert here.kept("1.2.3") == data
        if ending == RELEASE:
            assert answer(peer.pdu()) == (0x8001, 1, 0x0000)
            assert peer.pdu()[:1] == b"\x06"
        assert how == ("released" if ending == RELEASE else "aborted")
        peer.close()


@lanes
def test_requests_sent_without_waiting_are_answered_in_order(lane: str, tmp_path: Path) -> None:
    with site(tmp_path, lane) as here:
        peer = Raw(here.port)
        uids = [f"1.2.3.{number}" for number in range(1, 9)]
        peer.send(b"".join(store(uid, data_set(uid), n) for n, uid in enumerate(uids)))
        answers = [answer(peer.pdu()) for _ in uids]
        assert answers == [(0x8001, number, 0x0000) for number in range(8)]
        assert [here.kept(uid) for uid in uids] == [data_set(uid) for uid in uids]
        peer.close()


@lanes
def test_other_services_stand_between_C_STOREs(lane: str, tmp_path: Path) -> None:
    with site(tmp_path, lane) as here:
        assoc = associate(here.port)
        ds = dcmread(CT_SMALL)
        for number in range(3):
            ds.SOPInstanceUID = f"1.2.3.{number}"
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
            assert assoc.send_c_echo().Status == 0x0000
            assert assoc.send_c_store(ds).Status == 0x0000
        assoc.release()
        assert here.lanes.taken == [lane] * 3


@lanes
def test_a_node_that_stops_refuses_the_next_instance(lane: str, tmp_path: Path) -> None:
    with site(tmp_path, lane) as here:
        peer = Raw(here.port)
        peer.send(store("1.2.3", data_set("1.2.3"))[:200])  # in progress, so not cut off at once
        here.seen.wait_for("on_store_started")
        stopping = threading.Thread(target=here.node.stop, args=(20,))
        stopping.start()
        wait_until(lambda: here.node.draining, "the node stops")
        peer.send(store("1.2.3", data_set("1.2.3"))[200:] + store("1.2.4", data_set("1.2.4"), 2))
        assert answer(peer.pdu()) == (0x8001, 1, 0x0000)
        last = peer.pdu()  # or it was ended in between, which is as good
        assert not last or last[:1] == b"\x07" or answer(last) == (0x8001, 2, 0xA700)
        peer.close()
        stopping.join()
        assert here.kept("1.2.3") is not None
        assert here.kept("1.2.4") is None


@lanes
def test_a_peer_that_stops_in_the_middle_is_not_waited_for(lane: str, tmp_path: Path) -> None:
    limits = Limits(pdu_seconds=0.3, idle_seconds=20)
    with site(tmp_path, lane, limits) as here:
        peer = Raw(here.port)
        peer.send(store("1.2.3", data_set("1.2.3"))[:-1])
        error = here.seen.wait_for("on_store_ended")[1]
        assert error is not None
        assert here.seen.wait_for("on_association_closed")[1] == "lost"
        peer.close()


@lanes
def test_a_transfer_that_takes_longer_than_a_peer_may_be_silent_goes_on(
    lane: str, tmp_path: Path
) -> None:
    limits = Limits(pdu_seconds=5, idle_seconds=0.5)
    data, pause = data_set("1.2.3"), threading.Event()
    with site(tmp_path, lane, limits) as here:
        peer = Raw(here.port)
        peer.send(p_data(1, 3, command(STORE, data_set=True)))
        pieces = [data[start : start + 200] for start in range(0, len(data), 200)]
        for piece in pieces[:-1]:
            peer.send(p_data(1, 0, piece))
            pause.wait(2.0 / len(pieces))
        peer.send(p_data(1, 2, pieces[-1]))
        assert answer(peer.pdu()) == (0x8001, 1, 0x0000)
        assert here.kept("1.2.3") == data
        peer.close()


@st.composite
def cuts(draw: st.DrawFn, size: int) -> list[int]:
    """Return places to cut something of `size` bytes, the ends included."""
    inside = draw(st.lists(st.integers(0, size), max_size=12))
    return [0, *sorted(inside), size]


def pieces(data: bytes, at: list[int]) -> list[bytes]:
    return [data[start:end] for start, end in itertools.pairwise(at)]


@lanes
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(draw=st.data())
def test_however_a_message_is_cut_up_it_is_the_same(
    lane: str, draw: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """PDVs over PDUs, several PDVs in one, PDUs over segments (PS3.8 9.3.5, Annex E)."""
    data = data_set("1.2.3", b"\x05\x06" * 400)
    head = command(STORE, data_set=True)
    fragments = [
        *_fragments(pieces(head, draw.draw(cuts(len(head)))), control=1),
        *_fragments(pieces(data, draw.draw(cuts(len(data)))), control=0),
    ]
    stream, waiting = b"", b""
    for control, part in fragments:
        waiting += struct.pack(">LBB", len(part) + 2, 1, control) + part
        if draw.draw(st.booleans()):
            stream, waiting = stream + b"\x04\0" + struct.pack(">L", len(waiting)) + waiting, b""
    if waiting:
        stream += b"\x04\0" + struct.pack(">L", len(waiting)) + waiting
    segments = pieces(stream, draw.draw(cuts(len(stream))))
    with site(tmp_path_factory.mktemp("archive"), lane) as here:
        peer = Raw(here.port)
        for segment in segments:
            peer.send(segment)
        assert answer(peer.pdu()) == (0x8001, 1, 0x0000)
        assert here.kept("1.2.3") == data
        assert here.lanes.taken == [lane]
        peer.close()


def _fragments(parts: list[bytes], control: int) -> Iterator[tuple[int, bytes]]:
    """Yield message control headers and fragments, the last one marked (PS3.8 E.2)."""
    for number, part in enumerate(parts, 1):
        yield control | (2 if number == len(parts) else 0), part


@lanes
def test_an_echo_before_a_C_STORE_is_answered_first(lane: str, tmp_path: Path) -> None:
    release = threading.Event()

    def slow(_: Any) -> int:
        release.wait(20)
        return 0x0000

    with site(tmp_path, lane, application={evt.EVT_C_ECHO: slow}) as here:
        peer = Raw(here.port)
        peer.send(p_data(1, 3, command(ECHO, data_set=False, message_id=1)))
        wait_until(lambda: here.node.associations()[0].in_progress, "the echo is being served")
        peer.send(store("1.2.3", data_set("1.2.3"), 2))
        wait_until(lambda: here.node.associations()[0].inbound, "the instance has come")
        release.set()
        assert [answer(peer.pdu())[:2] for _ in range(2)] == [(0x8030, 1), (0x8001, 2)]
        assert here.lanes.taken == [PYNETDICOM]  # in turn, and that takes the other thread
        peer.close()


def test_what_waits_in_memory_for_an_application_is_bounded(tmp_path: Path) -> None:
    """Over all associations; the archive's own instances are on the disk and count for nothing."""
    seen: list[int] = []
    with site(tmp_path, FAST, application={evt.EVT_C_STORE: lambda _: seen.append(1) or 0}) as here:
        memory = here.node.host.memory = MemoryBudget(len(data_set("1.2.3")) + 100)
        half = store("1.2.3", data_set("1.2.3"))[: len(data_set("1.2.3")) // 2]
        first, second = Raw(here.port), Raw(here.port)
        first.send(half)
        wait_until(lambda: memory.left < len(data_set("1.2.3")), "half of it is held")
        second.send(store("1.2.4", data_set("1.2.4")))
        assert answer(second.pdu()) == (0x8001, 1, 0xA700)
        first.close()
        assert here.seen.wait_for("on_store_ended")[1] is not None  # the second
        assert here.seen.wait_for("on_store_ended")[1] is not None  # the first, broken off
        second.send(store("1.2.4", data_set("1.2.4")))
        assert answer(second.pdu()) == (0x8001, 1, 0x0000)
        assert seen == [1]
        second.close()


@pytest.mark.parametrize(("level", "lane"), [("WARNING", FAST), ("INFO", PYNETDICOM)])
def test_pynetdicoms_log_counts_as_a_handler_while_somebody_reads_it(
    level: str, lane: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An application's own server has handlers that write that log; the node's own has none."""
    caplog.set_level(level, "pynetdicom")
    with site(tmp_path, FAST, quiet=False) as here:
        peer = Raw(here.port)
        peer.send(store("1.2.3", data_set("1.2.3")))
        assert answer(peer.pdu()) == (0x8001, 1, 0x0000)
        assert here.lanes.taken == [lane]
        assert ("Received Store Request" in caplog.text) == (lane == PYNETDICOM)
        peer.close()


@lanes
def test_what_stands_behind_an_abort_is_not_read(
    lane: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with site(tmp_path, lane) as here:
        peer = Raw(here.port)
        peer.send(store("1.2.3", data_set("1.2.3")))
        assert answer(peer.pdu())[2] == 0x0000
        peer.send(ABORT + b"\x47garbage" + store("1.2.4", data_set("1.2.4"), 2))
        assert here.seen.wait_for("on_association_closed")[1] == "aborted"
        wait_until(lambda: not here.node.associations(), "the association's end")
        assert here.kept("1.2.4") is None
        assert "unknown PDU" not in caplog.text
        peer.close()
