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
def messages() -> Mapping[str, Mapping[str, Any]]:
    """Return the fifteen message tables of A.5.3, keyed by the EventID's code value."""
    rows = tables()["messages"]
    return MappingProxyType({row["event"]["EventID"]["codes"][0][0]: row for row in rows})


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


# CID 400 Audit Event ID: the events this package reports.
APPLICATION_ACTIVITY = Code("110100", "Application Activity")
AUDIT_LOG_USED = Code("110101", "Audit Log Used")
BEGIN_TRANSFERRING = Code("110102", "Begin Transferring DICOM Instances")
INSTANCES_ACCESSED = Code("110103", "DICOM Instances Accessed")
INSTANCES_TRANSFERRED = Code("110104", "DICOM Instances Transferred")
SECURITY_ALERT = Code("110113", "Security Alert")
USER_AUTHENTICATION = Code("110114", "User Authentication")

# CID 401 and CID 403: kinds of event.
APPLICATION_START = Code("110120", "Application Start")
APPLICATION_STOP = Code("110121", "Application Stop")
LOGIN = Code("110122", "Login")
LOGOUT = Code("110123", "Logout")
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

# CID 402 Audit Active Participant Role ID.
ROLE_APPLICATION = Code("110150", "Application")
ROLE_LAUNCHER = Code("110151", "Application Launcher")
ROLE_DESTINATION = Code("110152", "Destination Role ID")
ROLE_SOURCE = Code("110153", "Source Role ID")

# CID 404 and A.5.1.2.4: kinds of identifier.
STUDY_INSTANCE_UID = Code("110180", "Study Instance UID")
NODE_ID = Code("110182", "Node ID")
PATIENT_NUMBER = Code("2", "Patient Number", "RFC-3881")
URI = Code("12", "URI", "RFC-3881")
