"""A TimeStampToken taken apart: is it whole, and did the certificate in it sign it?

RFC 3161 2.4.2 puts a TSTInfo into CMS signed data (RFC 5652) of one signer, whose certificate is
bound in by a signed attribute (RFC 2634, RFC 5035). Whether that certificate is to be believed,
and whether the token is about the right data, is for `timestamps`.

The certificates may be in any order: RFC 5652 wants DER's, and many authorities (openssl among
them) do not keep to it. They are no part of what is signed.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from asn1crypto import cms, parser, tsp
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from pyhanko_certvalidator.sig_validate import (
    DEFAULT_SIGNATURE_VALIDATOR,
    SignatureValidationContext,
)

MAX_TOKEN = 64 * 1024
STRONG = frozenset({"sha256", "sha384", "sha512"})

_SEQUENCE = 0x30
_SET = 17
_GRANTED = ("granted", "granted_with_mods")


class BadToken(Exception):
    """The bytes are no token, or one that proves nothing. The text is fit for a report."""


@dataclass(frozen=True)
class Token:
    """What a token says, its signature having been checked.

    Attributes
    ----------
    der : bytes
        The ContentInfo, as it came.
    time : datetime
        genTime, UTC.
    policy : str
        Dotted.
    digest, imprint : str, bytes
        Of the data: name as in `hashlib`, and value.
    nonce : int or None
        As in the request.
    signer : x509.Certificate
        Whose key signed it; nobody says yet that it may.
    others : tuple of x509.Certificate
        What came along.
    """

    der: bytes
    time: datetime
    policy: str
    digest: str
    imprint: bytes
    nonce: int | None
    signer: x509.Certificate
    others: tuple[x509.Certificate, ...]

    def is_about(self, data: bytes) -> bool:
        """Return whether the imprint is that of `data`."""
        return hmac.compare_digest(hashlib.new(self.digest, data).digest(), self.imprint)


def read_token(content: bytes) -> Token:
    """Return the token in `content`, be it bare or in a TimeStampResp.

    Raises
    ------
    BadToken
        With the reason.
    """
    try:
        return _read(content)
    except BadToken:
        raise
    except Exception as exc:  # asn1crypto decodes when asked, and anything may come up
        raise BadToken(f"not a time stamp token ({type(exc).__name__})") from exc


def _unwrapped(content: bytes) -> bytes:
    """Return the token of a TimeStampResp, or of itself; DER, without a pad byte behind it.

    PS3.3 C.12.1.1.3.1.3 leaves open which of the two is stored; an OB value is of even length.

    Raises
    ------
    BadToken
        It is neither, too long, or a refusal.
    """
    if len(content) > MAX_TOKEN:
        raise BadToken(f"a token of {len(content)} bytes, at most {MAX_TOKEN} are looked at")
    try:
        end = parser.peek(content)
        if content[end:] not in (b"", b"\0"):
            raise BadToken("not a time stamp token: something stands behind it")
        inside = parser.parse(content[:end])[4]
        if inside[:1] != bytes([_SEQUENCE]):  # an OBJECT IDENTIFIER: the token itself
            return content[:end]
        status = tsp.PKIStatusInfo.load(inside[: parser.peek(inside)])
        refused = refusal(status)
        if refused:
            raise BadToken(f"no time stamp token: {refused}")
        token: bytes = inside[parser.peek(inside) :]
        return token
    except (ValueError, TypeError, IndexError) as exc:
        raise BadToken("not a time stamp token") from exc


def refusal(status: tsp.PKIStatusInfo) -> str:
    """Return why no token was granted, or nothing."""
    if status["status"].native in _GRANTED:
        return ""
    words = [str(status["status"].native), *sorted(status["fail_info"].native or ())]
    text = " ".join(status["status_string"].native or ())
    return ", ".join(words) + (f": {_printable(text)}" if text else "")


def _read(content: bytes) -> Token:
    der = _unwrapped(content)
    info = cms.ContentInfo.load(der, strict=True)
    if info["content_type"].native != "signed_data":
        raise BadToken("not a time stamp token: no signed data")
    signed = info["content"]
    if signed["encap_content_info"]["content_type"].native != "tst_info":
        raise BadToken("not a time stamp token: what is signed is no TSTInfo")
    stated = bytes(signed["encap_content_info"]["content"])
    if len(signed["signer_infos"]) != 1:
        raise BadToken(f"{len(signed['signer_infos'])} signers, wanted one (RFC 3161 2.4.2)")
    signer_info = signed["signer_infos"][0]
    certificates = [
        choice.chosen.dump()
        for choice in signed["certificates"] or ()
        if choice.name == "certificate"
    ]
    signer = _signer(signer_info, certificates)
    _check_signature(signer_info, signer, stated)
    others = tuple(x509.load_der_x509_certificate(one) for one in certificates if one != signer)
    content_of = tsp.TSTInfo.load(stated, strict=True)
    certificate = asn1_x509.Certificate.load(signer)
    return _token(der, content_of, certificate, x509.load_der_x509_certificate(signer), others)


def _token(
    der: bytes,
    stated: tsp.TSTInfo,
    decoded: asn1_x509.Certificate,
    signer: x509.Certificate,
    others: tuple[x509.Certificate, ...],
) -> Token:
    if stated["version"].native != "v1":
        raise BadToken(f"version {stated['version'].native}, wanted 1")
    for extension in stated["extensions"] or ():
        if extension["critical"].native:
            raise BadToken("a critical extension that nobody here knows")
    name = stated["tsa"]
    if name.native is not None and not _is_named(name, decoded):
        raise BadToken("it names another authority than its certificate does (RFC 3161 2.4.2)")
    digest = stated["message_imprint"]["hash_algorithm"]["algorithm"].native
    if digest not in STRONG:
        raise BadToken(f"weak imprint: {digest}")
    time = stated["gen_time"].native
    if time.tzinfo is None:
        raise BadToken("a local time, wanted UTC (RFC 3161 2.4.2)")
    return Token(
        der,
        time.astimezone(UTC),
        stated["policy"].dotted,
        digest,
        stated["message_imprint"]["hashed_message"].native,
        stated["nonce"].native,
        signer,
        others,
    )


def _is_named(name: asn1_x509.GeneralName, certificate: asn1_x509.Certificate) -> bool:
    if name.name == "directory_name" and name.chosen == certificate.subject:
        return True
    return name in (certificate.subject_alt_name_value or ())


def _signer(info: cms.SignerInfo, certificates: list[bytes]) -> bytes:
    """Return the certificate the signer is named by, and that its signed attribute binds."""
    for der in certificates:
        certificate = asn1_x509.Certificate.load(der)
        sid = info["sid"]
        if sid.name == "issuer_and_serial_number":
            number = sid.chosen["serial_number"].native
            same = (
                sid.chosen["issuer"] == certificate.issuer and number == certificate.serial_number
            )
        else:
            same = sid.native == certificate.key_identifier
        if same and _binds(info, der, certificate):
            return der
    raise BadToken("the certificate that its signed attribute names is not in it (RFC 2634 5.4)")


def _binds(info: cms.SignerInfo, der: bytes, certificate: asn1_x509.Certificate) -> bool:
    """Return whether the first ESSCertID, and ESSCertIDv2, are those of `certificate`."""
    attributes = _attributes(info)
    bound = [attributes[name] for name in _ESS if name in attributes]
    for attribute in bound:
        first = attribute["certs"][0]
        # SHA-1 in version 1 is all there is; the signature covers the identifier all the same.
        digest = "sha1"
        if isinstance(first, tsp.ESSCertIDv2):
            digest = first["hash_algorithm"]["algorithm"].native
            if digest not in STRONG:
                raise BadToken(f"weak certificate identifier: {digest}")
        if hashlib.new(digest, der).digest() != first["cert_hash"].native:
            return False
        issued = first["issuer_serial"]
        if issued.native is not None:
            names = [name.chosen for name in issued["issuer"] if name.name == "directory_name"]
            if names != [certificate.issuer]:
                return False
            if issued["serial_number"].native != certificate.serial_number:
                return False
    return bool(bound)


_ESS = ("signing_certificate", "signing_certificate_v2")


def _attributes(info: cms.SignerInfo) -> dict[str, Any]:
    """Return the single value of each signed attribute."""
    found: dict[str, Any] = {}
    for attribute in info["signed_attrs"] or ():
        name = attribute["type"].native
        if name in found or len(attribute["values"]) != 1:
            raise BadToken("a signed attribute that is there twice (RFC 5652 5.3)")
        found[name] = attribute["values"][0]
    return found


def _check_signature(info: cms.SignerInfo, signer: bytes, stated: bytes) -> None:
    """Raise `BadToken` unless `signer` signed the attributes, and they are about `stated`."""
    digest = info["digest_algorithm"]["algorithm"].native
    if digest not in STRONG:
        raise BadToken(f"weak signature: {digest}")
    attributes = _attributes(info)
    if not {"content_type", "message_digest"} <= attributes.keys():
        raise BadToken("no signed attributes (RFC 5652 5.3)")
    if attributes["content_type"].native != "tst_info":
        raise BadToken("bad signature: it is about content of another type")
    if hashlib.new(digest, stated).digest() != attributes["message_digest"].native:
        raise BadToken("bad signature: the content was changed")
    algorithm = info["signature_algorithm"]
    _check_digest(algorithm, digest)
    try:
        DEFAULT_SIGNATURE_VALIDATOR.validate_signature(
            signature=info["signature"].native,
            # RFC 5652 5.4: over the attributes as a SET OF, whatever their tag in the message.
            signed_data=parser.emit(0, 1, _SET, info["signed_attrs"].contents),
            public_key_info=asn1_x509.Certificate.load(signer).public_key,
            signature_algorithm=algorithm,
            context=SignatureValidationContext(contextual_md_algorithm=digest),
        )
    except Exception as exc:  # not only InvalidSignature: the key may be of another kind
        raise BadToken("bad signature") from exc


def _check_digest(algorithm: Any, digest: str) -> None:
    """Refuse another hash in the signature than the one said to be used."""
    try:
        used = algorithm.hash_algo
    except ValueError:
        return  # plain "rsaEncryption" and the like name none
    if algorithm.signature_algo not in ("ed25519", "ed448") and used != digest:
        raise BadToken(f"bad signature: {used} where {digest} is said")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:200])
