"""A server of ours on loopback, in this process, and peers to knock at it."""

from __future__ import annotations

import hashlib
import queue
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom.data
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from dicom_secure_node.node import server
from dicom_secure_node.node.host import PluginHost
from dicom_secure_node.node.plugin import HOOKS, Plugin

VERIFICATION = "1.2.840.10008.1.1"
CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
CT_SMALL = Path(str(pydicom.data.get_testdata_file("CT_small.dcm")))


class Recorder(Plugin):
    """Notes every ending that reaches it, in order, and lets a test wait for one."""

    def __init__(self) -> None:
        self.seen: queue.Queue[tuple[str, tuple[Any, ...]]] = queue.Queue()

    def wait_for(self, hook: str, seconds: float = 20) -> tuple[Any, ...]:
        """Return the arguments of the next call of `hook`; earlier others are passed over."""
        while True:
            name, args = self.seen.get(timeout=seconds)
            if name == hook:
                return args


def _noting(name: str) -> Any:
    def note(self: Recorder, *args: Any) -> None:
        self.seen.put((name, args))

    return note


for _hook in HOOKS:
    setattr(Recorder, _hook, _noting(_hook))


class Hashing(Plugin):
    """Has a digest see every byte of every C-STORE."""

    def __init__(self) -> None:
        self.digests: queue.Queue[str] = queue.Queue()

    def on_store_started(self, store: Any) -> Any:
        return hashlib.sha256()

    def on_store(self, store: Any) -> None:
        self.digests.put(store.verdict_of(self).hexdigest())


def application_entity(*abstract_syntaxes: str) -> Any:
    """Return an AE that serves verification and CT storage, and what else is named."""
    ae = AE(ae_title="NODE")
    ae.maximum_associations = 1000
    for uid in (VERIFICATION, CT_STORAGE, *abstract_syntaxes):
        ae.add_supported_context(uid, ALL_TRANSFER_SYNTAXES)
    return ae


@contextmanager
def serving(
    plugins: Sequence[Plugin] = (),
    *,
    application: Mapping[Any, Any] | None = None,
    ae: Any = None,
    listener: server.Listener | None = None,
    address: tuple[str, int] = ("127.0.0.1", 0),
    quiet: bool = True,
    receive: Any = None,
    **options: Any,
) -> Iterator[server.SecureServer]:
    """Run a server of ours; `application` maps events to handlers."""
    handlers = {event: (function, ()) for event, function in (application or {}).items()}
    started = server.start(
        ae or application_entity(),
        address,
        listener or server.Listener("loopback"),
        PluginHost(plugins, receive, handlers),
        quiet=quiet,
        **options,
    )
    try:
        yield started
    finally:
        started.stop(5.0)


def port_of(started: server.SecureServer) -> int:
    """Return the port a server got."""
    return int(started.server_address[1])


def associate(
    port: int,
    *,
    abstract: Sequence[str] = (VERIFICATION, CT_STORAGE),
    user: tuple[int, bytes, bytes, bool] | None = None,
    calling: str = "PEER",
    **options: Any,
) -> Any:
    """Associate as a stock pynetdicom requestor, with a user identity item if one is given."""
    ae = AE(ae_title=calling)
    for uid in abstract:
        ae.add_requested_context(uid)
    items = []
    if user is not None:
        item = UserIdentityNegotiation()
        item.user_identity_type, item.primary_field = user[0], user[1]
        item.secondary_field = user[2]
        item.positive_response_requested = user[3]
        items.append(item)
    return ae.associate("127.0.0.1", port, ext_neg=items, **options)


def request_pdu(
    calling: bytes = b"PEER",
    user_information: bytes = b"",
    application_context: bytes = b"1.2.840.10008.3.1.1.1",
    abstract: bytes = VERIFICATION.encode(),
) -> bytes:
    """Return an A-ASSOCIATE-RQ written by hand (PS3.8 9.3.2), for what no toolkit sends."""

    def item(kind: int, content: bytes) -> bytes:
        return bytes((kind, 0)) + len(content).to_bytes(2, "big") + content

    context = item(0x20, b"\x01\0\0\0" + item(0x30, abstract) + item(0x40, b"1.2.840.10008.1.2"))
    user = item(0x51, (16384).to_bytes(4, "big")) + item(0x52, b"1.2.3") + user_information
    body = b"\x00\x01\0\0" + b"NODE".ljust(16) + calling.ljust(16)[:16] + bytes(32)
    body += item(0x10, application_context) + context + item(0x50, user)
    return b"\x01\0" + len(body).to_bytes(4, "big") + body


def knock(port: int, data: bytes, seconds: float = 20) -> bytes:
    """Send `data` on a new connection and return all that comes back until the node closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as peer:
        peer.sendall(data)
        answer = b""
        try:
            while piece := peer.recv(65536):
                answer += piece
        except ConnectionResetError:
            return answer
        return answer
