"""The tests' own certificates are as good, or as bad, as they say: openssl judges."""

from __future__ import annotations

from pathlib import Path

import pytest

from certs.make_test_pki import main
from tests.certs import ODD, Ca
from tests.pki.openssl import openssl, verify

# name of the certificate: what "openssl verify" says of it as a server named localhost
VERDICTS = {
    "node": "OK",
    "node-ec": "OK",
    "node-ec384": "OK",
    "client": "unsuitable certificate purpose",
    "expired": "certificate has expired",
    "not-yet-valid": "certificate is not yet valid",
    "self-signed": "self-signed certificate",
    "bad-signature": "certificate signature failure",
    "wrong-usage": "unsuitable certificate purpose",
    "client-only": "unsuitable certificate purpose",
    "server-only": "OK",
    "wrong-name": "hostname mismatch",
    "no-name": "hostname mismatch",
    "weak-key": "EE certificate key too weak",
    "sha1": "CA signature digest algorithm too weak",
    "wrong-key": "OK",
    "encrypted-key": "OK",
    "revoked": "certificate revoked",
    "below-intermediate": "OK",
    "issuer-is-no-ca": "invalid CA certificate",
    "unknown-issuer": "unable to get local issuer certificate",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder `certs/make_test_pki.py` writes."""
    made = tmp_path_factory.mktemp("certs")
    assert main([str(made)]) == 0
    return made


def test_every_certificate_has_a_verdict(folder: Path) -> None:
    authorities = {"ca", "intermediate", "other-ca"}
    assert {path.stem for path in folder.glob("*.crt")} - authorities == set(VERDICTS)
    assert set(ODD) < set(VERDICTS)


@pytest.mark.parametrize("name", VERDICTS)
def test_openssl_says_of(name: str, folder: Path) -> None:
    more: list[str | Path] = ["-verify_hostname", "localhost", "-auth_level", "2"]
    if name == "revoked":
        more += ["-crl_check", "-CRLfile", folder / "ca.crl"]
    assert verify(folder / f"{name}.crt", folder / "ca.crt", *more) == VERDICTS[name]


CRLS = {
    "both lists are there": (("ca.crl", "intermediate.crl"), "OK"),
    "the intermediate's is missing": (("ca.crl",), "unable to get certificate CRL"),
    "another authority's is there": (("other-ca.crl",), "unable to get certificate CRL"),
    "the root's is out of date": (("ca-out-of-date.crl", "intermediate.crl"), "CRL has expired"),
}


@pytest.mark.parametrize("case", CRLS)
def test_openssl_checks_the_chain_when(case: str, folder: Path) -> None:
    names, wanted = CRLS[case]
    more: list[str | Path] = ["-crl_check_all"]
    for name in names:
        more += ["-CRLfile", folder / name]
    assert verify(folder / "below-intermediate.crt", folder / "ca.crt", *more) == wanted


def test_an_expired_authority_spoils_its_leaves(tmp_path: Path) -> None:
    ca = Ca(expired=True)
    leaf = ca.write(tmp_path, "leaf")
    assert verify(leaf.crt, ca.anchor(tmp_path / "ca.crt")) == "certificate has expired"


def test_keys_are_readable_by_nobody_else(folder: Path) -> None:
    assert {path.stat().st_mode & 0o777 for path in folder.glob("*.key")} == {0o600}


def test_the_encrypted_key_opens_with_its_passphrase_only(folder: Path) -> None:
    key = folder / "encrypted-key.key"
    assert openssl("pkey", "-in", key, "-passin", "pass:correct horse").returncode == 0
    assert openssl("pkey", "-in", key, "-passin", "pass:wrong").returncode != 0
