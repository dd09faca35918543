"""The SAML Response in the sub-item 59H, and the requestor's part of type 4 (PS3.15 B.7).

The standard says "a SAML response" and no more. Ours is the smallest ``samlp:Response`` SAML 2.0
core 3.2.2 allows: status Success, our name as Issuer, and in ``InResponseTo`` the ID of the
assertion it answers. It holds no assertion. It is signed where the acceptor has a credential
for that; unsigned it proves as much as the TLS connection it comes by, no more.

A requestor makes its claim with `outgoing_claim` and looks at the answer with `check_answer`.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from lxml import etree

from dicom_secure_node.errors import (
    ConfigurationError,
    IdentityRefused,
    MissingExtra,
    PeerRefused,
)
from dicom_secure_node.identity.claims import Claim, IdentityType
from dicom_secure_node.identity.replay import utc_now
from dicom_secure_node.identity.saml_xml import (
    ASSERTION,
    DS,
    RESPONSE,
    SAML,
    SAMLP,
    Element,
    name_of,
    only,
    read_document,
    shown,
)
from dicom_secure_node.pki.credential import Credential

SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
# What is left of the 16 bits of the User Information item (PS3.8 Table 9-16) for a Primary-field,
# with room for the other sub-items of the request.
MAX_OUTGOING = 65_000


def status_of(response: Element) -> str | None:
    """Return the top-level status code of a ``samlp:Response``."""
    code = only(only(response, f"{{{SAMLP}}}Status"), f"{{{SAMLP}}}StatusCode")
    return code.get("Value")


def answer(
    assertion_id: str, issuer: str, now: datetime, signing: Credential | None = None
) -> bytes:
    """Return the Response to the assertion `assertion_id`.

    Parameters
    ----------
    assertion_id : str
        ID of the assertion that was accepted.
    issuer : str
        Our own name, the audience of the assertion.
    now : datetime
        Aware.
    signing : Credential, optional
        Signs it.

    Returns
    -------
    bytes
        XML in UTF-8, without declaration.
    """
    root = etree.Element(
        RESPONSE,
        {
            "ID": f"_{secrets.token_hex(16)}",
            "Version": "2.0",
            "IssueInstant": f"{now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "InResponseTo": assertion_id,
        },
        nsmap={"samlp": SAMLP, "saml": SAML},
    )
    etree.SubElement(root, f"{{{SAML}}}Issuer").text = issuer
    if signing is not None:
        # Its place is fixed, between Issuer and Status (SAML 2.0 core 3.2.2).
        etree.SubElement(root, f"{{{DS}}}Signature", {"Id": "placeholder"}, nsmap={"ds": DS})
    status = etree.SubElement(root, f"{{{SAMLP}}}Status")
    etree.SubElement(status, f"{{{SAMLP}}}StatusCode", {"Value": SUCCESS})
    if signing is not None:
        from dicom_secure_node.identity import saml_signature

        root = saml_signature.sign(root, signing)
    return etree.tostring(root, encoding="utf-8")


def outgoing_claim(document: bytes, *, response_requested: bool = True) -> Claim:
    """Return the claim that sends an assertion, or a Response with one, as it is in a file.

    Raises
    ------
    ConfigurationError
        It is neither, or too large to be sent.
    """
    if len(document) > MAX_OUTGOING:
        raise ConfigurationError(
            f"found a SAML document of {len(document)} bytes, wanted at most {MAX_OUTGOING}"
        )
    try:
        _assertion_id(document)
    except IdentityRefused as exc:
        raise ConfigurationError(exc.reason) from None
    return Claim(IdentityType.SAML, document, response_requested=response_requested)


def check_answer(
    claim: Claim,
    response: bytes,
    certificates: Sequence[x509.Certificate] = (),
    *,
    now: datetime | None = None,
) -> None:
    """Check the Server-response to `claim`; to be called before any DIMSE message is sent.

    Parameters
    ----------
    claim : Claim
        From `outgoing_claim`.
    response : bytes
        Content of the sub-item 59H.
    certificates : sequence of x509.Certificate
        The acceptor's; given, the Response has to be signed by one of them.
    now : datetime, optional
        Aware; when the certificates have to be valid.

    Raises
    ------
    PeerRefused
        It does not say that this assertion was accepted.
    MissingExtra
        Certificates are given and signxml is not installed.
    """
    if response == claim.primary:
        # dcm4che's default negotiator does that (its issue 767).
        raise PeerRefused("SAML: the peer sent our assertion back, which proves nothing")
    try:
        root = read_document(response)
        if root.tag != RESPONSE:
            raise PeerRefused(f"SAML: the peer answered {name_of(root)}, wanted samlp:Response")
        if certificates:
            root = _signed(root, certificates, now or utc_now())
        status, answered = status_of(root), root.get("InResponseTo")
        if answered != _assertion_id(claim.primary):
            raise PeerRefused(f"SAML: the peer answered another assertion, {shown(answered)}")
        if status != SUCCESS:
            raise PeerRefused(f"SAML: the peer's Response says {shown(status)}")
    except IdentityRefused as exc:
        raise PeerRefused(f"the peer's Response: {exc.reason}") from None


def _signed(root: Element, certificates: Sequence[x509.Certificate], now: datetime) -> Element:
    try:
        from dicom_secure_node.identity import saml_signature
    except ImportError as exc:
        raise MissingExtra("verifying a SAML Response", "saml") from exc
    saml_signature.silence()
    return saml_signature.signed_content(root, certificates, now)


def _assertion_id(document: bytes) -> str | None:
    root = read_document(document)
    return (only(root, ASSERTION) if root.tag == RESPONSE else root).get("ID")
