"""Trust stores: bundles, revocation lists, and the files that are neither."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from dicom_secure_node.errors import ConfigurationError, InvalidCertificate
from dicom_secure_node.pki.trust import load_trust
from tests.certs import Ca
from tests.pki.openssl import openssl


def test_bundles_are_joined_and_doubles_dropped(tmp_path: Path) -> None:
    first, second = Ca("First"), Ca("Second")
    bundle = tmp_path / "bundle.pem"
    pems = [ca.certificate.public_bytes(Encoding.PEM) for ca in (first, second)]
    bundle.write_bytes(b"# First\n" + pems[0] + b"\n# Second\n" + pems[1])
    der = tmp_path / "second.der"
    der.write_bytes(second.certificate.public_bytes(Encoding.DER))
    store = load_trust([bundle, der])
    assert store.anchors == (first.certificate, second.certificate)
    assert store.crls == ()
    assert not store.check_revocation


def test_naming_a_crl_asks_for_revocation_checks(tmp_path: Path) -> None:
    ca = Ca()
    lost = ca.write(tmp_path, "lost")
    pem = ca.crl(tmp_path / "ca.crl", revoked=[lost])
    der = tmp_path / "der.crl"
    assert openssl("crl", "-in", pem, "-outform", "DER", "-out", der).returncode == 0
    for path in (pem, der):
        store = load_trust([ca.anchor(tmp_path / "ca.crt")], [path])
        assert store.check_revocation
        serial = lost.certificate.serial_number
        assert store.crls[0].get_revoked_certificate_by_serial_number(serial) is not None


def test_the_list_of_an_intermediate_is_taken_as_it_is(tmp_path: Path) -> None:
    ca = Ca()
    crl = ca.intermediate().crl(tmp_path / "intermediate.crl")
    assert len(load_trust([ca.anchor(tmp_path / "ca.crt")], [crl]).crls) == 1


def test_a_list_that_its_issuer_did_not_sign_is_refused(tmp_path: Path) -> None:
    anchor = Ca("Same name").anchor(tmp_path / "ca.crt")
    crl = Ca("Same name").crl(tmp_path / "ca.crl")
    with pytest.raises(InvalidCertificate, match=r"that it did not sign.*RFC 5280 6\.3\.3"):
        load_trust([anchor], [crl])


def test_a_list_fits_one_of_two_anchors_of_one_name(tmp_path: Path) -> None:
    old, new = Ca("Renewed"), Ca("Renewed")
    anchors = [old.anchor(tmp_path / "old.crt"), new.anchor(tmp_path / "new.crt")]
    assert load_trust(anchors, [new.crl(tmp_path / "new.crl")]).check_revocation


def test_no_anchor_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigurationError, match="no trust anchor"):
        load_trust([])


WRONG_LISTS = {
    "nothing": (b"", "an empty file"),
    "garbage": (b"\x01\x02\x03", "bytes that are neither PEM nor DER"),
    "a list without its end": (b"-----BEGIN X509 CRL-----\nMIIB", "a PEM block without its end"),
    "a broken list": (
        b"-----BEGIN X509 CRL-----\nMIIB\n-----END X509 CRL-----\n",
        "a broken CRL",
    ),
}


@pytest.mark.parametrize("case", WRONG_LISTS)
def test_a_crl_file_with(case: str, tmp_path: Path) -> None:
    content, found = WRONG_LISTS[case]
    wrong = tmp_path / "wrong.crl"
    wrong.write_bytes(content)
    with pytest.raises(InvalidCertificate) as caught:
        load_trust([Ca().anchor(tmp_path / "ca.crt")], [wrong])
    assert (caught.value.found, caught.value.where) == (found, str(wrong))


def test_the_two_files_exchanged(tmp_path: Path) -> None:
    ca = Ca()
    anchor, crl = ca.anchor(tmp_path / "ca.crt"), ca.crl(tmp_path / "ca.crl")
    with pytest.raises(InvalidCertificate, match="found PEM of kind x509 crl"):
        load_trust([crl], [anchor])
    with pytest.raises(InvalidCertificate, match="found PEM of kind certificate"):
        load_trust([anchor], [anchor])
