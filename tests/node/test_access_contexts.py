"""The access policy at an association: contexts refused one by one (PS3.8 Table 9-18)."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydicom
import pydicom.data
import pytest
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    MRImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    Verification,
)

from dicom_secure_node.identity.access import AccessPolicy, AccessRule
from dicom_secure_node.identity.claims import Claim, Identity, IdentityType, PeerFacts
from dicom_secure_node.identity.policy import Demand, IdentityPolicy
from dicom_secure_node.node.plugin import Plugin
from dicom_secure_node.node.plugins.access import AccessPlugin
from dicom_secure_node.node.plugins.identity import IdentityPlugin
from dicom_secure_node.node.server import Listener
from tests.loopback import (
    CT_SMALL,
    Recorder,
    application_entity,
    associate,
    port_of,
    serving,
)
from tests.parts import run

FIND = StudyRootQueryRetrieveInformationModelFind
GET = StudyRootQueryRetrieveInformationModelGet
ACCEPTED, USER_REJECTION = 0, 1  # 3: abstract syntax not supported
ASKED = (Verification, CTImageStorage, MRImageStorage, FIND)


def gate(*rules: AccessRule, **options: Any) -> AccessPlugin:
    return AccessPlugin(AccessPolicy(rules, **options))


def results(assoc: Any) -> dict[str, int]:
    """Return the result of each presentation context, as the peer got it."""
    assert assoc.is_established
    contexts = (*assoc.accepted_contexts, *assoc.rejected_contexts)
    return {str(context.abstract_syntax): int(context.result) for context in contexts}


def allow(**conditions: tuple[str, ...]) -> AccessRule:
    return AccessRule("allow", **conditions)


def deny(**conditions: tuple[str, ...]) -> AccessRule:
    return AccessRule("deny", **conditions)


# For verification, CT, MR (which the application entity does not know) and query.
CASES: dict[str, tuple[list[AccessRule], tuple[int, int, int, int]]] = {
    "no rule": ([], (0, 0, 3, 0)),
    "everything is allowed": ([allow()], (0, 0, 3, 0)),
    "an operation is allowed": ([allow(operation=("echo",))], (0, 1, 1, 1)),
    "two operations are allowed": ([allow(operation=("store", "query"))], (1, 0, 3, 0)),
    "an SOP class is allowed": ([allow(sop_class=("CTImageStorage",))], (1, 0, 1, 1)),
    "an SOP class is denied": ([allow(), deny(sop_class=("CTImageStorage",))], (0, 1, 3, 0)),
    "an operation is denied to others": (
        [allow(), deny(operation=("store",), calling_ae=("OTHER",))], (0, 0, 3, 0),
    ),
    "what is not known here is refused all the same": (
        [allow(), deny(sop_class=("MRImageStorage",))], (0, 0, 1, 0),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rules", "want"), CASES.values(), ids=CASES)
def test_PS3_8_9_3_3_2_contexts_are_refused_one_by_one(
    rules: list[AccessRule], want: tuple[int, ...]
) -> None:
    with serving([gate(*rules)], ae=application_entity(FIND)) as node:
        assoc = associate(port_of(node), abstract=ASKED)
        assert results(assoc) == dict(zip(ASKED, want, strict=True))
        if want[0] == ACCEPTED:
            assert assoc.send_c_echo().Status == 0x0000
        assoc.release()


def test_every_context_of_a_refused_sop_class_goes() -> None:
    with serving([gate(allow(operation=("echo",)))]) as node:
        syntaxes = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.70")
        contexts = [build_context(CTImageStorage, syntax) for syntax in syntaxes]
        assoc = AE("PEER").associate(
            "127.0.0.1", port_of(node), [build_context(Verification), *contexts]
        )
        assert [cx.result for cx in assoc.rejected_contexts] == [USER_REJECTION] * 3
        assert [cx.abstract_syntax for cx in assoc.accepted_contexts] == [Verification]
        assoc.release()


def test_an_association_nothing_is_left_of_is_rejected() -> None:
    recorder = Recorder()
    with serving([recorder, gate(allow(operation=("query",)))]) as node:
        assoc = associate(port_of(node))
        assert assoc.is_rejected
        answer = assoc.acceptor.primitive
        assert (answer.result, answer.result_source, answer.diagnostic) == (1, 1, 1)
        assert recorder.wait_for("on_association_refused")[1].reason == "no access rule allows it"


def test_the_refusal_is_logged_and_left_for_the_endings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dicom_secure_node")
    recorder = Recorder()
    with serving([recorder, gate(allow(operation=("echo",)))]) as node:
        associate(port_of(node)).release()
        (context,) = recorder.wait_for("on_association_accepted")
        assert context.refused_contexts == {CTImageStorage: "no access rule allows it"}
    (line,) = [one.getMessage() for one in caplog.records if "of 2 SOP classes" in one.getMessage()]
    assert "refused presentation contexts of 1 of 2 SOP classes" in line
    assert line.endswith("first: no access rule allows it")


def test_a_listener_that_observes_refuses_none() -> None:
    recorder = Recorder()
    plugins = [recorder, gate(allow(operation=("echo",)))]
    with serving(plugins, listener=Listener("loopback", observe=True)) as node:
        assoc = associate(port_of(node))
        assert set(results(assoc).values()) == {ACCEPTED}
        assoc.release()
        _, error = recorder.wait_for("on_observed")
        assert "no access rule allows it" in error.reason
        (context,) = recorder.wait_for("on_association_accepted")
        assert not context.refused_contexts


def test_DCMTK_sees_a_user_rejection_and_stores_what_it_may() -> None:
    mr = Path(str(pydicom.data.get_testdata_file("MR_small.dcm")))
    kept: list[str] = []

    def keep(event: Any) -> int:
        kept.append(str(event.request.AffectedSOPClassUID))
        return 0x0000

    plugins = [gate(allow(sop_class=("MRImageStorage",)))]
    entity, application = application_entity(MRImageStorage), {evt.EVT_C_STORE: keep}
    with serving(plugins, ae=entity, application=application) as node:
        argv = ["storescu", "--debug", "--no-halt", "127.0.0.1", str(port_of(node))]
        done = run([*argv, CT_SMALL, mr])
    shown = done.stdout + done.stderr
    assert "(User Rejection)" in shown
    assert "No presentation context for: (CT)" in shown
    assert kept == [MRImageStorage]


def test_a_refused_context_cannot_be_used() -> None:
    recorder = Recorder()
    with serving([recorder, gate(allow(operation=("echo",)))]) as node:
        assoc = associate(port_of(node))
        (refused,) = assoc.rejected_contexts
        refused.transfer_syntax = ["1.2.840.10008.1.2.1"]
        refused._as_scu, refused.result = True, ACCEPTED
        assoc._accepted_cx[refused.context_id] = refused
        assert "Status" not in assoc.send_c_store(pydicom.dcmread(CT_SMALL))
        assert recorder.wait_for("on_association_closed")[1] == "aborted"


def _send_one(event: Any) -> Any:
    yield 1
    yield 0xFF00, pydicom.dcmread(CT_SMALL)


def test_PS3_7_D_3_3_4_who_may_retrieve_gets_contexts_to_be_sent_instances() -> None:
    """It does not ask us to store: it is the SCP there, and gets what C-GET lets it have."""
    entity = application_entity(GET)
    for context in entity.supported_contexts:
        context.scu_role = context.scp_role = True
    got: list[str] = []

    def keep(event: Any) -> int:
        got.append(str(event.dataset.SOPClassUID))
        return 0x0000

    application = {evt.EVT_C_GET: _send_one}
    plugin = gate(allow(operation=("retrieve",)))
    with serving([plugin], ae=entity, application=application) as node:
        peer = AE("PEER")
        peer.add_requested_context(GET)
        peer.add_requested_context(CTImageStorage)
        peer.add_requested_context(Verification)
        assoc = peer.associate(
            "127.0.0.1", port_of(node),
            ext_neg=[build_role(CTImageStorage, scp_role=True)],
            evt_handlers=[(evt.EVT_C_STORE, keep)],
        )  # fmt: skip
        assert results(assoc) == {GET: 0, CTImageStorage: 0, Verification: USER_REJECTION}
        query = pydicom.Dataset()
        query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", "1.2.3"
        statuses = [int(status.Status) for status, _ in assoc.send_c_get(query, GET)]
        assert statuses[-1] == 0x0000
        assert got == [CTImageStorage]
        assoc.release()


class NoImages(Plugin):
    """A third party's gate."""

    def on_association_requested(self, association: Any) -> None:
        association.refuse_context(CTImageStorage, "no images on Mondays")


def test_a_plug_in_of_ones_own_refuses_a_context_and_its_role() -> None:
    entity = application_entity()
    for context in entity.supported_contexts:
        context.scu_role = context.scp_role = True
    with serving([NoImages()], ae=entity) as node:
        peer = AE("PEER")
        peer.add_requested_context(CTImageStorage)
        peer.add_requested_context(Verification)
        roles = [build_role(uid, scu_role=True) for uid in (CTImageStorage, Verification)]
        assoc = peer.associate("127.0.0.1", port_of(node), ext_neg=roles)
        assert results(assoc) == {CTImageStorage: USER_REJECTION, Verification: ACCEPTED}
        assert set(assoc.acceptor.role_selection) == {Verification}
        assoc.release()


class Directory:
    """Believes everybody, and knows where they work."""

    kinds = frozenset({IdentityType.PASSCODE})

    def verify(self, claim: Claim, peer: PeerFacts) -> Identity:
        return Identity(claim.user, claim.kind, attributes={"department": claim.secondary.decode()})


@pytest.mark.parametrize(("department", "want"), [("radiology", ACCEPTED), ("it", USER_REJECTION)])
def test_what_is_known_of_the_user_opens_contexts(department: str, want: int) -> None:
    policy = IdentityPolicy(Demand.of("required", [IdentityType.PASSCODE]), protected_only=False)
    plugins = [
        IdentityPlugin({"loopback": policy}, [Directory()]),
        gate(allow(operation=("echo",)), allow(attribute=("department=radiology",))),
    ]
    with serving(plugins) as node:
        assoc = associate(port_of(node), user=(2, b"ada", department.encode(), False))
        assert results(assoc) == {Verification: ACCEPTED, CTImageStorage: want}
        assoc.release()


def test_hours_count_at_each_operation_too() -> None:
    now = datetime(2026, 3, 2, 17, 59, tzinfo=UTC)
    plugin = gate(allow(hours=("08:00-18:00",), zone="UTC"), clock=lambda: now)
    with serving([plugin]) as node:
        assoc = associate(port_of(node))
        assert assoc.send_c_echo().Status == 0x0000
        now = datetime(2026, 3, 2, 18, 0, tzinfo=UTC)
        assert assoc.send_c_echo().Status == 0x0124
        assoc.release()
        assert associate(port_of(node)).is_rejected
