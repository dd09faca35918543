"""One audit message of every kind, with the caller's text in every text field."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from dicom_secure_node.audit import messages as m
from dicom_secure_node.audit.messages import AuditMessage, AuditSource, Participant
from dicom_secure_node.spec import audit as spec

NOW = datetime(2026, 11, 22, 9, 30, 5, 123456, UTC)
SOURCE = AuditSource("archive.example.org", "Site-A")


def every_kind(text: str = "text", count: int = 1) -> Mapping[str, AuditMessage]:
    """Return the messages by a sentence; lists have `count` members."""
    peer = Participant(text, True, (text, "CT1"), name=text, address=text)
    node = Participant(text, False, ("ARCHIVE",), name=text, address="192.0.2.20")
    person = Participant(text, True, alternative_id=text, name=text, address=text)
    process = Participant(text, name=text)
    study = m.study(
        text,
        text,
        accessions=[text] * count,
        sop_classes={f"1.2.840.10008.5.1.4.1.1.{n}{text}": 3 for n in range(count)},
        mpps=[text] * count,
        encrypted=True,
        anonymized=False,
    )
    disc = m.Medium(spec.CD, text, text, text)
    mail = m.Medium(spec.EMAIL, text)
    octets_ = text.encode("utf-8", "surrogatepass")
    plain = m.study("1.2.826.0.1.3680043.8.498.1")
    patient = m.patient(text, text)
    failed = {"outcome": m.SERIOUS_FAILURE, "reason": text}
    alerts = {
        f"security alert: {code.meaning}": m.security_alert(
            code, text, node, subject=text, performer=peer
        )
        for code in spec.group("CID 403").values()
    }
    return {
        "application starts": m.application_activity(spec.APPLICATION_START, node),
        "application stops": m.application_activity(
            spec.APPLICATION_STOP, node, person, outcome=m.MAJOR_FAILURE, reason=text
        ),
        "audit log is read": m.audit_log_used([person, process], text),
        "transfer begins": m.begin_transferring(peer, node, [study, plain], patient),
        "instances are read": m.instances_accessed("R", [person, process], [study], patient),
        "instances are deleted": m.instances_accessed("D", [person], [plain], patient),
        "instances arrived": m.instances_transferred("C", peer, node, [study], patient),
        "instances were here": m.instances_transferred("R", peer, node, [study], patient),
        "instances changed": m.instances_transferred("U", peer, node, [study, plain], patient),
        "instances refused": m.instances_transferred("R", peer, node, [study], patient, **failed),
        "third party moved": m.instances_transferred(
            "C", process, node, [plain], patient, others=[person]
        ),
        "user logs in": m.user_authentication(spec.LOGIN, person, node),
        "user is refused": m.user_authentication(spec.LOGIN, person, node, **failed),
        "user logs out": m.user_authentication(spec.LOGOUT, person),
        "user without address": m.user_authentication(spec.LOGIN, process),
        "alert about itself": m.security_alert(spec.AUDIT_RECORDING_STOPPED, text, node),
        "alert about a file": m.security_alert(
            spec.SECURITY_CONFIGURATION, text, node, subject=text, subject_type=spec.URI, outcome=0
        ),
        "data goes to a disc": m.data_export(person, disc, patient, studies=study, remote=process),
        "data goes by e-mail": m.data_export([person, process], mail, [patient, patient]),
        "data comes from a disc": m.data_import(person, disc, patient, studies=study),
        "data comes by e-mail": m.data_import([process, person], mail, patient, sources=process),
        "a study is deleted": m.study_deleted([person, process], [study, plain], patient),
        "a node leaves the network": m.network_entry(spec.DETACH, node, **failed),
        "a query is received": m.query(
            peer, node, m.DicomQuery(text.strip() or "1.2", "1.2", octets_)
        ),
        "another query is sent": m.query(node, process, m.OtherQuery(text, octets_), others=person),
        "an order is read": m.order_record("R", [person, process], patient, **failed),
        "a patient is changed": m.patient_record("U", person, patient),
        "a procedure is changed": m.procedure_record("U", person, patient, studies=study),
        **alerts,
    }


def octets(message: AuditMessage) -> bytes:
    """Return the XML of a message."""
    return message.to_xml(SOURCE, NOW).encode("utf-8")
