"""Tokens that are signed well and say what they must not: each check, taken alone.

They are made of a good one, changed, and signed again with the authority's own key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import algos, cms, core, parser, tsp
from asn1crypto import x509 as asn1_x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from dicom_secure_node.pki.paths import PathValidator
from dicom_secure_node.pki.timestamps import TimestampVerdict, check_token
from dicom_secure_node.pki.trust import TrustStore
from tests.certs import Ca
from tests.pki.stamping import Stamper

DATA = b"the octets of a signature"

Statement = dict[str, Any]
Attributes = dict[str, Any]


class Forge:
    """Signs whatever it is asked to."""

    def __init__(self, folder: Path) -> None:
        self.ca = Ca("Forge")
        self.leaf = self.ca.write(folder, "tsa", usage="time", key="rsa")
        self.good = Stamper(folder / "tsa", self.leaf).token(DATA)
        self.validator = PathValidator(TrustStore((self.ca.certificate,)))

    def judge(
        self,
        say: Callable[[Statement], None] = lambda statement: None,
        bind: Callable[[Attributes], None] = lambda attributes: None,
        sign: Callable[[cms.SignerInfo], None] = lambda info: None,
    ) -> TimestampVerdict:
        """Return the verdict about the good token with changes made before signing."""
        signed = cms.ContentInfo.load(self.good)["content"]
        old = signed["encap_content_info"]["content"].parsed
        statement = {name: old[name] for name in old if old[name].native is not None}
        say(statement)
        content = tsp.TSTInfo(statement).dump()
        signed["encap_content_info"]["content"] = cms.ParsableOctetString(content)
        info = signed["signer_infos"][0]
        attributes = {a["type"].native: a["values"][0] for a in info["signed_attrs"]}
        attributes["message_digest"] = hashlib.sha256(content).digest()
        bind(attributes)
        info["signed_attrs"] = cms.CMSAttributes(
            [cms.CMSAttribute({"type": name, "values": [v]}) for name, v in attributes.items()]
        )
        info["signature_algorithm"] = {"algorithm": "sha256_rsa"}
        sign(info)
        key = self.leaf.private_key
        assert isinstance(key, rsa.RSAPrivateKey)
        covered = parser.emit(0, 1, 17, info["signed_attrs"].contents)
        info["signature"] = key.sign(covered, padding.PKCS1v15(), hashes.SHA256())
        token = cms.ContentInfo({"content_type": "signed_data", "content": signed})
        return check_token(token.dump(force=True), DATA, self.validator)


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Forge:
    return Forge(tmp_path_factory.mktemp("forge"))


def test_unchanged_it_is_valid(forge: Forge) -> None:
    verdict = forge.judge()
    assert (verdict.valid, verdict.reason) == (True, "")


def _extension(critical: bool) -> tsp.Extensions:
    value = core.OctetString(b"\x05\x00")
    unknown = {"extn_id": "1.2.3.4", "critical": critical, "extn_value": value}
    return tsp.Extensions([tsp.Extension(unknown)])


def _directory(name: str) -> asn1_x509.GeneralName:
    return asn1_x509.GeneralName("directory_name", asn1_x509.Name.build({"common_name": name}))


STATEMENTS: dict[str, tuple[Statement, str]] = {
    "another version": ({"version": 2}, "version"),
    "a critical extension": ({"extensions": _extension(True)}, "a critical extension"),
    "an extension": ({"extensions": _extension(False)}, ""),
    "another authority": ({"tsa": _directory("another")}, "it names another authority"),
    "another digest of the same name": (
        {"message_imprint": {"hash_algorithm": {"algorithm": "sha256"}, "hashed_message": b""}},
        "the token is about other data",
    ),
    "an MD5": (
        {
            "message_imprint": {
                "hash_algorithm": {"algorithm": "md5"},
                "hashed_message": hashlib.md5(DATA).digest(),  # noqa: S324
            }
        },
        "weak imprint: md5",
    ),
}


@pytest.mark.parametrize(("change", "reason"), STATEMENTS.values(), ids=STATEMENTS)
def test_a_statement_with(change: Statement, reason: str, forge: Forge) -> None:
    verdict = forge.judge(say=lambda statement: statement.update(change))
    assert verdict.reason.startswith(reason)
    assert verdict.valid == (not reason), verdict


def test_a_statement_without_the_authority_s_name_is_fine(forge: Forge) -> None:
    assert forge.judge(say=lambda statement: statement.pop("tsa")).valid


def _identifier(forge: Forge, **change: Any) -> tsp.SigningCertificateV2:
    leaf = asn1_x509.Certificate.load(_der(forge))
    fields: dict[str, Any] = {
        "hash_algorithm": {"algorithm": "sha512"},
        "cert_hash": hashlib.sha512(_der(forge)).digest(),
        "issuer_serial": {
            "issuer": [asn1_x509.GeneralName("directory_name", leaf.issuer)],
            "serial_number": leaf.serial_number,
        },
    }
    return tsp.SigningCertificateV2({"certs": [fields | change]})


def _der(forge: Forge) -> bytes:
    return forge.leaf.certificate.public_bytes(Encoding.DER)


IDENTIFIERS: dict[str, tuple[dict[str, Any], str]] = {
    "one of SHA-512": ({}, ""),
    "one without issuer": ({"issuer_serial": None}, ""),
    "another hash": ({"cert_hash": bytes(64)}, "the certificate that"),
    "another number": (
        {"issuer_serial": {"issuer": [_directory("x")], "serial_number": 1}},
        "the certificate that",
    ),
    "a weak hash": (
        {"hash_algorithm": {"algorithm": "sha1"}, "cert_hash": bytes(20)},
        "weak certificate identifier",
    ),
}


@pytest.mark.parametrize(("change", "reason"), IDENTIFIERS.values(), ids=IDENTIFIERS)
def test_an_identifier_of_the_certificate(
    change: dict[str, Any], reason: str, forge: Forge
) -> None:
    kept = {name: value for name, value in change.items() if value is not None}
    made = _identifier(forge, **kept)
    if "issuer_serial" in change and change["issuer_serial"] is None:
        del made["certs"][0]["issuer_serial"]
    verdict = forge.judge(bind=lambda attributes: attributes.update(signing_certificate_v2=made))
    assert verdict.reason.startswith(reason)
    assert verdict.valid == (not reason), verdict


def test_both_identifiers_must_be_right(forge: Forge) -> None:
    wrong = tsp.SigningCertificate({"certs": [{"cert_hash": bytes(20)}]})
    verdict = forge.judge(bind=lambda attributes: attributes.update(signing_certificate=wrong))
    assert verdict.reason.startswith("the certificate that")


ATTRIBUTES: dict[str, tuple[Attributes, str]] = {
    "of another type of content": (
        {"content_type": cms.ContentType("data")},
        "bad signature: it is about content of another type",
    ),
    "about another content": ({"message_digest": bytes(32)}, "bad signature: the content"),
}


@pytest.mark.parametrize(("change", "reason"), ATTRIBUTES.values(), ids=ATTRIBUTES)
def test_attributes(change: Attributes, reason: str, forge: Forge) -> None:
    assert forge.judge(bind=lambda attributes: attributes.update(change)).reason.startswith(reason)


SIGNATURES: dict[str, tuple[dict[str, Any], str]] = {
    "an algorithm that names no hash": (
        {"signature_algorithm": {"algorithm": "rsassa_pkcs1v15"}},
        "",
    ),
    "another hash than said": (
        {"signature_algorithm": {"algorithm": "sha512_rsa"}},
        "bad signature: sha512 where sha256 is said",
    ),
    "an algorithm of another kind of key": (
        {"signature_algorithm": {"algorithm": "sha256_ecdsa"}},
        "bad signature",
    ),
    "a digest that is not strong": (
        {"digest_algorithm": algos.DigestAlgorithm({"algorithm": "sha224"})},
        "weak signature: sha224",
    ),
}


@pytest.mark.parametrize(("change", "reason"), SIGNATURES.values(), ids=SIGNATURES)
def test_a_signature_with(change: dict[str, Any], reason: str, forge: Forge) -> None:
    def sign(info: cms.SignerInfo) -> None:
        for name, value in change.items():
            info[name] = value

    verdict = forge.judge(sign=sign)
    assert verdict.reason.startswith(reason)
    assert verdict.valid == (not reason), verdict
