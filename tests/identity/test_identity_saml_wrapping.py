"""B.7: no attack on the signature of an assertion makes us take one user for another."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from dicom_secure_node.errors import IdentityRefused
from dicom_secure_node.identity.claims import Claim, IdentityType, PeerFacts
from dicom_secure_node.identity.saml import SamlBackend
from dicom_secure_node.identity.saml_signature import signed_content
from dicom_secure_node.identity.saml_xml import read_document
from tests.certs import Ca
from tests.identity import wrapping
from tests.identity.saml_issuers import AUDIENCE, NOW, NS, SECRET, Mint, wrong_key

REFUSED = wrapping.WRAPPINGS | wrapping.SIGNATURES | wrapping.MARKUP


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wrapping")


@pytest.fixture(scope="module")
def ca() -> Ca:
    return Ca()


@pytest.fixture(scope="module")
def mint(ca: Ca, folder: Path) -> Mint:
    # A year, so that NOW is within it.
    start, end = NOW.replace(year=NOW.year - 1), NOW.replace(year=NOW.year + 1)
    made = Mint(ca.write(folder, "idp", key="rsa", start=start, end=end))
    backend(made)  # from here on signxml is quiet, also when it signs for the mint
    return made


def backend(mint: Mint) -> SamlBackend:
    return SamlBackend(AUDIENCE, [mint.issuer], clock=lambda: NOW)


def claim(document: bytes) -> Claim:
    return Claim(IdentityType.SAML, document)


def refused(document: bytes, mint: Mint) -> str:
    with pytest.raises(IdentityRefused) as no:
        backend(mint).verify(claim(document), PeerFacts())
    assert (no.value.result, no.value.source, no.value.diagnostic) == (1, 2, 1)
    assert SECRET not in repr(no.value)
    return no.value.reason


def test_the_genuine_documents_are_taken(mint: Mint) -> None:
    for document in (mint.assertion(), etree.tostring(mint.response())):
        assert backend(mint).verify(claim(document), PeerFacts()).user == "ada"


@pytest.mark.parametrize("attack", wrapping.WRAPPINGS)
def test_a_careless_receiver_falls_for(attack: str, mint: Mint) -> None:
    document = wrapping.WRAPPINGS[attack][0](mint)
    assert wrapping.naive_signature(document, mint)
    assert wrapping.VICTIM in wrapping.naive_users(document)


@pytest.mark.parametrize("attack", wrapping.WRAPPINGS)
def test_the_signature_rules_alone_suffice_against(attack: str, mint: Mint) -> None:
    root = read_document(wrapping.WRAPPINGS[attack][0](mint))
    with pytest.raises(IdentityRefused):
        signed_content(root, [mint.leaf.certificate], NOW)


def test_a_careless_receiver_falls_for_a_comment(mint: Mint) -> None:
    document = wrapping.MARKUP["a comment in the name"][0](mint)
    assert wrapping.naive_signature(document, mint)
    assert wrapping.VICTIM in wrapping.naive_users(document)


@pytest.mark.parametrize("attack", REFUSED)
def test_B7_refused(attack: str, mint: Mint, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    make, wanted = REFUSED[attack]
    reason = refused(make(mint), mint)
    assert re.search(wanted, reason), reason
    assert len(reason) < 400
    assert reason.isprintable()
    assert SECRET not in caplog.text
    assert "planted" not in reason


def test_B7_a_foreign_key_is_refused_whatever_key_info_says(
    mint: Mint, ca: Ca, folder: Path
) -> None:
    stranger = mint.with_(leaf=wrong_key(ca, folder), user=wrapping.VICTIM)
    assert "not by the issuer's key" in refused(stranger.assertion(), mint)
    # The same, with the certificate of the issuer in KeyInfo.
    theirs, ours = stranger.tree(), mint.tree()
    place, genuine = (one.find(".//ds:X509Certificate", NS) for one in (theirs, ours))
    assert place is not None
    assert genuine is not None
    place.text = genuine.text
    assert "not by the issuer's key" in refused(etree.tostring(theirs), mint)


def test_a_swapped_key_info_changes_nothing(mint: Mint, ca: Ca, folder: Path) -> None:
    genuine, other = mint.tree(), mint.with_(leaf=wrong_key(ca, folder)).tree()
    mine, theirs = (one.find(".//ds:KeyInfo", NS) for one in (genuine, other))
    assert mine is not None
    assert theirs is not None
    signature = mine.getparent()
    assert signature is not None
    signature.replace(mine, theirs)
    assert backend(mint).verify(claim(etree.tostring(genuine)), PeerFacts()).user == "ada"


def test_B7_a_key_of_another_kind_verifies_nothing(mint: Mint, ca: Ca) -> None:
    leaf = ca.write(mint.leaf.crt.parent, "ec", start=mint.leaf.certificate.not_valid_before_utc,
                    end=mint.leaf.certificate.not_valid_after_utc)  # fmt: skip
    other = SamlBackend(AUDIENCE, [mint.with_(leaf=leaf).issuer], clock=lambda: NOW)
    with pytest.raises(IdentityRefused, match="not by the issuer's key"):
        other.verify(claim(mint.assertion()), PeerFacts())


@given(data=st.data())
def test_no_changed_octet_makes_another_user(mint: Mint, data: st.DataObject) -> None:
    document = bytearray(mint.with_(number="_1").assertion())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(document) - 1))
        document[place] = data.draw(st.integers(0, 255))
    try:
        found = backend(mint).verify(claim(bytes(document)), PeerFacts())
    except IdentityRefused:
        return
    assert found.user == "ada"


@given(text=st.binary(max_size=200))
def test_any_octets_are_refused_and_nothing_breaks(text: bytes, mint: Mint) -> None:
    with pytest.raises(IdentityRefused):
        backend(mint).verify(claim(text), PeerFacts())
