"""`SecureNode.audit`: an application's own events, and the rules that keep some out."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from lxml import etree
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as Find

from dicom_secure_node import config
from dicom_secure_node.audit import messages as m
from dicom_secure_node.audit.suppress import SuppressRule
from dicom_secure_node.audit.validate import validate
from dicom_secure_node.errors import ServiceUnavailable
from dicom_secure_node.identity.claims import Claim, IdentityType
from dicom_secure_node.secure_node import SecureNode
from dicom_secure_node.spec import audit as codes
from tests.audit.every_builder import CASES, simplest
from tests.loopback import application_entity, port_of

QUERIES = SuppressRule(event=("Query",), ae=("ASKER",), reason="asks every minute")


def made(folder: Path, *rules: SuppressRule) -> SecureNode:
    """Return a plain node without an archive."""
    return SecureNode(
        config.NodeConfig(
            listener=(config.Listener(profile="plain", name="main", identity="supports"),),
            node=config.Node(ae_title="ARCHIVE", plugins=("identity", "audit")),
            identity=config.Identity(types=("username",)),
            audit=config.Audit(path=folder / "audit", suppress=rules),
        )
    )


def written(folder: Path) -> list[Any]:
    """Return the messages on the disk, each of them valid."""
    roots = []
    for path in sorted((folder / "audit").glob("*.ndjson")):
        for line in path.read_text().splitlines():
            xml = json.loads(line)["xml"].encode()
            assert validate(xml).problems == (), xml
            roots.append(etree.fromstring(xml))
    return roots


def events(folder: Path) -> list[str]:
    return [one.find("EventIdentification/EventID").get("csd-code") for one in written(folder)]


@pytest.mark.parametrize("name", CASES)
def test_A5_every_event_of_an_application_is_kept(name: str, tmp_path: Path) -> None:
    node = made(tmp_path)
    try:
        assert node.audit.emit(CASES[name].build(**simplest(CASES[name]))) is True
    finally:
        node.stop()
    assert events(tmp_path) == [CASES[name].event]


def asked(folder: Path, *rules: SuppressRule, identity: Claim | None = None) -> Any:
    """Have a query asked and reported; return the message, or None if it was not kept."""
    kept: list[bool] = []

    def find(event: evt.Event) -> Iterator[tuple[int, None]]:
        query = m.DicomQuery(
            event.request.AffectedSOPClassUID,
            event.context.transfer_syntax,
            event.request.Identifier.getvalue(),
        )
        peer, us, user = node.audit.peer(event), node.audit.process(), node.audit.user(event)
        kept.append(node.audit.emit(m.query(peer, us, query, others=user)))
        yield 0, None

    node = made(folder, *rules)
    with node:
        server = node.start_server(
            application_entity(str(Find)),
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[(evt.EVT_C_FIND, find)],
        )
        assert server is not None
        requestor = AE("ASKER")
        requestor.add_requested_context(Find)
        assoc = node.associate(requestor, "127.0.0.1", port_of(server), identity=identity)
        ds = pydicom.Dataset()
        ds.QueryRetrieveLevel, ds.PatientID = "STUDY", "P1"
        assert [status.Status for status, _ in assoc.send_c_find(ds, Find)] == [0]
        assoc.release()
    found = [one for one in written(folder) if one.xpath("//EventID[@csd-code='110112']")]
    assert len(found) == sum(kept)
    return found[0] if found else None


@pytest.mark.parametrize(
    ("identity", "people"),
    [
        (None, [("127.0.0.1", "true"), (None, "false")]),
        (
            Claim(IdentityType.USERNAME, b"ada"),
            [("127.0.0.1", "false"), (None, "false"), (None, "true")],
        ),
    ],
    ids=["the peer asks", "a user asks"],
)
def test_A5_3_10_peer_and_user_of_an_event_are_participants(
    identity: Claim | None, people: Any, tmp_path: Path
) -> None:
    message = asked(tmp_path, identity=identity)
    who = message.findall("ActiveParticipant")
    flags = [(one.get("NetworkAccessPointID"), one.get("UserIsRequestor")) for one in who]
    assert flags == people
    assert [one.get("AlternativeUserID") for one in who][:2] == [
        "AETITLES=ASKER",
        "AETITLES=ARCHIVE",
    ]


def test_an_event_of_another_association_has_no_peer(tmp_path: Path) -> None:
    node = made(tmp_path)

    class Other:
        assoc = object()

    try:
        with pytest.raises(LookupError):
            node.audit.peer(Other())
    finally:
        node.stop()


def test_what_is_suppressed_is_counted_and_the_trail_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert asked(tmp_path, QUERIES) is None
    assert events(tmp_path) == ["110100", "110100"]
    line = (
        "audit.suppress[0]: Query (110112); outcome 0; AE title ASKER; because: asks every minute"
    )
    start, stop = [one.findtext(".//EventOutcomeDescription") for one in written(tmp_path)]
    assert start == f"0 messages suppressed so far by 1 rules: {line}"
    assert stop == f"1 messages suppressed so far by 1 rules: {line}"
    logged = [record.getMessage() for record in caplog.records]
    assert f"not recorded: {line}" in logged
    assert f"1 messages not recorded: {line}" in logged


def test_what_another_rule_is_about_is_kept(tmp_path: Path) -> None:
    rule = SuppressRule(event=("Query",), ae=("MONITOR",))
    assert asked(tmp_path, rule) is not None


def test_the_node_s_own_messages_pass_the_rules_as_well(tmp_path: Path) -> None:
    node = made(tmp_path, SuppressRule(event=("User Authentication",)))
    with node:
        server = node.start_server(application_entity(), ("127.0.0.1", 0), block=False)
        assert server is not None
        requestor = AE("ASKER")
        requestor.add_requested_context("1.2.840.10008.1.1")
        claim = Claim(IdentityType.USERNAME, b"ada")
        node.associate(requestor, "127.0.0.1", port_of(server), identity=claim).release()
    assert events(tmp_path) == ["110100", "110100"]
    assert node.audit.suppressions.counts == (2,)


def test_without_rules_start_and_stop_say_nothing(tmp_path: Path) -> None:
    node = made(tmp_path)
    node.start()
    node.stop()
    assert [one.findtext(".//EventOutcomeDescription") for one in written(tmp_path)] == [None, None]


def test_what_cannot_be_recorded_is_raised(tmp_path: Path) -> None:
    node = made(tmp_path)
    node.stop()
    alert = m.security_alert(codes.NODE_AUTHENTICATION, "x", node.audit.process())
    with pytest.raises(ServiceUnavailable):
        node.audit.emit(alert)
