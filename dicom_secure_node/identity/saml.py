"""SAML 2.0 assertions as user identity, type 4 (PS3.15 B.7).

`SamlBackend.verify` takes these steps, in order; each no is a reason of its own in log and audit:

1. Read the document with suspicion (`saml_xml`): plain XML, no DOCTYPE, no comments, bounded.
2. It is a ``saml:Assertion``, or a ``samlp:Response`` with exactly one. An assertion anywhere
   else, or an encrypted one, is refused.
3. The issuer is one of ours.
4. The signature is over the document element and by that issuer's key (`saml_signature`). A
   Response has to be signed itself: around a signed assertion anybody can write one.
5. From here on only what was signed is read. A Response says Success and is for us; its issuer
   and the assertion's are the same.
6. Time, audience, subject and its confirmation (`saml_conditions`).
7. Attributes, within limits.
8. The assertion was not used before. It is noted last, so that nothing refused is used up.

The answer, where the requestor wants one, is a SAML Response (`saml_response`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dicom_secure_node.errors import ConfigurationError, IdentityRefused, MissingExtra
from dicom_secure_node.identity import saml_conditions, saml_response
from dicom_secure_node.identity.claims import Claim, Identity, IdentityType, PeerFacts
from dicom_secure_node.identity.replay import ReplayStore, Uses, utc_now
from dicom_secure_node.identity.saml_xml import (
    ASSERTION,
    RESPONSE,
    SAML,
    Element,
    name_of,
    only,
    read_document,
    refusal,
    saml_children,
    shown,
    text_of,
)
from dicom_secure_node.pki.credential import Credential
from dicom_secure_node.pki.files import read_certificates

_MAX_ATTRIBUTES = 64
_MAX_VALUES = 512  # of one attribute
_MAX_VALUE_LENGTH = 256  # characters
_ENCRYPTED = ("EncryptedAssertion", "EncryptedID", "EncryptedAttribute")
_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,255}")
_MIN_RSA_BITS, _MIN_EC_BITS = 2048, 256


@dataclass(frozen=True)
class Issuer:
    """One identity provider we believe.

    Attributes
    ----------
    entity_id : str
        Its name, as in ``saml:Issuer``.
    certificates : tuple of x509.Certificate
        Its signing certificates: one, or two while it changes keys. They are trusted for
        themselves; who signed them does not matter, their validity does.
    """

    entity_id: str
    certificates: tuple[x509.Certificate, ...] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.entity_id or not self.certificates:
            raise ConfigurationError("a SAML issuer needs an entity_id and a certificate")
        for certificate in self.certificates:
            key = certificate.public_key()
            if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _MIN_RSA_BITS:
                continue
            if isinstance(key, ec.EllipticCurvePublicKey) and key.key_size >= _MIN_EC_BITS:
                continue
            raise ConfigurationError(
                f"SAML issuer {self.entity_id!r}: wanted an RSA key of {_MIN_RSA_BITS} bits or "
                f"an EC key of {_MIN_EC_BITS} bits or more"
            )


def load_issuer(entity_id: str, certificate: Path) -> Issuer:
    """Return the issuer whose signing certificates are in the file `certificate` (PEM or DER)."""
    return Issuer(entity_id, read_certificates(certificate))


class SamlBackend:
    """Verifies type 4 with signatures of issuers known beforehand.

    Parameters
    ----------
    audience : str
        Our name as service provider (entity ID): what assertions have to be for.
    issuers : sequence of Issuer
    used : Uses, optional
        What remembers assertions; in memory only where left out.
    clock : callable
        Returns the time, aware.
    skew : float
        Seconds that clocks may differ.
    recipients : sequence of str
        What else than `audience` a Recipient or Destination may be, where one is given: issuers
        made for browsers put in the URL they were told to post to.
    groups_attribute : str
        Attribute (by Name or FriendlyName) whose values are the user's groups; empty for none.
    signing : Credential, optional
        Signs our Responses; unsigned where left out.

    Raises
    ------
    MissingExtra
        signxml is not installed.
    ConfigurationError
        No audience or no issuer, or two of a name.
    """

    kinds = frozenset({IdentityType.SAML})

    def __init__(
        self,
        audience: str,
        issuers: Sequence[Issuer],
        used: Uses | None = None,
        *,
        clock: Callable[[], datetime] = utc_now,
        skew: float = 120.0,
        recipients: Sequence[str] = (),
        groups_attribute: str = "groups",
        signing: Credential | None = None,
    ) -> None:
        try:
            from dicom_secure_node.identity import saml_signature
        except ImportError as exc:
            raise MissingExtra("SAML", "saml") from exc
        saml_signature.silence()
        self._signed_content = saml_signature.signed_content
        if not audience or not issuers:
            raise ConfigurationError("SAML needs an audience and at least one issuer")
        self._issuers = {issuer.entity_id: issuer for issuer in issuers}
        if len(self._issuers) != len(issuers):
            raise ConfigurationError("two SAML issuers have the same entity_id")
        self._audience = audience
        self._recipients = frozenset((audience, *recipients))
        self._used = used if used is not None else ReplayStore(clock=clock)
        self._clock = clock
        self._skew = timedelta(seconds=skew)
        self._groups_attribute = groups_attribute
        self._signing = signing

    def verify(self, claim: Claim, peer: PeerFacts) -> Identity:
        """Return the subject of the assertion in `claim`; see `Backend`."""
        now = self._clock()
        # (1), (2)
        root = read_document(claim.primary)
        _check_outline(root)
        # (3)
        name = _issuer_name(root)
        issuer = self._issuers.get(name)
        if issuer is None:
            raise refusal(f"unknown issuer {shown(name)}")
        try:
            # (4), (5)
            signed = self._signed_content(root, issuer.certificates, now)
            assertion = self._assertion(signed, issuer)
            return self._identity(assertion, issuer, claim, peer, now)
        except IdentityRefused as exc:
            raise IdentityRefused(f"{exc.reason} (issuer {shown(name)})") from None

    def close(self) -> None:
        """Let the replay store go."""
        self._used.close()

    def _assertion(self, signed: Element, issuer: Issuer) -> Element:
        """Return the assertion in what was signed."""
        _check_outline(signed)
        if signed.tag == RESPONSE:
            destination = signed.get("Destination")
            if destination is not None and destination not in self._recipients:
                raise refusal(f"the Response is for {shown(destination)}, not {self._audience!r}")
            status = saml_response.status_of(signed)
            if status != saml_response.SUCCESS:
                raise refusal(f"the issuer's Response says {shown(status)}")
        assertion = signed if signed.tag == ASSERTION else only(signed, ASSERTION)
        for element in (signed, assertion):
            if _issuer_name(element) != issuer.entity_id:
                raise refusal(f"the assertion is of issuer {shown(_issuer_name(element))}")
        return assertion

    def _identity(
        self, assertion: Element, issuer: Issuer, claim: Claim, peer: PeerFacts, now: datetime
    ) -> Identity:
        # (6)
        situation = saml_conditions.Situation(
            self._audience, self._recipients, now, self._skew, peer.certificate
        )
        user, until = saml_conditions.check(assertion, situation)
        # (7)
        groups, attributes = _attributes(assertion, self._groups_attribute)
        # (8)
        number = str(assertion.get("ID"))
        if not self._used.use(f"{issuer.entity_id}\0{number}", until):
            raise refusal(f"user {user!r}: the assertion was used before")
        response = b""
        if claim.response_requested:
            response = saml_response.answer(number, self._audience, now, self._signing)
        return Identity(
            user,
            claim.kind,
            groups=groups,
            attributes=MappingProxyType({**attributes, "issuer": issuer.entity_id}),
            how=f"SAML assertion of {issuer.entity_id} (B.7)",
            response=response,
        )


def _check_outline(root: Element) -> None:
    """Raise unless the document is one assertion, or a Response around exactly one."""
    for name in _ENCRYPTED:
        if next(root.iter(f"{{{SAML}}}{name}"), None) is not None:
            raise refusal(f"found saml:{name}: nothing encrypted can be read here")
    if root.tag not in (ASSERTION, RESPONSE):
        raise refusal(f"found {name_of(root)}, wanted saml:Assertion or samlp:Response")
    if root.get("Version") != "2.0":
        raise refusal(f"{name_of(root)} of version {shown(root.get('Version'))}, wanted 2.0")
    everywhere = len(list(root.iter(ASSERTION)))
    if everywhere != 1:
        raise refusal(f"{everywhere} assertions, wanted one")
    assertion = root if root.tag == ASSERTION else only(root, ASSERTION)
    if next(root.iter(RESPONSE), root) is not root:
        raise refusal("a Response within the assertion")
    for element in (root, assertion):
        if not _ID.fullmatch(element.get("ID") or ""):
            raise refusal(f"{name_of(element)} has no usable ID")


def _issuer_name(element: Element) -> str:
    return text_of(only(element, f"{{{SAML}}}Issuer")).strip()


def _attributes(assertion: Element, groups: str) -> tuple[frozenset[str], dict[str, str]]:
    """Return the values of the attribute called `groups`, and all attributes.

    Several values of one attribute are joined by a line feed, which none of them holds. Values
    that are elements, or hold characters that are not printable, are left out; a group like
    that is refused, because a rule might deny it.
    """
    found: dict[str, list[str]] = {}
    members: set[str] = set()
    for statement in saml_children(assertion, "AttributeStatement"):
        for attribute in saml_children(statement, "Attribute"):
            names = {attribute.get("Name"), attribute.get("FriendlyName")} - {None, ""}
            values = [_value(one) for one in saml_children(attribute, "AttributeValue")]
            if len(values) > _MAX_VALUES:
                raise refusal(f"an attribute has more than {_MAX_VALUES} values")
            readable = [value for value in values if value]
            if groups in names:
                if None in values:
                    raise refusal("a group name cannot be used")
                members.update(readable)
            name = attribute.get("Name")
            if name and len(name) <= _MAX_VALUE_LENGTH and name.isprintable():
                found.setdefault(name, []).extend(readable)
    if len(found) > _MAX_ATTRIBUTES:
        raise refusal(f"more than {_MAX_ATTRIBUTES} attributes")
    return frozenset(members), {name: "\n".join(values) for name, values in found.items()}


def _value(element: Element) -> str | None:
    """Return the text of an AttributeValue; None where it is no usable text."""
    text = element.text or ""
    if len(element) or len(text) > _MAX_VALUE_LENGTH or not text.isprintable():
        return None
    return text
