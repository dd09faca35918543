"""Who looked at the log, and who tried to: audit messages of the pages themselves.

Audit Log Used (PS3.15 A.5.3.2), User Authentication (A.5.3.12), a Security Alert for a lock-out
(A.5.3.11) and Application Activity (A.5.3.1). Each is on the disk before anything is shown.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Protocol

from dicom_secure_node.audit import messages
from dicom_secure_node.audit.limiter import AlertLimiter
from dicom_secure_node.audit.messages import AuditMessage, Participant
from dicom_secure_node.spec import audit as codes

APPLICATION = "dicom-secure-node audit view"


class Trail(Protocol):
    """Where messages go; `AuditTrail` is one."""

    def emit(self, message: AuditMessage) -> None:
        """Keep a message.

        Raises
        ------
        ServiceUnavailable
            It could not be kept.
        """


class Reports:
    """Emits the messages. May be shared by threads.

    Parameters
    ----------
    trail : Trail
    limiter : AlertLimiter, optional
        Holds back repeated attempts of those who are locked out, and sums them up.
    """

    def __init__(self, trail: Trail, limiter: AlertLimiter | None = None) -> None:
        self._trail = trail
        self._limiter = limiter or AlertLimiter()
        self._process = Participant(str(os.getpid()), name=APPLICATION)

    def started(self) -> None:
        """Report the start."""
        self._trail.emit(messages.application_activity(codes.APPLICATION_START, self._process))

    def stopped(self) -> None:
        """Report the stop, after what was held back."""
        self.sum_up(everything=True)
        self._trail.emit(messages.application_activity(codes.APPLICATION_STOP, self._process))

    def looked(self, user: str, address: str, uri: str, failure: str = "") -> None:
        """Report that somebody looked, or why nothing could be shown."""
        who = Participant(user, requestor=True, address=address)
        used = messages.audit_log_used((who, self._process), uri)
        outcome = messages.SERIOUS_FAILURE if failure else messages.SUCCESS
        self._trail.emit(replace(used, outcome=outcome, reason=failure))

    def logged_in(self, user: str, address: str) -> None:
        """Report a login."""
        self._user(codes.LOGIN, user, address)

    def logged_out(self, user: str, address: str) -> None:
        """Report a logout."""
        self._user(codes.LOGOUT, user, address)

    def refused(self, user: str, address: str, reason: str) -> None:
        """Report a login that failed."""
        self._user(codes.LOGIN, user, address, messages.SERIOUS_FAILURE, reason)

    def refused_unheard(self, user: str, address: str, reason: str) -> None:
        """Report an attempt of somebody who is locked out; further ones are only counted.

        They cost the sender nothing, and each would be a durable write.
        """
        self.sum_up()
        if self._limiter.admit((codes.LOGIN.value, address, "locked")):
            self.refused(user, address, reason)

    def locked(self, user: str, address: str) -> None:
        """Report that a lock-out began."""
        who = f"user {user!r} from {address}" if user else f"address {address}"
        text = f"audit view: locked after too many failed logins: {who}"
        self._trail.emit(
            messages.security_alert(
                codes.USER_SECURITY_ATTRIBUTES_CHANGED,
                text,
                replace(self._process, requestor=True),
                subject=address,
            )
        )

    def sum_up(self, *, everything: bool = False) -> None:
        """Report what was held back."""
        for held in self._limiter.due(everything=everything):
            since = f"{held.since:%H:%M:%S} UTC"
            reason = f"{held.count} more attempts since {since}, all refused: locked"
            self._user(codes.LOGIN, "", held.key[1], messages.SERIOUS_FAILURE, reason)

    def _user(
        self,
        kind: codes.Code,
        user: str,
        address: str,
        outcome: int = messages.SUCCESS,
        reason: str = "",
    ) -> None:
        who = Participant(user, requestor=True, address=address)
        self._trail.emit(
            messages.user_authentication(kind, who, self._process, outcome=outcome, reason=reason)
        )
