"""Make the inputs the fuzzers start from: ``python -m tests.fuzz.make_corpus``.

What DCMTK's programs and pynetdicom send to a node of ours on loopback, cut up for each target
of `fuzz_upper_layer`. Findings, whose names begin with ``finding``, are left as they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)

from dicom_secure_node.node.store_codec import encode_store_request
from tests.fuzz.acceptor import COMMITMENT, FIND, _Memory, pdus, pdvs
from tests.fuzz.fuzz_upper_layer import CORPUS, request
from tests.loopback import CT_STORAGE, VERIFICATION, application_entity, port_of, serving
from tests.parts import run
from tests.system.raw import identity_item, small_ct

RELAY_SECONDS = 20


def main() -> int:
    """Write the corpus and return the exit code."""
    sent = [*_recorded(), *_by_hand()]
    for target in ("streams", "requests", "messages", "commands"):
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if not path.name.startswith("finding"):
                path.unlink()
    for number, stream in enumerate(sent):
        _keep("streams", bytes((number % 2,)) + stream)
        whole = list(pdus(stream))
        _keep("requests", whole[0][1])
        if records := _records(stream):
            _keep("messages", bytes((number % 2,)) + records)
        for _, control, fragment in pdvs(stream):
            if control & 3 == 3:
                _keep("commands", fragment)
    for user in (
        b"",
        identity_item(2, b"ada", b"secret", 1),
        identity_item(5, b"eyJhbGciOiJub25lIn0.e30.") + identity_item(1, b"bob"),
        identity_item(99, b"x", b"y"),
    ):
        _keep("requests", _with(request(), user)[6:])
    _keep("commands", encode_store_request(7, CT_STORAGE, "1.2.3"))
    return 0


def _keep(target: str, data: bytes) -> None:
    name = hashlib.sha256(data).hexdigest()[:12]
    (CORPUS / target / name).write_bytes(data)


def _with(request_pdu: bytes, user: bytes) -> bytes:
    """Return a request with more in its user information, which comes last."""
    at = request_pdu.rindex(b"\x50\0")
    content = request_pdu[at + 4 :] + user
    body = request_pdu[6:at] + struct.pack(">BxH", 0x50, len(content)) + content
    return struct.pack(">BxL", 1, len(body)) + body


def _records(stream: bytes) -> bytes:
    """Return the stream's presentation data values as the records of the target `messages`."""
    numbers = {1: 0x00, 3: 0x04, 5: 0x08, 7: 0x0C}
    found = b""
    for context, control, fragment in pdvs(stream):
        options = numbers.get(context, 0) | control
        found += struct.pack(">BH", options, len(fragment)) + fragment
    return found


def _by_hand() -> Iterator[bytes]:
    """Yield a store in pieces, several values in one PDU, and two stores before any answer."""

    def value(control: int, data: bytes) -> bytes:
        return struct.pack(">LBB", len(data) + 2, 1, control) + data

    def pdu(*values: bytes) -> bytes:
        return struct.pack(">BxL", 4, sum(map(len, values))) + b"".join(values)

    command = [encode_store_request(n, CT_STORAGE, f"1.2.{n}") for n in (1, 2)]
    data = [small_ct(b"1.2.%d" % n) for n in (1, 2)]
    release = b"\x05\0\0\0\0\x04\0\0\0\0"
    pieces = pdu(value(1, command[0][:9]), value(3, command[0][9:])) + pdu(
        value(0, data[0][:1]), value(0, data[0][1:30]), value(2, data[0][30:])
    )
    two = pdu(*(value(c, d[n]) for n in (0, 1) for c, d in ((3, command), (2, data))))
    yield request() + pieces + release
    yield request() + two + b"\x07\0\0\0\0\x04\0\0\0\0"


# -- real senders --------------------------------------------------------------------------


def _recorded() -> Iterator[bytes]:
    """Yield what each sender sent, whole."""
    handlers = {
        evt.EVT_C_STORE: lambda _event: 0,
        evt.EVT_C_FIND: lambda _event: iter(()),
        evt.EVT_N_ACTION: lambda _event: (0, None),
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(
            application=handlers,
            ae=application_entity(FIND, COMMITMENT),
            receive=lambda _store: _Memory(),
        ) as node,
    ):
        for send in _senders(Path(folder)):
            with _Relay(port_of(node)) as relay:
                send(relay.port)
            yield bytes(relay.sent)


def _senders(folder: Path) -> Iterator[Callable[[int], Any]]:
    paths = []
    for number in (1, 2):
        uid = f"1.2.3.{number}"
        ds = pydicom.dcmread(
            io.BytesIO(small_ct(uid.encode())), force=True
        )  # Implicit VR Little Endian
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        path = folder / f"{number}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(str(path))
    where = ["127.0.0.1"]
    query = ["-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientName=*"]

    def program(*argv: str) -> Callable[[int], Any]:
        return lambda port: run([argv[0], *argv[1:], *where, str(port)], check=True)

    yield program("echoscu")
    yield program("echoscu", "--abort", "--repeat", "2")
    yield program("findscu", *query)
    yield lambda port: run(["storescu", *where, str(port), *paths], check=True)
    yield lambda port: run(
        [
            "storescu",
            "-pdu",
            "4096",
            "-aet",
            "A",
            "-usr",
            "ada",
            "-pwd",
            "secret",
            "-rsp",
            *where,
            str(port),
            paths[0],
        ],
    )
    yield _by_pynetdicom


def _by_pynetdicom(port: int) -> None:
    """Negotiate all there is, and ask for storage commitment."""
    ae = AE(ae_title="STOCK")
    for uid in (VERIFICATION, CT_STORAGE, COMMITMENT):
        ae.add_requested_context(uid)
    items: list[Any] = [
        UserIdentityNegotiation(),
        AsynchronousOperationsWindowNegotiation(),
        SCP_SCU_RoleSelectionNegotiation(),
        SOPClassExtendedNegotiation(),
    ]
    items[0].user_identity_type, items[0].primary_field = 1, b"ada"
    items[1].maximum_number_operations_invoked = 4
    items[1].maximum_number_operations_performed = 4
    items[2].sop_class_uid, items[2].scu_role, items[2].scp_role = CT_STORAGE, True, True
    items[3].sop_class_uid = CT_STORAGE
    items[3].service_class_application_information = b"\x02\0\x03\0\x01\0"
    assoc = ae.associate("127.0.0.1", port, ext_neg=items)
    assert assoc.is_established
    action = Dataset()
    action.TransactionUID = "1.2.3"
    assoc.send_n_action(action, 1, COMMITMENT, "1.2.840.10008.1.20.1.1")
    assoc.send_c_echo()
    assoc.release()


class _Relay:
    """Passes one connection on to the node and keeps what the sender sent."""

    def __init__(self, port: int) -> None:
        self.sent = bytearray()
        self._node = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(RELAY_SECONDS)
        self.port = int(self._listening.getsockname()[1])
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        peer, _ = self._listening.accept()
        with peer, socket.create_connection(("127.0.0.1", self._node)) as node:
            back = threading.Thread(target=_pump, args=(node, peer, bytearray()))
            back.start()
            _pump(peer, node, self.sent)
            back.join()

    def __enter__(self) -> _Relay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listening.close()


def _pump(source: socket.socket, sink: socket.socket, seen: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            seen += data
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    sys.exit(main())
