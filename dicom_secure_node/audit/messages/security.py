"""Alerts, and users who come and go (PS3.15 A.5.3.11, A.5.3.12)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Unpack

from dicom_secure_node.audit.messages.assembly import Facts, Some, build
from dicom_secure_node.audit.model import (
    SERIOUS_FAILURE,
    AuditMessage,
    Participant,
    ParticipantObject,
)
from dicom_secure_node.audit.text import UNKNOWN, cut
from dicom_secure_node.spec import audit as spec
from dicom_secure_node.spec.audit import Code

DETAIL_LIMIT = 1024  # octets of an alert description


def security_alert(
    kind: Code,
    description: str | bytes,
    reporter: Some[Participant],
    *,
    subject: str | Sequence[str] = "",
    subject_type: Code = spec.NODE_ID,
    performer: Some[Participant] | None = None,
    outcome: int = SERIOUS_FAILURE,
    when: datetime | None = None,
) -> AuditMessage:
    """Return Security Alert (A.5.3.11).

    Parameters
    ----------
    kind : Code
        Of CID 403, e.g. NODE_AUTHENTICATION.
    description : str or bytes
        What happened, in words. What XML cannot carry is kept: the detail ``Alert Description``
        has the octets in base64, those of a text in UTF-8, at most `DETAIL_LIMIT`.
    reporter : Participant or two
        The person, the process, or both.
    subject : str or several
        The node (name or IP address) or, with `subject_type` URI, the resource concerned. Empty:
        the reporter itself, so that the alert description always has a place.
    performer : Participant or several, optional
        Who did it; never marked as requestor.
    outcome : int
        0 informative, 4 or 8 the countermeasures held, 12 they may have failed.
    """
    octets = description if isinstance(description, bytes) else _utf_8(description)
    words = octets.decode("utf-8", "replace") if isinstance(description, bytes) else description
    detail = ("Alert Description", octets[:DETAIL_LIMIT] or UNKNOWN.encode())
    reporters = [reporter] if isinstance(reporter, Participant) else list(reporter)
    itself = reporters[0].user_id if reporters else UNKNOWN
    names = [subject] if isinstance(subject, str) else subject
    about = [
        ParticipantObject(name, subject_type, 2, 13, name, details=(detail,))
        for name in [one or itself for one in names or [""]]
    ]
    return build(
        "security_alert",
        {"reporter": reporters, "performer": performer},
        {"alert_subject": about},
        kind=kind,
        outcome=outcome,
        reason=words,
        when=when,
    )


def user_authentication(
    kind: Code,
    user: Participant,
    node: Participant | None = None,
    **facts: Unpack[Facts],
) -> AuditMessage:
    """Return User Authentication (A.5.3.12); `kind` LOGIN or LOGOUT.

    `user.address` is mandatory there: where the user came from.
    """
    if not cut(user.address):
        user = replace(user, address=UNKNOWN)
    return build("user_authentication", {"user": user, "node": node}, kind=kind, **facts)


def _utf_8(text: str) -> bytes:
    """Return the text's octets, at most the limit, without half a character at the end."""
    octets = text[:DETAIL_LIMIT].encode("utf-8", "replace")[:DETAIL_LIMIT]
    return octets.decode("utf-8", "ignore").encode("utf-8")
