"""The audit tables of PS3.15 A.5 and their PS3.16 context groups (CID 400 to 405), as data.

`audit_tables.json` beside this module holds them; `.ci/make_audit_tables.py` made it. This module
loads it once and gives the codes the node itself writes their names. The schema of A.5.1.1 is
`audit_message.rng` (from `audit_message.rnc`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

DCM_OID = "1.2.840.10008.2.16.4"

# Rows of the message tables whose text in edition 2024e we have not seen, by the entity they
# belong to, and the reading we take. 2024c has ``U`` in all of them. Each is a switch of its own:
# put its name in `READ_AS_2024C`, and builders and validator read that row as 2024c has it. What
# the builders write is right in either reading.
OPEN_POINTS: Mapping[str, str] = MappingProxyType(
    {
        "study": "inferred: ParticipantObjectName or Query, each if the other is absent "
        "(A.5.3.3 to A.5.3.5, A.5.3.7, A.5.3.8, A.5.3.15; seen in A.5.3.6)",
        "patient": "inferred: ParticipantObjectName mandatory, no Query "
        "(A.5.3.3 to A.5.3.8, A.5.3.13, A.5.3.14; of A.5.3.15 only: no Query)",
        "audit_log": "inferred: ParticipantObjectName mandatory, no Query (A.5.3.2)",
        "alert_subject": "open: ParticipantObjectName or Query, each if the other is absent "
        "(A.5.3.11); we write Name, as 2026c demands",
    }
)
READ_AS_2024C: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Code:
    """A coded entry: ``(value, system, "meaning")``.

    `value` is written as csd-code, `system` as codeSystemName and `meaning` as originalText.
    """

    value: str
    meaning: str
    system: str = "DCM"


@cache
def tables() -> Mapping[str, Any]:
    """Return the machine tables of A.5, read once."""
    text = (files(__package__) / "audit_tables.json").read_text("utf-8")
    return MappingProxyType(json.loads(text))


@cache
def schema() -> bytes:
    """Return the RELAX NG schema of A.5.1.1, XML syntax."""
    return (files(__package__) / "audit_message.rng").read_bytes()


@cache
def messages(as_2024c: frozenset[str] = READ_AS_2024C) -> Mapping[str, Mapping[str, Any]]:
    """Return the fifteen message tables of A.5.3, keyed by the EventID's code value.

    Parameters
    ----------
    as_2024c : frozenset of str
        The `OPEN_POINTS` to read as edition 2024c has them.
    """
    rows = [_read(row, as_2024c) for row in tables()["messages"]]
    return MappingProxyType({row["event"]["EventID"]["codes"][0][0]: row for row in rows})


def _read(row: Mapping[str, Any], as_2024c: frozenset[str]) -> Mapping[str, Any]:
    objects = [
        {**one, "fields": {name: _older(field) for name, field in one["fields"].items()}}
        if one["key"] in as_2024c
        else one
        for one in row["objects"]
    ]
    return {**row, "objects": objects}


def _older(field: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"usage": field["usage_2024c"]} if "usage_2024c" in field else field


@cache
def group(cid: str) -> Mapping[str, Code]:
    """Return the codes of one context group, e.g. ``"CID 403"``, keyed by value."""
    codes = tables()["context_groups"][cid]["codes"]
    return MappingProxyType({value: Code(value, meaning) for value, meaning in codes.items()})


@cache
def meanings() -> Mapping[str, str]:
    """Return the meaning of every DCM code of CID 400 to 405."""
    found: dict[str, str] = {}
    for entry in tables()["context_groups"].values():
        found.update(entry["codes"])
    return MappingProxyType(found)


def by_value(value: str) -> Code:
    """Return the DCM code with `value`; KeyError when CID 400 to 405 do not hold it."""
    return Code(value, meanings()[value])


# CID 400 Audit Event ID.
APPLICATION_ACTIVITY = Code("110100", "Application Activity")
AUDIT_LOG_USED = Code("110101", "Audit Log Used")
BEGIN_TRANSFERRING = Code("110102", "Begin Transferring DICOM Instances")
INSTANCES_ACCESSED = Code("110103", "DICOM Instances Accessed")
INSTANCES_TRANSFERRED = Code("110104", "DICOM Instances Transferred")
STUDY_DELETED = Code("110105", "DICOM Study Deleted")
EXPORT = Code("110106", "Export")
IMPORT = Code("110107", "Import")
NETWORK_ENTRY = Code("110108", "Network Entry")
ORDER_RECORD = Code("110109", "Order Record")
PATIENT_RECORD = Code("110110", "Patient Record")
PROCEDURE_RECORD = Code("110111", "Procedure Record")
QUERY = Code("110112", "Query")
SECURITY_ALERT = Code("110113", "Security Alert")
USER_AUTHENTICATION = Code("110114", "User Authentication")

# CID 401 and CID 403: kinds of event.
APPLICATION_START = Code("110120", "Application Start")
APPLICATION_STOP = Code("110121", "Application Stop")
LOGIN = Code("110122", "Login")
LOGOUT = Code("110123", "Logout")
ATTACH = Code("110124", "Attach")
DETACH = Code("110125", "Detach")
NODE_AUTHENTICATION = Code("110126", "Node Authentication")
NETWORK_CONFIGURATION = Code("110128", "Network Configuration")
SECURITY_CONFIGURATION = Code("110129", "Security Configuration")
SOFTWARE_CONFIGURATION = Code("110131", "Software Configuration")
USE_OF_RESTRICTED_FUNCTION = Code("110132", "Use of Restricted Function")
AUDIT_RECORDING_STOPPED = Code("110133", "Audit Recording Stopped")
AUDIT_RECORDING_STARTED = Code("110134", "Audit Recording Started")
OBJECT_SECURITY_ATTRIBUTES_CHANGED = Code("110135", "Object Security Attributes Changed")
USER_SECURITY_ATTRIBUTES_CHANGED = Code("110137", "User Security Attributes Changed")
AUTHENTICATION_DECISION = Code("110143", "Authentication Decision")
AUTHORIZATION_DECISION = Code("110144", "Authorization Decision")
ACCESS_CONTROL_DECISION = Code("110147", "Access Control Decision")

# CID 404 and A.5.1.2.4: kinds of identifier.
STUDY_INSTANCE_UID = Code("110180", "Study Instance UID")
SOP_CLASS_UID = Code("110181", "SOP Class UID")
NODE_ID = Code("110182", "Node ID")
PATIENT_NUMBER = Code("2", "Patient Number", "RFC-3881")
SEARCH_CRITERIA = Code("10", "Search Criteria", "RFC-3881")
URI = Code("12", "URI", "RFC-3881")

# CID 405 Media Type Code: what instances are exported to and imported from.
USB = Code("110030", "USB Disk Emulation")
EMAIL = Code("110031", "Email")
CD = Code("110032", "CD")
DVD = Code("110033", "DVD")
COMPACT_FLASH = Code("110034", "Compact Flash")
MULTIMEDIA_CARD = Code("110035", "Multi-media Card")
SD_CARD = Code("110036", "Secure Digital Card")
MEDIA_URI = Code("110037", "URI")
FILM = Code("110010", "Film")
PAPER = Code("110038", "Paper Document")
