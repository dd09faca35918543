"""The plug-in host: gates in order, endings always, and no way past them."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from typing import Any

import pydicom
import pytest
from pynetdicom import AE, build_context, evt
from pynetdicom.sop_class import PatientRootQueryRetrieveInformationModelFind

from dicom_secure_node.errors import (
    AccessRefused,
    ConfigurationError,
    IdentityRefused,
    OperationRefused,
    ServiceUnavailable,
    StoreRefused,
)
from dicom_secure_node.node.host import PluginHost
from dicom_secure_node.node.plugin import Plugin
from dicom_secure_node.node.server import Listener
from tests.loopback import (
    CT_SMALL,
    CT_STORAGE,
    Hashing,
    Recorder,
    application_entity,
    associate,
    port_of,
    request_pdu,
    serving,
)
from tests.loopback import knock as knock_at


class Raising(Plugin):
    """Raises `error` at `hook`."""

    def __init__(self, hook: str, error: Exception) -> None:
        def fail(*_: Any) -> None:
            raise error

        setattr(self, hook, fail)


class Answering(Plugin):
    """Answers a user identity with an empty 59H sub-item."""

    def on_association_requested(self, association: Any) -> None:
        if association.claim and association.claim.response_requested:
            association.respond = b""


def kept(event: Any) -> int:
    return 0x0000


@dataclass
class Case:
    plugins: list[Plugin]
    want: tuple[int, int, int] | None = None
    user: tuple[int, bytes, bytes, bool] | None = None
    application: dict[Any, Any] = field(default_factory=dict)
    answered: bool = False


ADA = (2, b"ada", b"passcode", False)

ASSOCIATIONS = {
    "no plug-in at all": lambda: Case([]),
    "a gate refuses the identity (PS3.7 D.3.3.7)": lambda: Case(
        [Raising("on_association_requested", IdentityRefused("no"))], (1, 2, 1), ADA
    ),
    "a gate wants an identity and none was sent": lambda: Case(
        [Raising("on_association_requested", IdentityRefused("none"))], (1, 2, 1)
    ),
    "a gate refuses access": lambda: Case(
        [Raising("on_association_requested", AccessRefused("no"))], (1, 1, 1)
    ),
    "a gate divides by zero": lambda: Case(
        [Raising("on_association_requested", ZeroDivisionError())], (1, 1, 1)
    ),
    "a gate raises NotImplementedError, which pynetdicom takes for consent": lambda: Case(
        [Raising("on_association_requested", NotImplementedError())], (1, 1, 1), ADA
    ),
    "a service we need is away": lambda: Case(
        [Raising("on_association_requested", ServiceUnavailable("directory", "no answer"))],
        (2, 3, 1),
    ),
    "an ending breaks": lambda: Case([Raising("on_association_accepted", ZeroDivisionError())]),
    "positive response asked for and given (B.4)": lambda: Case(
        [Answering()], None, (1, b"ada", b"", True), answered=True
    ),
    "positive response not asked for": lambda: Case([Answering()], None, ADA),
    "the application's own handler agrees": lambda: Case(
        [], None, ADA, {evt.EVT_USER_ID: lambda event: (event.primary_field == b"ada", None)}
    ),
    "the application's own handler says no": lambda: Case(
        [], (1, 2, 1), ADA, {evt.EVT_USER_ID: lambda event: (False, None)}
    ),
    "the application's own handler breaks": lambda: Case(
        [], (1, 1, 1), ADA, {evt.EVT_USER_ID: lambda event: 1 / 0}
    ),
    "the application's own handler answers a token": lambda: Case(
        [], None, (5, b"token", b"", True),
        {evt.EVT_USER_ID: lambda event: (True, b"welcome")}, answered=True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("make", ASSOCIATIONS.values(), ids=ASSOCIATIONS)
def test_association_answer(make: Any) -> None:
    case, recorder = make(), Recorder()
    with serving([recorder, *case.plugins], application=case.application) as node:
        assoc = associate(port_of(node), user=case.user)
        if case.want is None:
            assert assoc.is_established
            assert (assoc.acceptor.user_identity is not None) is case.answered
            assoc.release()
            recorder.wait_for("on_association_closed")
        else:
            assert assoc.is_rejected
            answer = assoc.acceptor.primitive
            assert (answer.result, answer.result_source, answer.diagnostic) == case.want
            context, error = recorder.wait_for("on_association_refused")
            assert context.calling_ae == "PEER"
            assert error.reason


def test_gates_run_in_order_and_the_first_refusal_stops_them() -> None:
    order: list[str] = []

    class Noting(Plugin):
        def __init__(self, name: str, error: Exception | None = None) -> None:
            self.name, self.error = name, error

        def on_association_requested(self, association: Any) -> None:
            order.append(f"gate {self.name}")
            if self.error:
                raise self.error

        def on_association_refused(self, association: Any, error: Any) -> None:
            order.append(f"ending {self.name}")
            if self.name == "b":
                done.set()
                raise ZeroDivisionError

    done = threading.Event()
    recorder = Recorder()
    plugins = [recorder, Noting("a"), Noting("b", AccessRefused("no")), Noting("c")]
    with serving(plugins) as node:
        associate(port_of(node))
        recorder.wait_for("on_association_refused")
        assert order == ["gate a", "gate b", "ending c", "ending b", "ending a"]


def test_hook_that_nobody_calls_is_an_error() -> None:
    class Misspelt(Plugin):
        def on_assoc_requested(self, association: Any) -> None:
            """The base class has no such hook."""

    with pytest.raises(ConfigurationError, match="on_assoc_requested, which is never called"):
        PluginHost([Misspelt()])


def send(port: int, **options: Any) -> Any:
    assoc = associate(port, **options)
    assert assoc.is_established
    ds = pydicom.dcmread(CT_SMALL)
    status = assoc.send_c_store(ds)
    assoc.release()
    return status


STORES = {
    "kept by the application": ([], {evt.EVT_C_STORE: kept}, 0x0000),
    "nobody would keep it": ([], {}, 0xA700),
    "refused by its command": (
        [Raising("on_store_started", StoreRefused("no"))], {evt.EVT_C_STORE: kept}, 0xC000
    ),
    "refused as an operation": (
        [Raising("on_operation", OperationRefused("no"))], {evt.EVT_C_STORE: kept}, 0x0124
    ),
    "refused when complete": (
        [Raising("on_store", StoreRefused("no", 0xA900))], {evt.EVT_C_STORE: kept}, 0xA900
    ),
    "a gate divides by zero": (
        [Raising("on_store", ZeroDivisionError())], {evt.EVT_C_STORE: kept}, 0x0110
    ),
    "a service we need is away": (
        [Raising("on_store", ServiceUnavailable("audit store", "disk full"))],
        {evt.EVT_C_STORE: kept}, 0xA700,
    ),
    "an ending breaks": (
        [Raising("on_store_ended", ZeroDivisionError())], {evt.EVT_C_STORE: kept}, 0x0000
    ),
    "the application breaks": ([], {evt.EVT_C_STORE: lambda event: 1 / 0}, 0x0110),
    "the application warns": ([], {evt.EVT_C_STORE: lambda event: 0xB000}, 0xB000),
    "the application refuses": ([], {evt.EVT_C_STORE: lambda event: 0xA702}, 0xA702),
}  # fmt: skip


@pytest.mark.parametrize(("plugins", "application", "want"), STORES.values(), ids=STORES)
@pytest.mark.parametrize("quiet", [True, False], ids=["fast lane", "stock lane"])
def test_store_answer(plugins: Any, application: Any, want: int, quiet: bool) -> None:
    recorder = Recorder()
    with serving([recorder, *plugins], application=application, quiet=quiet) as node:
        assert send(port_of(node)).Status == want
        store, error = recorder.wait_for("on_store_ended")
        assert (error is None) is (want in (0x0000, 0xB000))
        assert store.sop_class == CT_STORAGE


@pytest.mark.parametrize("quiet", [True, False], ids=["fast lane", "stock lane"])
def test_application_gets_an_unchanged_event_and_sinks_see_every_byte(quiet: bool) -> None:
    got: list[tuple[bytes, str]] = []
    pdus: list[Any] = []

    def handle(event: evt.Event) -> int:
        got.append((event.request.DataSet.getvalue(), event.dataset.SOPInstanceUID))
        return 0x0000

    hashing = Hashing()
    notified = [] if quiet else [(evt.EVT_PDU_RECV, lambda event: pdus.append(event.pdu))]
    with serving(
        [hashing], application={evt.EVT_C_STORE: handle}, quiet=quiet, evt_handlers=notified
    ) as node:
        assert send(port_of(node), max_pdu=4096).Status == 0x0000
    data, uid = got[0]
    assert uid == pydicom.dcmread(CT_SMALL).SOPInstanceUID
    assert hashing.digests.get_nowait() == hashlib.sha256(data).hexdigest()
    assert bool(pdus) is not quiet


def test_every_dimse_service_passes_a_gate() -> None:
    model = PatientRootQueryRetrieveInformationModelFind
    found: list[Any] = []

    def find(event: evt.Event) -> Any:
        found.append(event.identifier)
        yield 0x0000, None

    class NoFind(Plugin):
        def on_operation(self, operation: Any) -> None:
            if operation.service == "C-FIND":
                raise OperationRefused("no queries")

    recorder = Recorder()
    query = pydicom.Dataset()
    query.QueryRetrieveLevel, query.PatientID = "PATIENT", "*"
    for plugins, want in (([recorder], 0x0000), ([recorder, NoFind()], 0x0124)):
        with serving(
            plugins, application={evt.EVT_C_FIND: find}, ae=application_entity(model)
        ) as node:
            assoc = associate(port_of(node), abstract=[model])
            statuses = [status.Status for status, _ in assoc.send_c_find(query, model)]
            assoc.release()
            assert statuses == [want]
    assert len(found) == 1
    operation, error = recorder.wait_for("on_operation_refused")
    assert (operation.service, operation.sop_class) == ("C-FIND", model)
    assert error.reason == "no queries"


def test_private_sop_class_is_stored() -> None:
    """pynetdicom has no service for it, and would abort."""
    private = "1.2.826.0.1.3680043.9.1"
    ds = pydicom.dcmread(CT_SMALL)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = private
    requestor = AE()
    requestor.requested_contexts = [build_context(private)]
    with serving(application={evt.EVT_C_STORE: kept}, ae=application_entity(private)) as node:
        assoc = requestor.associate("127.0.0.1", port_of(node))
        assert assoc.send_c_store(ds).Status == 0x0000
        assoc.release()


def test_observe_records_and_lets_pass() -> None:
    recorder = Recorder()
    plugins = [recorder, Raising("on_association_requested", AccessRefused("not you"))]
    listener = Listener("observing", observe=True)
    with serving(plugins, listener=listener) as node:
        assoc = associate(port_of(node))
        assert assoc.is_established
        assoc.release()
        _, error = recorder.wait_for("on_observed")
        assert error.reason == "not you"


def test_observe_never_acknowledges_what_could_not_be_kept() -> None:
    class FullDisk(Raising):
        observable = False

    listener = Listener("observing", observe=True)
    plugins = [FullDisk("on_store", StoreRefused("disk full", 0xA700))]
    with serving(plugins, listener=listener, application={evt.EVT_C_STORE: kept}) as node:
        assert send(port_of(node)).Status == 0xA700


def identity_item(kind: int, primary: bytes, secondary: bytes = b"") -> bytes:
    content = bytes((kind, 0)) + len(primary).to_bytes(2, "big") + primary
    content += len(secondary).to_bytes(2, "big") + secondary
    return b"\x58\0" + len(content).to_bytes(2, "big") + content


def test_D3337_more_than_one_identity_item_is_refused() -> None:
    twice = identity_item(1, b"ada") + identity_item(1, b"eve")
    recorder = Recorder()
    with serving([recorder]) as node:
        answer = knock_at(port_of(node), request_pdu(user_information=twice))
        assert answer == bytes.fromhex("03 00 00 00 00 04 00 01 02 01")
        _, error = recorder.wait_for("on_association_refused")
        assert "at most one" in error.reason
