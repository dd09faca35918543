"""The signature of a SAML document: over all of it, by a key we already had.

The rules are those of SAML 2.0 core 5.4, and none may be left to the signature's own word:

1. One ``ds:Signature`` is a child of the document element. Elsewhere there is none, but for
   the assertion's own within a signed Response, which is then merely signed text.
2. It has the shape of core 5.4 and nothing else: one reference, to the ID of the document
   element; enveloped-signature and then at most a canonicalisation as transforms; no
   ``ds:Object``. This alone ends every known wrapping attack and mischief with XPath and XSLT.
3. RSA, RSA-PSS or ECDSA with SHA-256, SHA-384 or SHA-512. Never HMAC, never SHA-1.
4. The key is that of a certificate we were given beforehand, valid now. ``ds:KeyInfo`` is not
   looked at.
5. What comes back is read from the octets that were digested, and it is the document element.
   Nobody reads anything else afterwards.

This is the one module that needs signxml.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from lxml import etree
from signxml.algorithms import CanonicalizationMethod, DigestAlgorithm, SignatureMethod
from signxml.exceptions import InvalidDigest, InvalidSignature
from signxml.signer import XMLSigner
from signxml.verifier import SignatureConfiguration, XMLVerifier

from dicom_secure_node.identity.saml_xml import (
    DS,
    RESPONSE,
    Element,
    hardened_parser,
    name_of,
    only,
    refusal,
    shown,
)
from dicom_secure_node.pki.credential import Credential

_ENVELOPED = f"{DS}enveloped-signature"
# Exclusive is what SAML recommends (core 5.4.3). Over a whole document the others say the same, and
# with comments or without is all one: a document with comments does not get this far.
_CANONICAL = frozenset(method.value for method in CanonicalizationMethod)
_METHODS = frozenset(
    {
        SignatureMethod.RSA_SHA256,
        SignatureMethod.RSA_SHA384,
        SignatureMethod.RSA_SHA512,
        SignatureMethod.SHA256_RSA_MGF1,
        SignatureMethod.SHA384_RSA_MGF1,
        SignatureMethod.SHA512_RSA_MGF1,
        SignatureMethod.ECDSA_SHA256,
        SignatureMethod.ECDSA_SHA384,
        SignatureMethod.ECDSA_SHA512,
    }
)
_DIGESTS = frozenset({DigestAlgorithm.SHA256, DigestAlgorithm.SHA384, DigestAlgorithm.SHA512})

_SIGNATURE = f"{{{DS}}}Signature"
_SHAPES = {
    # element: its children in order; KeyInfo may be absent
    "Signature": ("SignedInfo", "SignatureValue", "KeyInfo"),
    "SignedInfo": ("CanonicalizationMethod", "SignatureMethod", "Reference"),
    "Reference": ("Transforms", "DigestMethod", "DigestValue"),
}


def silence() -> None:
    """Keep signxml from writing whole assertions into the log, which it does at DEBUG."""
    logging.getLogger("signxml.processor").setLevel(logging.INFO)


def signed_content(
    root: Element, certificates: Sequence[x509.Certificate], now: datetime
) -> Element:
    """Return the document element `root` as it was signed.

    Parameters
    ----------
    root : Element
        From `saml_xml.read_document`.
    certificates : sequence of x509.Certificate
        Those of the issuer; one of their keys has to be the signer's.
    now : datetime
        Aware; the certificate has to be valid then.

    Raises
    ------
    IdentityRefused
        It is not signed, or not so.
    """
    # (1)
    signature = _own_signature(root)
    # (2), (3)
    _check_shape(signature, root)
    # (4)
    usable = [one for one in certificates if _is_valid(one, now)]
    if not usable:
        raise refusal("no certificate we have of the issuer is valid today")
    refused = refusal("the signature is not by the issuer's key")
    for certificate in (one for one in usable if _fits(one, signature)):
        try:
            return _verified(root, certificate, now)
        except InvalidDigest:
            refused = refusal("the signed content was changed")
        except InvalidSignature:
            continue  # the issuer's other key may be the one
    raise refused


def _is_valid(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _fits(certificate: x509.Certificate, signature: Element) -> bool:
    """Tell whether the key is of the kind the signature's algorithm is for."""
    method = SignatureMethod(signature[0][1].get("Algorithm"))
    is_ec = isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    return is_ec == method.name.startswith("ECDSA")


def _own_signature(root: Element) -> Element:
    everywhere = list(root.iter(_SIGNATURE))
    own = root.findall(_SIGNATURE)
    if not own:
        if everywhere and root.tag == RESPONSE:
            raise refusal("the Response itself is not signed, only something in it")
        raise refusal(f"{name_of(root)} is not signed")
    inner = root.findall(f"*/{_SIGNATURE}") if root.tag == RESPONSE else []
    if len(own) != 1 or len(inner) > 1 or len(everywhere) != 1 + len(inner):
        raise refusal("more than the signature of the document element is there")
    return own[0]


def _check_shape(signature: Element, root: Element) -> None:
    info = only(signature, f"{{{DS}}}SignedInfo")
    reference = only(info, f"{{{DS}}}Reference")
    for element in (signature, info, reference):
        name = etree.QName(element).localname
        found = tuple(child.tag for child in element)
        wanted = tuple(f"{{{DS}}}{child}" for child in _SHAPES[name])
        optional = wanted[:-1] if name == "Signature" else wanted
        if found not in (wanted, optional):
            raise refusal(f"ds:{name} holds other elements than SAML allows (core 5.4)")
    if reference.get("URI") != f"#{root.get('ID')}":
        raise refusal("the signature refers to something else than the document element")
    transforms = [child.get("Algorithm") for child in reference[0]]
    if transforms[:1] != [_ENVELOPED] or len(transforms) > 2 or not {*transforms[1:]} <= _CANONICAL:
        raise refusal("the signature transforms what it signs (SAML core 5.4.4)")
    if info[0].get("Algorithm") not in _CANONICAL:
        raise refusal(f"canonicalisation {shown(info[0].get('Algorithm'))} is not known")
    method, digest = info[1].get("Algorithm"), reference[1].get("Algorithm")
    if method not in {known.value for known in _METHODS} or len(info[1]):
        raise refusal(f"signature algorithm {shown(method)}, wanted RSA or ECDSA with SHA-256")
    if digest not in {known.value for known in _DIGESTS} or len(reference[1]):
        raise refusal(f"digest algorithm {shown(digest)}, wanted SHA-256, SHA-384 or SHA-512")


def _verified(root: Element, certificate: x509.Certificate, now: datetime) -> Element:
    """Return what `certificate`'s key signed; signxml's InvalidSignature passes."""
    configuration = SignatureConfiguration(
        require_x509=True,
        location="./",
        expect_references=1,
        signature_methods=_METHODS,
        digest_algorithms=_DIGESTS,
        ignore_ambiguous_key_info=True,  # (4): the key is ours, whatever KeyInfo says
        verification_time=now,
    )
    try:
        result = XMLVerifier().verify(
            root,
            x509_cert=certificate,
            id_attribute="ID",
            parser=hardened_parser(),
            expect_config=configuration,
        )
    except InvalidSignature:
        raise
    except Exception as exc:
        # Bad base64, a key of the other kind, a broken schema: all of it is the sender's doing,
        # and the words of the foreign exceptions quote the document.
        raise refusal(f"the signature cannot be processed ({type(exc).__name__})") from None
    # (5)
    assert not isinstance(result, list)
    signed = result.signed_xml
    if signed is None or signed.tag != root.tag or signed.get("ID") != root.get("ID"):
        raise refusal("the signature is over something else than the document element")
    return signed


def sign(root: Element, credential: Credential) -> Element:
    """Return a signed copy of `root`, which holds an empty ``ds:Signature Id="placeholder"``."""
    method = SignatureMethod.RSA_SHA256
    if credential.key_kind == "EC":
        method = SignatureMethod.ECDSA_SHA256
    signer = XMLSigner(
        signature_algorithm=method,
        digest_algorithm=DigestAlgorithm.SHA256,
        c14n_algorithm=CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0,
    )
    return signer.sign(
        root,
        key=credential.key,
        cert=[credential.certificate],
        reference_uri=f"#{root.get('ID')}",
        id_attribute="ID",
    )
