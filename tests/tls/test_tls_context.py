"""Contexts: what a server really offers, and what makes a configuration wrong."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.pki.credential import Credential, load_credential_base
from dicom_secure_node.pki.trust import TrustStore, load_trust
from dicom_secure_node.tls.context import ClientContext, ServerContext
from dicom_secure_node.tls.profiles import PROFILES, TLSProfile, profile_named
from tests.certs import Ca
from tests.parts import run
from tests.tls.conftest import Pki
from tests.tls.listener import Listener, s_client
from tests.tls.scan import Scan

SPOKEN = [p for p in PROFILES if p.status != "unspeakable"]
_NAMES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521", "x25519": "X25519"}


@pytest.mark.parametrize("profile", SPOKEN, ids=lambda p: p.section)
def test_server_offers_exactly_the_suites_of_the_table(profile: TLSProfile, pki: Pki) -> None:
    context = ServerContext(profile, pki.server, pki.trust)
    with Listener(context) as listener:
        scan = Scan(listener.port, pki.anchor, pki.client_rsa)
        versions = scan.versions()
        found = scan.suites("TLSv1.2")
        found13 = scan.suites("TLSv1.3") if "TLSv1.3" in versions else []
    assert found == [s.openssl for s in profile.tls12_suites if s.openssl]
    assert found13 == [s.openssl for s in profile.tls13_suites]
    assert ("TLSv1" in versions) == (profile.section in ("B.3", "B.9"))
    assert ("TLSv1.3" in versions) == (profile.section not in ("B.3", "B.11"))


@pytest.mark.parametrize("profile", PROFILES[-2:], ids=lambda p: p.section)
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_server_takes_exactly_the_groups_of_the_profile(
    profile: TLSProfile, version: str, pki: Pki
) -> None:
    with Listener(ServerContext(profile, pki.server, pki.trust)) as listener:
        found = Scan(listener.port, pki.anchor, pki.client_rsa).groups(version)
    assert found == {_NAMES[group] for group in profile.groups}


@pytest.mark.parametrize("name", ["8996", "8996-mod"])
def test_B12_B13_no_sha1_in_the_handshake(name: str, pki: Pki) -> None:
    with Listener(ServerContext(profile_named(name), pki.server, pki.trust)) as listener:
        scan = Scan(listener.port, pki.anchor, pki.client_rsa)
        weak = ["-tls1_2", "-cipher", "ALL:@SECLEVEL=0", "-sigalgs", "RSA+SHA1:ECDSA+SHA1"]
        assert scan.chosen(*weak) is None
        assert listener.refusal().kind == "no shared suite"


@pytest.mark.parametrize("profile", SPOKEN, ids=lambda p: p.section)
def test_sslscan_agrees(profile: TLSProfile, pki: Pki) -> None:
    context = ServerContext(profile, pki.server, pki.trust, "ignore")
    with Listener(context) as listener:
        done = run(["sslscan", "--no-colour", f"127.0.0.1:{listener.port}"], timeout=100)
    rows = [line.split() for line in done.stdout.splitlines()]
    accepted = {row[4] for row in rows if row and row[0] in ("Preferred", "Accepted")}
    assert accepted == {s.openssl for s in profile.suites if s.openssl}
    older = profile.section in ("B.3", "B.9")  # sslscan looks at renegotiation by TLS 1.0 there
    assert older or "Session renegotiation not supported" in done.stdout
    assert ("TLSv1.0   disabled" in done.stdout) is not older
    assert ("TLSv1.1   disabled" in done.stdout) is not older


def test_B13_missing_says_what_this_openssl_cannot(pki: Pki) -> None:
    assert ServerContext(profile_named("8996-mod"), pki.server, pki.trust).missing == ()
    retired = ServerContext(profile_named("aes", True), pki.server, pki.trust)
    assert retired.missing == ("TLS_RSA_WITH_3DES_EDE_CBC_SHA",)


def test_B12_missing_names_suites_without_a_credential(pki: Pki) -> None:
    context = ServerContext(profile_named("8996"), [pki.rsa], pki.trust)
    assert [name for name in context.missing if "ECDSA" in name] == list(context.missing)
    assert len(context.missing) == 2


def test_client_at_level_0_does_not_offer_DHE(pki: Pki) -> None:
    context = ClientContext(profile_named("bcp195", True), None, pki.trust)
    assert context.missing == (
        "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256",
        "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384",
    )


def test_each_credential_is_presented_with_its_own_chain(tmp_path: Path) -> None:
    root = Ca("Root")
    anchor = root.anchor(tmp_path / "root.crt")
    chains = {"rsa": root.intermediate("For RSA"), "ec": root.intermediate("For EC")}
    credentials = [
        load_credential_base(ca.write(tmp_path, f"node-{kind}", key=kind).base)  # type: ignore[arg-type]
        for kind, ca in chains.items()
    ]
    trust = load_trust([anchor])
    context = ServerContext(profile_named("8996"), credentials, trust, "ignore")
    with Listener(context) as listener:
        for kind, algorithms in {"rsa": "RSA-PSS+SHA256", "ec": "ECDSA+SHA256"}.items():
            shown = s_client(
                listener.port,
                *("-showcerts", "-verify_return_error", "-CAfile", anchor),
                *("-sigalgs", algorithms),
            ).stdout
            assert "Verify return code: 0 (ok)" in shown
            assert f"CN = {chains[kind].name}" in shown
            assert f"CN = {chains['ec' if kind == 'rsa' else 'rsa'].name}" not in shown


@dataclass(frozen=True)
class Wrong:
    """A configuration that must not get as far as listening."""

    words: str
    profile: str = "8996"
    leaves: tuple[dict[str, Any], ...] = ({},)
    client: bool = False
    anchors: bool = True
    more: dict[str, Any] = field(default_factory=dict)


WRONG = {
    "no credential": Wrong("found no credential", leaves=()),
    "two of one kind": Wrong("wanted one of each kind", leaves=({}, {})),
    "B.13 server without RSA": Wrong("one RSA and one EC", "8996-mod"),
    "B.13 server without EC": Wrong("one RSA and one EC", "8996-mod", ({"key": "rsa"},)),
    "RSA of 1024 bits": Wrong("RSA key of 1024 bits, want 2048", leaves=({"key": "rsa1024"},)),
    "SHA-1": Wrong("a signature with SHA1", leaves=({"digest": "sha1"},)),
    "server with a client's": Wrong("not meant for TLS servers", leaves=({"usage": "client"},)),
    "client with a server's": Wrong(
        "not meant for TLS clients", leaves=({"usage": "server"},), client=True
    ),
    "client with weak key": Wrong("1024 bits", leaves=({"key": "rsa1024"},), client=True),
    "server without anchors": Wrong("no trust anchor", anchors=False),
    "client without anchors": Wrong("no trust anchor", anchors=False, client=True),
    "client_certificate misspelt": Wrong("'required'", more={"client_certificate": "required"}),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_a_wrong_configuration_is_refused(case: Wrong, pki: Pki, tmp_path: Path) -> None:
    credentials = [
        load_credential_base(pki.ca.write(tmp_path, f"leaf{i}", **options).base)
        for i, options in enumerate(case.leaves)
    ]
    trust = pki.trust if case.anchors else TrustStore(())
    profile = profile_named(case.profile)
    with pytest.raises(ConfigurationError, match=case.words):
        _context(case, profile, credentials, trust)


def _context(
    case: Wrong, profile: TLSProfile, credentials: list[Credential], trust: TrustStore
) -> object:
    if case.client:
        return ClientContext(profile, credentials[0], trust)
    return ServerContext(profile, credentials, trust, **case.more)


def test_a_weak_intermediate_of_our_own_is_refused(pki: Pki, tmp_path: Path) -> None:
    weak = pki.ca.intermediate("Weak", key="rsa1024")
    credential = load_credential_base(weak.write(tmp_path, "leaf").base)
    with pytest.raises(ConfigurationError, match=r"CN=Weak.*1024 bits"):
        ServerContext(profile_named("8996"), [credential], pki.trust)


@pytest.mark.parametrize("profile", ["B.1", "B.2"])
def test_a_profile_that_cannot_be_spoken_makes_no_context(profile: str, pki: Pki) -> None:
    unspeakable = next(p for p in PROFILES if p.section == profile)
    with pytest.raises(ConfigurationError, match="cannot be spoken"):
        ServerContext(unspeakable, pki.server, pki.trust)
    with pytest.raises(ConfigurationError, match="cannot be spoken"):
        ClientContext(unspeakable, None, pki.trust)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_session_is_resumed(version: ssl.TLSVersion, pki: Pki) -> None:
    """A resumed session would pass by the checks of the peer, and so by a revocation."""
    client = ssl.create_default_context(cafile=pki.anchor)
    client.load_cert_chain(pki.client.crt, pki.client.key)
    client.minimum_version = client.maximum_version = version
    session = None
    with Listener(ServerContext(profile_named("8996"), pki.server, pki.trust)) as listener:
        for _ in range(3):
            with client.wrap_socket(
                listener.connect(), server_hostname="localhost", session=session
            ) as connection:
                connection.sendall(b"ping")  # the answer comes after any session ticket
                assert connection.recv(4) == b"ping"
                assert not connection.session_reused
                session = connection.session
                assert session.has_ticket == (version == ssl.TLSVersion.TLSv1_3)
            assert listener.facts().resumed is False


def test_B1_is_refused_plainly_when_made_a_context(pki: Pki) -> None:
    with pytest.raises(ConfigurationError, match="Triple-DES"):
        ServerContext(PROFILES[0], pki.server, pki.trust)
