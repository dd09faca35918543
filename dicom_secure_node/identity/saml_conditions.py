"""What a SAML assertion says about when, where and by whom it may be used (PS3.15 B.7).

`check` is given an assertion whose signature has been verified, and looks at, in order:

1. Version 2.0 and an IssueInstant that is not in the future (SAML 2.0 core 2.3.3).
2. Conditions: there, begun, not over; none we do not know (core 2.5.1).
3. AudienceRestriction: at least one, and each of them names our audience (core 2.5.1.4).
4. Subject: a readable NameID; encrypted names are not for us (core 2.4.1).
5. SubjectConfirmation: one is enough. ``bearer``, with an end and, where it names a recipient,
   ours (profiles 4.1.4.2); or ``holder-of-key``, the key being that of the certificate the
   requestor has just used for TLS. ``InResponseTo`` means nothing here: we asked nobody.
6. The session at the issuer, where an end is given, is not over.

All times are compared with an allowance, `skew`, for clocks that differ.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from dicom_secure_node.errors import IdentityRefused
from dicom_secure_node.identity.claims import checked_user
from dicom_secure_node.identity.saml_xml import (
    DS,
    SAML,
    Element,
    name_of,
    only,
    refusal,
    saml_children,
    shown,
    text_of,
)

BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
HOLDER_OF_KEY = "urn:oasis:names:tc:SAML:2.0:cm:holder-of-key"
_MAX_CONFIRMATIONS = 8
# OneTimeUse asks for what we do anyway; ProxyRestriction binds those who issue further assertions.
_KNOWN_CONDITIONS = ("AudienceRestriction", "OneTimeUse", "ProxyRestriction")
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,12})?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True)
class Situation:
    """What an assertion is held against.

    Attributes
    ----------
    audience : str
        Our name as service provider.
    recipients : frozenset of str
        What a Recipient may be, where one is given.
    now : datetime
        Aware.
    skew : timedelta
        How far clocks may differ.
    certificate : x509.Certificate or None
        Of the TLS peer.
    """

    audience: str
    recipients: frozenset[str]
    now: datetime
    skew: timedelta
    certificate: x509.Certificate | None = None

    def over(self, end: datetime) -> bool:
        """Tell whether `end`, the first moment outside (NotOnOrAfter), is past."""
        return end <= self.now - self.skew

    def begun(self, start: datetime) -> bool:
        """Tell whether `start` (NotBefore) has come."""
        return start <= self.now + self.skew


def check(assertion: Element, situation: Situation) -> tuple[str, datetime]:
    """Return the subject's name, and the moment from which the assertion is worth nothing.

    Raises
    ------
    IdentityRefused
        It does not hold here, now, or for this requestor.
    """
    # (1)
    if assertion.get("Version") != "2.0":
        raise refusal(f"assertion of version {shown(assertion.get('Version'))}, wanted 2.0")
    if not situation.begun(moment(assertion, "IssueInstant")):
        raise refusal("the assertion was issued in the future")
    # (2), (3)
    end = _check_conditions(only(assertion, f"{{{SAML}}}Conditions"), situation)
    # (4)
    subject = only(assertion, f"{{{SAML}}}Subject")
    user = _name(subject)
    # (5)
    end = min(end, _check_confirmations(subject, situation))
    # (6)
    for statement in saml_children(assertion, "AuthnStatement"):
        if statement.get("SessionNotOnOrAfter") is None:
            continue
        if situation.over(moment(statement, "SessionNotOnOrAfter")):
            raise refusal(f"user {user!r}: the session at the issuer is over")
    return user, end + situation.skew


def moment(element: Element, attribute: str) -> datetime:
    """Return the time in an attribute of `element`, in UTC."""
    text = element.get(attribute)
    if text is None:
        raise refusal(f"{name_of(element)} has no {attribute}")
    try:
        if _DATE_TIME.fullmatch(text):
            return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise refusal(f"{attribute} is {shown(text)}, wanted a time in UTC (SAML core 1.3.3)")


def _check_conditions(conditions: Element, situation: Situation) -> datetime:
    end = moment(conditions, "NotOnOrAfter")
    if situation.over(end):
        raise refusal(f"the assertion expired at {end:%Y-%m-%dT%H:%M:%SZ}")
    if conditions.get("NotBefore") is not None:
        start = moment(conditions, "NotBefore")
        if not situation.begun(start):
            raise refusal(f"the assertion is not valid before {start:%Y-%m-%dT%H:%M:%SZ}")
    for condition in conditions:
        if condition.tag not in {f"{{{SAML}}}{name}" for name in _KNOWN_CONDITIONS}:
            raise refusal(f"unknown condition {name_of(condition)} (SAML core 2.5.1)")
    restrictions = saml_children(conditions, "AudienceRestriction")
    if not restrictions:
        raise refusal("the assertion is for no audience in particular")
    for restriction in restrictions:
        audiences = [text_of(one).strip() for one in saml_children(restriction, "Audience")]
        if situation.audience not in audiences:
            found = shown(audiences[0]) if audiences else "nobody"
            raise refusal(f"the assertion is for {found}, wanted {situation.audience!r}")
    return end


def _name(subject: Element) -> str:
    if saml_children(subject, "EncryptedID"):
        raise refusal("the subject's name is encrypted")
    text = text_of(only(subject, f"{{{SAML}}}NameID"))
    try:
        return checked_user(text.encode("utf-8"))
    except IdentityRefused as exc:
        raise refusal(f"NameID: {exc.reason}") from None


def _check_confirmations(subject: Element, situation: Situation) -> datetime:
    """Return the end of the first SubjectConfirmation that holds."""
    found = saml_children(subject, "SubjectConfirmation")
    if not found:
        raise refusal("the assertion has no SubjectConfirmation")
    if len(found) > _MAX_CONFIRMATIONS:
        raise refusal(f"more than {_MAX_CONFIRMATIONS} SubjectConfirmations")
    first: IdentityRefused | None = None
    for confirmation in found:
        try:
            return _check_confirmation(confirmation, situation)
        except IdentityRefused as exc:
            first = first or exc
    assert first is not None
    raise first


def _check_confirmation(confirmation: Element, situation: Situation) -> datetime:
    method = confirmation.get("Method")
    if method not in (BEARER, HOLDER_OF_KEY):
        raise refusal(f"subject confirmation {shown(method)}, wanted bearer or holder-of-key")
    data = only(confirmation, f"{{{SAML}}}SubjectConfirmationData")
    end = moment(data, "NotOnOrAfter")
    if situation.over(end):
        raise refusal(f"the subject confirmation expired at {end:%Y-%m-%dT%H:%M:%SZ}")
    if data.get("NotBefore") is not None and not situation.begun(moment(data, "NotBefore")):
        raise refusal("the subject confirmation is not valid yet")
    recipient = data.get("Recipient")
    if recipient is not None and recipient not in situation.recipients:
        raise refusal(f"the recipient is {shown(recipient)}, wanted {situation.audience!r}")
    if method == HOLDER_OF_KEY:
        _check_holder(data, situation.certificate)
    return end


def _check_holder(data: Element, certificate: x509.Certificate | None) -> None:
    """Raise unless `data` names the certificate the requestor proved to hold by TLS."""
    if certificate is None:
        raise refusal("holder-of-key, but the requestor showed no certificate")
    held = certificate.public_bytes(Encoding.DER)
    for named in data.findall(f"{{{DS}}}KeyInfo/{{{DS}}}X509Data/{{{DS}}}X509Certificate"):
        try:
            if base64.b64decode("".join(text_of(named).split()), validate=True) == held:
                return
        except binascii.Error:
            continue
    raise refusal("holder-of-key, but not of the key the requestor holds")
