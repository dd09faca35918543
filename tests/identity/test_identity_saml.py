"""B.7: which assertions are taken, which are refused and why, and what is answered."""

from __future__ import annotations

import base64
import logging
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree
from pynetdicom import build_context, evt
from signxml.algorithms import CanonicalizationMethod, SignatureMethod

from dicom_secure_node.errors import ConfigurationError, IdentityRefused, PeerRefused
from dicom_secure_node.identity.claims import Claim, Identity, IdentityType, PeerFacts
from dicom_secure_node.identity.policy import Demand, IdentityPolicy
from dicom_secure_node.identity.replay import ReplayStore
from dicom_secure_node.identity.saml import Issuer, SamlBackend, load_issuer
from dicom_secure_node.identity.saml_response import (
    MAX_OUTGOING,
    answer,
    check_answer,
    outgoing_claim,
)
from dicom_secure_node.node.plugins.identity import IdentityPlugin
from dicom_secure_node.node.scu import associate
from dicom_secure_node.node.server import Listener
from dicom_secure_node.pki.credential import load_credential_base
from dicom_secure_node.pki.trust import load_trust
from dicom_secure_node.tls.context import ClientContext, ServerContext
from dicom_secure_node.tls.profiles import profile_named
from tests.certs import Ca, Leaf, now
from tests.identity.saml_issuers import (
    AUDIENCE,
    CONSUMER,
    DS,
    HOLDER,
    MINT,
    NOW,
    SECRET,
    Mint,
    SimpleSaml,
    cut_assertion,
    pysaml2_document,
    stamp,
)
from tests.identity.wrapping import resigned
from tests.loopback import CT_SMALL, Recorder, port_of, serving
from tests.parts import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("saml")


@pytest.fixture(scope="module")
def ca() -> Ca:
    return Ca()


@pytest.fixture(scope="module")
def leaf(ca: Ca, folder: Path) -> Leaf:
    start, end = NOW.replace(year=NOW.year - 1), NOW.replace(year=NOW.year + 1)
    return ca.write(folder, "idp", key="rsa", start=start, end=end)


@pytest.fixture(scope="module")
def mint(leaf: Leaf) -> Mint:
    made = Mint(leaf)
    backend(made)  # from here on signxml is quiet, also when it signs for the mint
    return made


def backend(mint: Mint, **options: Any) -> SamlBackend:
    return SamlBackend(AUDIENCE, [mint.issuer], clock=lambda: NOW, **options)


def verified(mint: Mint, document: bytes | None = None, **options: Any) -> Identity:
    document = mint.assertion() if document is None else document
    return backend(mint, **options).verify(Claim(IdentityType.SAML, document), PeerFacts())


def refused(mint: Mint, document: bytes | None = None, **options: Any) -> str:
    with pytest.raises(IdentityRefused) as no:
        verified(mint, document, **options)
    return no.value.reason


def later(seconds: float) -> str:
    return stamp(NOW + timedelta(seconds=seconds))


# -- what an assertion says --------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    # sentence: how the mint differs, what the refusal says
    "it has expired": (
        {"not_on_or_after": later(-121)},
        "the assertion expired at 2026-06-01T11:57:59Z",
    ),
    "it expires this very moment, skew and all": ({"not_on_or_after": later(-120)}, "expired"),
    "it is not valid yet": ({"not_before": later(121)}, "not valid before 2026-06-01T12:02:01Z"),
    "it has no end": ({"not_on_or_after": None}, "saml:Conditions has no NotOnOrAfter"),
    "its end is no time": ({"not_on_or_after": "tomorrow"}, "NotOnOrAfter is 'tomorrow'"),
    "its end is in no time zone": ({"not_on_or_after": "2026-06-01T12:05:00"}, "NotOnOrAfter is"),
    "its end is no day": ({"not_on_or_after": "2026-02-30T12:05:00Z"}, "NotOnOrAfter is"),
    "its end is beyond time": (
        {"not_on_or_after": "9999-12-31T23:59:59-14:00"},
        "NotOnOrAfter is",
    ),
    "it was issued in the future": ({"issued": NOW + timedelta(hours=1)}, "issued in the future"),
    "it is for another node": ({"audiences": [["dicom:PACS2"]]}, "is for 'dicom:PACS2', wanted"),
    "it is for nobody in particular": ({"audiences": []}, "for no audience"),
    "one of its restrictions leaves us out": (
        {"audiences": [[AUDIENCE], ["dicom:PACS2"]]},
        "is for 'dicom:PACS2'",
    ),
    "its restriction is empty": ({"audiences": [[]]}, "is for nobody"),
    "its audience only begins like ours": ({"audiences": [[AUDIENCE + "0"]]}, "is for 'dicom:PA"),
    "it has a condition nobody knows": (
        {"more_conditions": "<saml:Condition/>"},
        "unknown condition saml:Condition",
    ),
    "it is SAML 1.1": ({"version": "1.1"}, "version '1.1', wanted 2.0"),
    "it has no name": ({"name_id": ""}, "0 elements NameID"),
    "it has two names": (
        {"name_id": "<saml:NameID>ada</saml:NameID><saml:NameID>eve</saml:NameID>"},
        "2 elements NameID",
    ),
    "its name is empty": ({"user": ""}, "user name is empty"),
    "its name has a line break": ({"user": "ada\neve"}, "control character"),
    "its name turns the direction of writing": ({"user": "ada\u202eeve"}, "control character"),
    "its name is a novel": ({"user": "a" * 257}, "257 characters"),
    "its name is encrypted": ({"name_id": "<saml:EncryptedID/>"}, "EncryptedID: nothing encr"),
    "it has an encrypted attribute": (
        {"more_attributes": "<saml:EncryptedAttribute/>"},
        "saml:EncryptedAttribute",
    ),
    "it has no confirmation": ({"confirmations": ""}, "no SubjectConfirmation"),
    "it is confirmed by the sender": (
        {"method": "urn:oasis:names:tc:SAML:2.0:cm:sender-vouches"},
        "sender-vouches', wanted bearer",
    ),
    "its confirmation has no data": (
        {
            "confirmations": "<saml:SubjectConfirmation "
            'Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"/>'
        },
        "0 elements SubjectConfirmationData",
    ),
    "its confirmation has no end": ({"data": ""}, "SubjectConfirmationData has no NotOnOrAfter"),
    "its confirmation has expired": (
        {"data": f'NotOnOrAfter="{later(-120)}"'},
        "the subject confirmation expired",
    ),
    "its confirmation is not valid yet": (
        {"data": f'NotBefore="{later(121)}" NotOnOrAfter="{later(300)}"'},
        "subject confirmation is not valid yet",
    ),
    "it is for another recipient": (
        {"data": f'NotOnOrAfter="{later(300)}" Recipient="https://portal.test/acs"'},
        "the recipient is 'https://portal.test/acs'",
    ),
    "it is of a holder of a key, and no key was shown": ({"method": HOLDER}, "no certificate"),
    "the session at the issuer is over": (
        {"authentication": f'<saml:AuthnStatement SessionNotOnOrAfter="{later(-120)}"/>'},
        "the session at the issuer is over",
    ),
    "a group is no text": (
        {"attributes": {"groups": ["<b>radiology</b>"]}},
        "a group name cannot be used",
    ),
    "it has a thousand attributes": (
        {"attributes": {f"a{n}": ["x"] for n in range(100)}},
        "more than 64 attributes",
    ),
    "an attribute has a thousand values": (
        {"attributes": {"a": ["x"] * 1000}},
        "more than 512 values",
    ),
    "its ID is no identifier": ({"number": "1 2"}, "has no usable ID"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_B7_refused_when(case: str, mint: Mint, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    changes, wanted = REFUSED[case]
    reason = refused(mint.with_(**changes))
    assert wanted in reason
    assert reason.startswith("SAML: ")
    assert MINT in reason or "encrypted" in reason or "ID" in reason or "version" in reason
    assert SECRET not in reason + caplog.text


TAKEN: dict[str, dict[str, Any]] = {
    "as a browser profile has it": {},
    "within the skew at its end": {"not_on_or_after": later(-119)},
    "within the skew at its beginning": {"not_before": later(120)},
    "without a beginning": {"not_before": None},
    "with fractions of seconds": {"not_on_or_after": "2026-06-01T12:05:00.1234567Z"},
    "with a time written with an offset": {"not_on_or_after": "2026-06-01T14:05:00+02:00"},
    "for us among others": {"audiences": [["dicom:PACS2", AUDIENCE]]},
    "for us twice": {"audiences": [[AUDIENCE], [AUDIENCE, "dicom:PACS2"]]},
    "for one use": {"more_conditions": "<saml:OneTimeUse/>"},
    "with a proxy restriction": {"more_conditions": '<saml:ProxyRestriction Count="0"/>'},
    "without a recipient": {"data": f'NotOnOrAfter="{later(300)}"'},
    "in response to something": {"data": f'NotOnOrAfter="{later(300)}" InResponseTo="_x"'},
    "in a session": {"authentication": f'<saml:AuthnStatement SessionNotOnOrAfter="{later(9)}"/>'},
    "with a second confirmation that holds": {
        "confirmations": f'<saml:SubjectConfirmation Method="urn:x"/><saml:SubjectConfirmation '
        f'Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"><saml:SubjectConfirmationData '
        f'NotOnOrAfter="{later(300)}"/></saml:SubjectConfirmation>'
    },
    "with an attribute that is a tree": {"attributes": {"a": ["<b>x</b>"]}},
}


@pytest.mark.parametrize("case", TAKEN)
def test_B7_taken(case: str, mint: Mint) -> None:
    identity = verified(mint.with_(**TAKEN[case]))
    assert identity.user == "ada"
    assert identity.kind is IdentityType.SAML
    assert identity.proven
    assert identity.response == b""


@pytest.mark.parametrize("user", ["ada@hospital.test", "Ädä Lövelace", "a&b<c>", " ada "])
def test_the_name_is_taken_as_it_is(user: str, mint: Mint) -> None:
    assert verified(mint.with_(user=user)).user == user


def test_groups_and_attributes(mint: Mint) -> None:
    named = '<saml:Attribute Name="urn:oid:1" FriendlyName="groups"><saml:AttributeValue>' \
        "on call</saml:AttributeValue></saml:Attribute>"  # fmt: skip
    given = {"groups": ["radiology", "it"], "department": ["CT"], "issuer": ["somebody else"]}
    identity = verified(mint.with_(attributes=given, more_attributes=named))
    assert identity.groups == {"radiology", "it", "on call"}
    assert identity.attributes["groups"] == "radiology\nit"
    assert identity.attributes["department"] == "CT"
    assert identity.attributes["issuer"] == MINT  # ours, whatever the assertion says
    assert not verified(mint.with_(attributes=given), groups_attribute="roles").groups


# -- Responses, issuers, keys ------------------------------------------------------------------

RESPONSES: dict[str, tuple[dict[str, Any], str]] = {
    "not a success": (
        {"status": "urn:oasis:names:tc:SAML:2.0:status:Requester"},
        "Response says 'urn:oasis:names:tc:SAML:2.0:status:Requester'",
    ),
    "for another node": ({"destination": "https://portal.test/acs"}, "Response is for 'https"),
    "of an issuer nobody knows": ({"issuer": "https://other.test"}, "unknown issuer 'https://o"),
    "with an encrypted assertion": (
        {"more": '<saml:EncryptedAssertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"/>'},
        "saml:EncryptedAssertion",
    ),
}


@pytest.mark.parametrize("case", RESPONSES)
def test_B7_a_response_is_refused(case: str, mint: Mint) -> None:
    changes, wanted = RESPONSES[case]
    assert wanted in refused(mint, etree.tostring(mint.response(**changes)))


def test_B7_the_assertion_in_a_signed_response_may_be_signed_too(mint: Mint) -> None:
    assert verified(mint, etree.tostring(mint.response(mint.tree()))).user == "ada"


def test_B7_a_response_may_not_speak_for_another_issuer(mint: Mint) -> None:
    theirs = etree.fromstring(mint.with_(entity_id="https://other.test/idp").text())
    assert "is of issuer 'https://other.test/idp'" in refused(
        mint, etree.tostring(mint.response(theirs))
    )


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ("<a/>", "found 'a', wanted saml:Assertion"),
        ('<a xmlns="urn:oasis:names:tc:SAML:1.0:assertion"/>', "SAML:1.0:assertion}a'"),
        ('<p:AuthnRequest xmlns:p="urn:oasis:names:tc:SAML:2.0:protocol"/>', "samlp:AuthnReq"),
        (
            '<p:Response xmlns:p="urn:oasis:names:tc:SAML:2.0:protocol" Version="2.0"/>',
            "0 assertions",
        ),
    ],
)
def test_other_documents_are_refused(document: str, found: str, mint: Mint) -> None:
    assert found in refused(mint, document.encode())


def test_each_issuer_signs_for_itself_only(mint: Mint, ca: Ca, folder: Path) -> None:
    leaf = mint.leaf.certificate
    second = mint.with_(
        entity_id="https://second.test",
        leaf=ca.write(folder, "second", key="rsa", start=leaf.not_valid_before_utc,
                      end=leaf.not_valid_after_utc),
    )  # fmt: skip
    both = SamlBackend(AUDIENCE, [mint.issuer, second.issuer], clock=lambda: NOW)
    for issuer in (mint, second):
        identity = both.verify(Claim(IdentityType.SAML, issuer.assertion()), PeerFacts())
        assert identity.attributes["issuer"] == issuer.entity_id
    forged = second.with_(entity_id=mint.entity_id).assertion()
    with pytest.raises(IdentityRefused, match="not by the issuer's key"):
        both.verify(Claim(IdentityType.SAML, forged), PeerFacts())


@pytest.mark.parametrize("kind", ["ec", "ec384", "rsa3072"])
def test_keys_and_their_change(kind: Any, mint: Mint, ca: Ca, folder: Path) -> None:
    old = mint.leaf.certificate
    leaf = ca.write(folder, f"next-{kind}", key=kind, start=old.not_valid_before_utc,
                    end=old.not_valid_after_utc)  # fmt: skip
    method = SignatureMethod.ECDSA_SHA256 if "ec" in kind else SignatureMethod.SHA256_RSA_MGF1
    after = mint.with_(leaf=leaf, signature=method)
    bundle = folder / f"bundle-{kind}.pem"
    certificates = (old, leaf.certificate)
    bundle.write_bytes(b"".join(c.public_bytes(Encoding.PEM) for c in certificates))
    for issuer in (load_issuer(MINT, bundle), Issuer(MINT, certificates[::-1])):
        both = SamlBackend(AUDIENCE, [issuer], clock=lambda: NOW)
        for one in (mint, after):
            assert both.verify(Claim(IdentityType.SAML, one.assertion()), PeerFacts())


@pytest.mark.parametrize("method", CanonicalizationMethod, ids=lambda one: one.name)
def test_B7_every_canonicalisation(method: CanonicalizationMethod, mint: Mint) -> None:
    one = mint.with_(canonical=method, user="Ädä & co")
    assert verified(one).user == "Ädä & co"
    assert verified(one, etree.tostring(one.response())).user == "Ädä & co"


def test_B7_a_signature_without_a_canonicalisation_among_its_transforms(mint: Mint) -> None:
    # The default is Canonical XML, which of this assertion is the same as the exclusive form.
    document = resigned(mint, mint.tree(), lambda s: s[0][2][0].remove(s[0][2][0][1]))
    assert verified(mint, document).user == "ada"


def test_a_certificate_of_the_issuer_that_has_expired(mint: Mint, ca: Ca, folder: Path) -> None:
    old = mint.with_(leaf=ca.write(folder, "old", key="rsa", expired=True))
    assert "no certificate we have of the issuer is valid" in refused(old)


def test_what_cannot_be_configured(mint: Mint, ca: Ca, folder: Path) -> None:
    weak = ca.write(folder, "weak", key="rsa1024")
    with pytest.raises(ConfigurationError, match="RSA key of 2048 bits"):
        load_issuer(MINT, weak.crt)
    for issuer in (lambda: Issuer("", (mint.leaf.certificate,)), lambda: Issuer(MINT, ())):
        with pytest.raises(ConfigurationError, match="needs an entity_id and a certificate"):
            issuer()
    with pytest.raises(ConfigurationError, match="audience and at least one issuer"):
        SamlBackend("", [mint.issuer])
    with pytest.raises(ConfigurationError, match="audience and at least one issuer"):
        SamlBackend(AUDIENCE, [])
    with pytest.raises(ConfigurationError, match="same entity_id"):
        SamlBackend(AUDIENCE, [mint.issuer, mint.issuer])


def test_without_signxml_the_error_names_the_extra(mint: Mint) -> None:
    program = (
        "import sys; sys.modules['signxml'] = None\n"
        "from pathlib import Path\n"
        "from dicom_secure_node.errors import MissingExtra\n"
        "from dicom_secure_node.identity.saml import SamlBackend, load_issuer\n"
        "try: SamlBackend('x', [load_issuer('y', Path(sys.argv[1]))])\n"
        "except MissingExtra as exc: print(exc)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, mint.leaf.crt],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert "dicom-secure-node[saml]" in done.stdout


# -- once --------------------------------------------------------------------------------------


def test_B7_an_assertion_is_used_once(mint: Mint, tmp_path: Path) -> None:
    document = Claim(IdentityType.SAML, mint.with_(number="_once").assertion())
    for attempt in range(3):  # each a restart of the node
        store = ReplayStore(tmp_path / "used", clock=lambda: NOW)
        verifying = backend(mint, used=store)
        if attempt == 0:
            assert verifying.verify(document, PeerFacts()).user == "ada"
        with pytest.raises(IdentityRefused, match="user 'ada': the assertion was used before"):
            verifying.verify(document, PeerFacts())
        verifying.close()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "used").iterdir())
    assert b"_once" not in kept


def test_B7_the_same_assertion_in_another_dress_is_the_same(mint: Mint) -> None:
    assertion = mint.tree()
    verifying = backend(mint)
    bare = Claim(IdentityType.SAML, etree.tostring(assertion))
    dressed = Claim(IdentityType.SAML, etree.tostring(mint.response(assertion)))
    verifying.verify(bare, PeerFacts())
    with pytest.raises(IdentityRefused, match="used before"):
        verifying.verify(dressed, PeerFacts())


def test_B7_a_refused_assertion_is_not_used_up(mint: Mint) -> None:
    moment = [NOW - timedelta(hours=1)]
    verifying = SamlBackend(AUDIENCE, [mint.issuer], clock=lambda: moment[0])
    document = Claim(IdentityType.SAML, mint.assertion())
    with pytest.raises(IdentityRefused, match="in the future"):
        verifying.verify(document, PeerFacts())
    moment[0] = NOW
    assert verifying.verify(document, PeerFacts()).user == "ada"


def test_B7_of_many_at_a_time_one_gets_in(mint: Mint, tmp_path: Path) -> None:
    document = Claim(IdentityType.SAML, mint.assertion())
    verifying = backend(mint, used=ReplayStore(tmp_path, clock=lambda: NOW))
    outcomes: queue.Queue[str] = queue.Queue()
    start = threading.Barrier(8)

    def knock() -> None:
        start.wait(20)
        try:
            outcomes.put(verifying.verify(document, PeerFacts()).user)
        except IdentityRefused as exc:
            outcomes.put(exc.reason)

    threads = [threading.Thread(target=knock) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    verifying.close()
    found = [outcomes.get(timeout=1) for _ in threads]
    assert found.count("ada") == 1
    assert sum("used before" in one for one in found) == 7


# -- holder of key -----------------------------------------------------------------------------


def _key_info(*certificates: bytes) -> str:
    data = "".join(
        f"<ds:X509Certificate>{base64.b64encode(one).decode()}</ds:X509Certificate>"
        for one in certificates
    )
    return f'<ds:KeyInfo xmlns:ds="{DS}"><ds:X509Data>{data}</ds:X509Data></ds:KeyInfo>'


def test_B7_holder_of_key_is_bound_to_the_tls_certificate(mint: Mint, ca: Ca, folder: Path) -> None:
    holder, other = (ca.write(folder, name).certificate for name in ("holder", "other"))
    info = _key_info(b"nonsense", holder.public_bytes(Encoding.DER))
    bound = mint.with_(method=HOLDER, data_content=info)
    for certificate, wanted in ((holder, ""), (other, "not of the key"), (None, "no certificate")):
        claim = Claim(IdentityType.SAML, bound.assertion())
        peer = PeerFacts(certificate=certificate, protected=True)
        if not wanted:
            assert backend(mint).verify(claim, peer).user == "ada"
            continue
        with pytest.raises(IdentityRefused, match=wanted):
            backend(mint).verify(claim, peer)


# -- the answer --------------------------------------------------------------------------------


def _answered(mint: Mint, **options: Any) -> tuple[Claim, bytes]:
    claim = outgoing_claim(mint.assertion())
    return claim, backend(mint, **options).verify(claim, PeerFacts()).response


def test_B7_the_answer_is_a_response_to_the_assertion(mint: Mint) -> None:
    claim, response = _answered(mint)
    root = etree.fromstring(response)
    assert root.get("InResponseTo") == etree.fromstring(claim.primary).get("ID")
    assert root.get("Version") == "2.0"
    assert root.get("IssueInstant") == stamp(NOW)
    assert [etree.QName(child).localname for child in root] == ["Issuer", "Status"]
    assert SECRET.encode() not in response
    check_answer(claim, response)


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_B7_a_signed_answer(kind: Any, mint: Mint, ca: Ca, folder: Path) -> None:
    own = ca.write(folder, f"node-{kind}", key=kind)
    other = ca.write(folder, f"stranger-{kind}", key=kind)
    claim, response = _answered(mint, signing=load_credential_base(own.base))
    root = etree.fromstring(response)
    assert [etree.QName(child).localname for child in root] == ["Issuer", "Signature", "Status"]
    check_answer(claim, response, [own.certificate])
    with pytest.raises(PeerRefused, match="not by the issuer's key"):
        check_answer(claim, response, [other.certificate])
    with pytest.raises(PeerRefused, match="is not signed"):
        check_answer(claim, _answered(mint)[1], [own.certificate])
    element = "urn:oasis:names:tc:SAML:2.0:protocol:Response"
    trusted = ["--trusted-pem", ca.anchor(folder / "ca.crt"), "--enabled-key-data", "x509"]
    judge = run(
        ["/usr/bin/xmlsec1", "--verify", "--id-attr:ID", element, *trusted, "/dev/stdin"],
        stdin=response,
    )
    assert "OK" in judge.stderr, judge.stderr


def test_B7_answers_that_prove_nothing(mint: Mint) -> None:
    claim = outgoing_claim(mint.assertion())
    number = str(etree.fromstring(claim.primary).get("ID"))
    good = answer(number, AUDIENCE, NOW)
    bad = {
        "nothing": (b"", "found nothing"),
        "sent our assertion back": (claim.primary, "sent our assertion back"),
        "another assertion, '_other'": (answer("_other", AUDIENCE, NOW), "answered another"),
        "no Response": (mint.assertion(), "answered saml:Assertion"),
        "a failure": (good.replace(b":Success", b":Responder"), "status:Responder'"),
        "a DOCTYPE": (b"<!DOCTYPE x>" + good, "found a DOCTYPE"),
    }
    for response, wanted in bad.values():
        with pytest.raises(PeerRefused, match=wanted) as no:
            check_answer(claim, response)
        assert SECRET not in str(no.value)


def test_what_cannot_be_sent(mint: Mint) -> None:
    large = mint.with_(attributes={"x": ["y" * MAX_OUTGOING]}).assertion()
    for document, wanted in (
        (large, "wanted at most 65000"),
        (b"", "found nothing"),
        (base64.b64encode(mint.assertion()), "base64"),
    ):
        with pytest.raises(ConfigurationError, match=wanted):
            outgoing_claim(document)


# -- real issuers, real peers ------------------------------------------------------------------


@contextmanager
def node(verifying: SamlBackend, leaf: Leaf, anchor: Path) -> Iterator[tuple[int, Recorder]]:
    """Run a node that requires an identity, over TLS; yield its port and what it noted."""
    policy = IdentityPolicy(Demand.of("required", [IdentityType.SAML]))
    context = ServerContext(
        profile_named("8996"), [load_credential_base(leaf.base)], load_trust([anchor])
    )
    recorder = Recorder()
    gate = IdentityPlugin({"tls": policy}, [verifying])
    listener = Listener("tls", lambda: context)
    with serving([gate, recorder], application={evt.EVT_C_STORE: lambda event: 0},
                 listener=listener) as started:  # fmt: skip
        yield port_of(started), recorder


@pytest.fixture(scope="module")
def peers(ca: Ca, folder: Path) -> tuple[Leaf, Leaf, Path]:
    return (
        ca.write(folder, "server", key="rsa"),
        ca.write(folder, "client", key="rsa"),
        ca.anchor(folder / "ca.crt"),
    )


def storescu(port: int, peers: tuple[Leaf, Leaf, Path], assertion: Path, *options: str) -> str:
    """Send an instance with an assertion; return what storescu said, "" where it succeeded."""
    _, client, anchor = peers
    done = run(
        ["storescu", "-v", "+tls", client.key, client.crt, "+cf", anchor, "--saml", assertion,
         *options, "127.0.0.1", str(port), CT_SMALL]
    )  # fmt: skip
    return "" if done.returncode == 0 else done.stdout + done.stderr


def _end_to_end(
    document: bytes, issuer: Issuer, peers: tuple[Leaf, Leaf, Path], path: Path
) -> None:
    path.write_bytes(document)
    server, _, anchor = peers
    verifying = SamlBackend(AUDIENCE, [issuer], recipients=[CONSUMER])
    with node(verifying, server, anchor) as (port, seen):
        assert storescu(port, peers, path, "-rsp") == ""
        (accepted,) = seen.wait_for("on_association_accepted")
        assert accepted.identity.user == "ada"
        assert accepted.identity.groups == {"radiology", "on call"}
        assert accepted.respond
        check_answer(outgoing_claim(document), accepted.respond)
        # Once more, the same assertion: PS3.7 D.3.3.7.3.
        assert "Rejected Permanent" in storescu(port, peers, path, "-rsp")
        _, error = seen.wait_for("on_association_refused")
        assert "user 'ada': the assertion was used before" in error.reason


@pytest.mark.parametrize("sign", ["assertion", "response"])
def test_B7_pysaml2_to_storescu(
    sign: str, ca: Ca, peers: tuple[Leaf, Leaf, Path], tmp_path: Path
) -> None:
    issuer, document = pysaml2_document(ca.write(tmp_path, "pysaml2", key="rsa"), "ada", sign=sign)
    _end_to_end(document, issuer, peers, tmp_path / "saml.xml")


@pytest.mark.parametrize("sign", ["assertion", "response", "both"])
def test_B7_simplesamlphp_to_storescu(
    sign: str, ca: Ca, peers: tuple[Leaf, Leaf, Path], tmp_path: Path
) -> None:
    with SimpleSaml(tmp_path / "ssp", ca.write(tmp_path, "ssp", key="rsa"), sign) as idp:
        document = idp.response()
    if sign == "assertion":
        document = cut_assertion(document)
    _end_to_end(document, idp.issuer, peers, tmp_path / "saml.xml")


def test_B7_refused_on_the_wire_with_its_own_reason(
    ca: Ca, peers: tuple[Leaf, Leaf, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    mint = Mint(ca.write(tmp_path, "idp", key="rsa"), now=now())
    path = tmp_path / "saml.xml"
    cases = {
        "is for 'dicom:PACS2'": mint.with_(audiences=[["dicom:PACS2"]]).assertion(),
        "is not signed": mint.text().encode(),
        "found a comment": mint.assertion().replace(b">ada<", b">a<!---->da<"),
        "Response itself is not signed": etree.tostring(mint.response(mint.tree(), signed=False)),
    }
    server, _, anchor = peers
    with node(SamlBackend(AUDIENCE, [mint.issuer]), server, anchor) as (port, seen):
        for wanted, document in cases.items():
            path.write_bytes(document)
            assert "Rejected Permanent" in storescu(port, peers, path)
            _, error = seen.wait_for("on_association_refused")
            assert wanted in error.reason
            assert (error.result, error.source, error.diagnostic) == (1, 2, 1)
        path.write_bytes(mint.assertion())
        assert storescu(port, peers, path) == ""
    assert SECRET not in caplog.text


def test_B7_our_requestor_checks_the_answer(
    ca: Ca, peers: tuple[Leaf, Leaf, Path], tmp_path: Path
) -> None:
    mint = Mint(ca.write(tmp_path, "idp", key="rsa"), now=now())
    server, client, anchor = peers
    own = load_credential_base(server.base)
    context = ClientContext(
        profile_named("8996"), load_credential_base(client.base), load_trust([anchor])
    )
    claim = outgoing_claim(mint.assertion())
    verifying = SamlBackend(AUDIENCE, [mint.issuer], signing=own)
    with node(verifying, server, anchor) as (port, _):
        association = associate(
            "127.0.0.1", port, calling="SCU", called="NODE", tls_context=context, identity=claim,
            contexts=[build_context("1.2.840.10008.1.1")],
        )  # fmt: skip
        response = association.acceptor.user_identity.server_response
        check_answer(claim, response, [server.certificate])
        assert association.send_c_echo().Status == 0
        association.release()


def test_secrets_stay_out_of_every_repr(mint: Mint) -> None:
    claim = outgoing_claim(mint.assertion())
    verifying = backend(mint)
    for thing in (claim, mint.issuer, verifying, verifying._used):
        assert SECRET not in repr(thing)
    response = verifying.verify(claim, PeerFacts())
    assert "Response" not in repr(response)


def test_times_are_those_of_the_clock(leaf: Leaf) -> None:
    """The one clock injected decides on everything, the issuer's certificate included."""
    mint = Mint(leaf, now=NOW + timedelta(days=200))
    moment: list[datetime] = [NOW + timedelta(days=200)]
    verifying = SamlBackend(AUDIENCE, [mint.issuer], clock=lambda: moment[0])
    assert verifying.verify(Claim(IdentityType.SAML, mint.assertion()), PeerFacts())
    moment[0] = leaf.certificate.not_valid_after_utc + timedelta(days=1)
    late = mint.with_(now=moment[0])
    with pytest.raises(IdentityRefused, match="no certificate we have"):
        verifying.verify(Claim(IdentityType.SAML, late.assertion()), PeerFacts())
