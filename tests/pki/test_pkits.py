"""NIST's Public Key Interoperability Test Suite, as shipped in cryptography's vectors.

The name of an end entity's certificate says what is expected of it. All lists of the suite are in
one store, and all authorities among the intermediates: harder than the suite asks for.
"""

from __future__ import annotations

import re
import warnings
from datetime import UTC, datetime
from pathlib import Path

import cryptography_vectors
import pytest
from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning

from dicom_secure_node.pki.paths import PathValidator
from dicom_secure_node.pki.trust import TrustStore
from dicom_secure_node.spec.path_validation import PKITS

FOLDER = Path(cryptography_vectors.__path__[0]) / "x509" / "PKITS_data"
DOCS = Path(__file__).parents[2] / "docs"
AT = datetime(2015, 6, 1, tzinfo=UTC)

# First match counts.
SECTIONS = {
    "4.5": "BasicSelfIssued",
    "4.6": "pathLen|basicConstraints|cAFalse",
    "4.7": "keyUsage",
    "4.9": "requireExplicitPolicy",
    "4.11": "inhibitPolicyMapping",
    "4.12": "inhibitAnyPolicy",
    "4.10": "PolicyMapping|anyPolicyTest[78]EE",
    "4.13": "nameConstraints",
    "4.14": "[dD]istributionPoint|onlyContains|onlySomeReasons|indirectCRL|cRLIssuer",
    "4.15": "deltaCRL",
    "4.16": "CriticalCertificateExtension",
    "4.4": "MissingCRL|Revoked|CRLSignature|CRLIssuerName|WrongCRL|TwoCRLs|UnknownCRL|nextUpdate"
    "|SerialNumber|CRLKeys",
    "4.1": "CertificatePath|Signature|DSA",
    "4.2": "notBefore|notAfter",
    "4.3": "NameChaining|NameUIDs|RFC3280|UTF8String",
    "4.8": "Polic|Qualifier",
}
TESTS = {
    "4.1": 6, "4.2": 8, "4.3": 11, "4.4": 21, "4.5": 8, "4.6": 17, "4.7": 5, "4.8": 20, "4.9": 8,
    "4.10": 14, "4.11": 11, "4.12": 10, "4.13": 38, "4.14": 35, "4.15": 10, "4.16": 2,
}  # fmt: skip
NOT_CLAIMED = {
    "ValidDSASignaturesTest4",
    "ValidDSAParameterInheritanceTest5",
    "inhibitAnyPolicyTest3",
}


def section(name: str) -> str:
    """Return the number of the section a test belongs to."""
    return next(number for number, pattern in SECTIONS.items() if re.search(pattern, name))


NAMES = sorted(path.stem for path in (FOLDER / "certs").glob("*EE.crt"))
CLAIMED = [
    name
    for name in (name.removesuffix("EE") for name in NAMES)
    if name not in NOT_CLAIMED
    and next(row for row in PKITS if row.number == section(name + "EE")).claimed != "no"
]


def load(name: str) -> x509.Certificate:
    """Return a certificate of the suite."""
    with warnings.catch_warnings():  # about negative serial numbers, which test 4.4.14 is about
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return x509.load_der_x509_certificate((FOLDER / "certs" / f"{name}.crt").read_bytes())


@pytest.fixture(scope="module")
def validator() -> PathValidator:
    root = load("TrustAnchorRootCertificate")
    unreadable = "DSAParametersInheritedCACert"  # test 4.1.5
    authorities = [
        load(path.stem)
        for path in sorted((FOLDER / "certs").glob("*.crt"))
        if not path.stem.endswith("EE") and path.stem != unreadable
    ]
    crls = [
        x509.load_der_x509_crl(path.read_bytes()) for path in sorted((FOLDER / "crls").glob("*"))
    ]
    trust = TrustStore((root,), tuple(crls), check_revocation=True)
    return PathValidator(trust, intermediates=[c for c in authorities if c != root])


@pytest.mark.parametrize("name", CLAIMED)
def test_a_certificate_is_judged_as_nist_expects(name: str, validator: PathValidator) -> None:
    assert re.match("Valid|Invalid", name)
    verdict = validator.check(load(f"{name}EE"), AT)
    assert (verdict.trusted, bool(verdict.reason)) == (name[0] == "V", name[0] != "V"), verdict
    if verdict.trusted:
        assert verdict.revocation == "good"
        assert verdict.chain[-1] == load("TrustAnchorRootCertificate")


def test_dsa_with_sha1_is_refused_as_weak(validator: PathValidator) -> None:
    verdict = validator.check(load("ValidDSASignaturesTest4EE"), AT)
    assert verdict.reason.startswith("weak algorithm")


def test_every_test_belongs_to_a_section() -> None:
    # Test 4.8.1 and others have no certificate of their own.
    counted = {number: sum(section(name) == number for name in NAMES) for number in SECTIONS}
    assert {
        number: TESTS[number] - count for number, count in counted.items() if count != TESTS[number]
    } == {"4.8": 1}


def test_the_page_shows_the_table() -> None:
    page = (DOCS / "path-validation.md").read_text(encoding="utf-8")
    rows = [f"| {row.number} | {row.title} | {row.claimed} | {row.note} |" for row in PKITS]
    assert [line for line in page.splitlines() if line.startswith("| 4.")] == rows
