"""JSON Web Tokens from a real issuer, through DCMTK and our own requestor, over TLS."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
from pynetdicom import evt
from pynetdicom.presentation import build_context

from dicom_secure_node.errors import (
    ConfigurationError,
    IdentityRefused,
    PeerRefused,
    ServiceUnavailable,
)
from dicom_secure_node.identity.claims import Backend, Claim, IdentityType
from dicom_secure_node.identity.jwt_tokens import JwtBackend, outgoing_claim
from dicom_secure_node.identity.key_sources import CachedKeys, Download, open_source
from dicom_secure_node.identity.policy import Demand, IdentityPolicy
from dicom_secure_node.node.plugins.identity import IdentityPlugin
from dicom_secure_node.node.scu import associate
from dicom_secure_node.node.server import Listener
from dicom_secure_node.pki.credential import load_credential_base
from dicom_secure_node.pki.trust import load_trust
from dicom_secure_node.tls.context import ClientContext, ServerContext
from dicom_secure_node.tls.profiles import profile_named
from tests import parts
from tests.certs import Ca, Leaf
from tests.identity.oidc import Oidc, private_jwk
from tests.identity.tokens import (
    AUDIENCE,
    backend_of,
    respelt,
    secrets_of,
    signed,
    verified,
    write_keys,
)
from tests.loopback import CT_SMALL, VERIFICATION, Recorder, application_entity, port_of, serving

USERS = {"ada": ["radiology"], "bob": []}


@dataclass(frozen=True)
class Site:
    """A CA, and what a node and its peers have from it."""

    folder: Path
    ca: Ca

    @cached_property
    def anchor(self) -> Path:
        return self.ca.anchor(self.folder / "ca.crt")

    @cached_property
    def node(self) -> Leaf:
        return self.ca.write(self.folder, "node", usage="server")

    @cached_property
    def client(self) -> Leaf:
        return self.ca.write(self.folder, "client", usage="client")

    def listener(self) -> Listener:
        context = ServerContext(
            profile_named("8996"),
            [load_credential_base(self.node.base)],
            load_trust([self.anchor]),
        )
        return Listener("loopback", lambda: context)

    def client_context(self) -> ClientContext:
        credential = load_credential_base(self.client.base)
        return ClientContext(profile_named("8996"), credential, load_trust([self.anchor]))

    def storescu(self, port: int, token: bytes, *options: str) -> subprocess.CompletedProcess[str]:
        """Send one instance with DCMTK, and `token` as user identity."""
        file = self.folder / "token.jwt"
        file.write_bytes(token)
        tls = ["+tls", self.client.key, self.client.crt, "+cf", self.anchor]
        words = ["storescu", "-v", *tls, "--jwt", file, *options, "127.0.0.1", str(port), CT_SMALL]
        return parts.run(words)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"), Ca())


def issuer_of(site: Site, key: str, algorithm: str = "RS256", port: int | None = None) -> Oidc:
    return Oidc(
        site.folder / "issuer",
        site.ca,
        keys=[private_jwk(key, algorithm)],
        algorithm=algorithm,
        users=USERS,
        port=port,
    )


@contextmanager
def node(site: Site, backend: Backend) -> Iterator[tuple[int, Recorder]]:
    """Run a node that demands a JWT; yields its port, and what it tells."""
    policy = IdentityPolicy(Demand.of("required", [IdentityType.JWT]))
    recorder = Recorder()
    plugins = [IdentityPlugin({"loopback": policy}, [backend]), recorder]
    stored = {evt.EVT_C_STORE: lambda event: 0x0000}
    with serving(plugins, application=stored, listener=site.listener()) as server:
        yield port_of(server), recorder


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256"])
@pytest.mark.parametrize("response", [[], ["-rsp"]], ids=["", "rsp"])
def test_type_5_from_issuer_to_archive(
    algorithm: str, response: Sequence[str], site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with issuer_of(site, f"k-{algorithm}", algorithm) as issuer:
        keys = open_source(issuer.keys_url, trust=[issuer.anchor])
        with node(site, JwtBackend(issuer.issuer, AUDIENCE, keys)) as (port, recorder):
            token = issuer.token("ada", AUDIENCE)
            done = site.storescu(port, token, *response)
            assert done.returncode == 0, done.stdout + done.stderr
            (association,) = recorder.wait_for("on_association_accepted")
            assert association.identity.user == "ada"
            assert association.identity.groups == {"radiology"}
            assert association.respond == (b"" if response else None)
            recorder.wait_for("on_store_ended")
    assert not [secret for secret in secrets_of(token) if secret in caplog.text]


def test_type_5_refused_by_the_node_1_2_1(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with issuer_of(site, "k1") as issuer:
        keys = open_source(issuer.keys_url, trust=[issuer.anchor])
        backend = JwtBackend(issuer.issuer, AUDIENCE, keys)
        good = issuer.token("ada", AUDIENCE)
        cases = {
            "meant for another audience": issuer.token("ada", "dicom:PACS2"),
            "the signature does not verify": respelt(
                good, 1, lambda raw: raw.replace(b"ada", b"bob")
            ),
            "not signed (none)": respelt(good, 0, lambda raw: raw.replace(b"RS256", b"none")),
            "not key 'k9'": respelt(good, 0, lambda raw: raw.replace(b'"k1"', b'"k9"')),
            "no JWT in compact form": b"not a token",
        }
        with node(site, backend) as (port, recorder):
            for reason, token in cases.items():
                done = site.storescu(port, token, "-rsp")
                assert done.returncode != 0
                assert "Rejected Permanent" in done.stdout + done.stderr
                _, error = recorder.wait_for("on_association_refused")
                assert reason in error.reason
                assert (error.result, error.source, error.diagnostic) == (1, 2, 1)
    for token in (good, *cases.values()):
        assert not [secret for secret in secrets_of(token) if secret in caplog.text]


def test_an_issuer_changes_its_keys_and_goes_away(site: Site) -> None:
    now = [1000.0]
    with issuer_of(site, "k1") as issuer:
        port = issuer.port
        fetch = Download(issuer.keys_url, trust=[issuer.anchor])
        keys = CachedKeys(fetch, ticks=lambda: now[0])
        backend = JwtBackend(issuer.issuer, AUDIENCE, keys)
        old = issuer.token("ada", AUDIENCE)
        assert verified(backend, old).user == "ada"
    with issuer_of(site, "k2", port=port) as issuer:
        new = issuer.token("bob", AUDIENCE)
        with pytest.raises(IdentityRefused, match="not key 'k2'"):
            verified(backend, new)  # asked a moment ago
        now[0] += 30
        assert verified(backend, new).user == "bob"
        with pytest.raises(IdentityRefused, match="not key 'k1'"):
            verified(backend, old)
    now[0] += 600
    assert verified(backend, new).user == "bob"  # the last good keys stay
    now[0] += 86_400
    with node(site, backend) as (node_port, recorder):
        done = site.storescu(node_port, new)
        assert "Rejected Transient" in done.stdout + done.stderr
        _, error = recorder.wait_for("on_association_refused")
        assert (error.result, error.source, error.diagnostic) == (2, 3, 1)
        assert "keys of the JWT issuer" in error.reason
    with pytest.raises(ServiceUnavailable):
        verified(backend, new)


# --- As requestor ---


def test_outgoing_to_our_own_node(site: Site, tmp_path: Path) -> None:
    with node(site, backend_of(write_keys(tmp_path / "jwks.json"))) as (port, recorder):
        for ask in (False, True):
            association = associate(
                "127.0.0.1",
                port,
                calling="SCU",
                called="NODE",
                contexts=[build_context(VERIFICATION)],
                tls_context=site.client_context(),
                identity=outgoing_claim(signed() + b"\n", ask_response=ask),
            )
            assert association.send_c_echo().Status == 0
            association.end()
            (accepted,) = recorder.wait_for("on_association_accepted")
            assert accepted.identity.user == "ada"


def test_outgoing_stops_where_nobody_confirms(site: Site) -> None:
    """A stock pynetdicom acceptor without a handler takes everybody, and says nothing."""
    echoed = []
    peer = application_entity().start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_ECHO, echoed.append)]
    )
    try:
        with pytest.raises(PeerRefused, match="without confirming the user identity"):
            associate(
                "127.0.0.1",
                peer.server_address[1],
                calling="SCU",
                called="NODE",
                contexts=[build_context(VERIFICATION)],
                identity=outgoing_claim(signed(), ask_response=True),
                allow_plain=True,
            )
    finally:
        peer.shutdown()
    assert not echoed


NOT_SENT = {
    "nothing": (b"", "found no JWT"),
    "a line feed": (b"\n", "found no JWT"),
    "a file of something else": (b"-----BEGIN CERTIFICATE-----\n", "found no JWT"),
    "JSON of a token endpoint": (b'{"access_token": "a.b.c"}', "found no JWT"),
    "more than a request holds": (b"a." + b"b" * 65_000 + b".c", "found a JWT of 65004 bytes"),
}


@pytest.mark.parametrize(("data", "words"), NOT_SENT.values(), ids=NOT_SENT)
def test_outgoing_refused(data: bytes, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as refused:
        outgoing_claim(data)
    assert "access_token" not in str(refused.value)


def test_outgoing_takes_what_the_peer_may_like() -> None:
    assert outgoing_claim(b" a.b.c\r\n") == Claim(IdentityType.JWT, b"a.b.c")
    assert outgoing_claim(b"a.b.c.d.e", ask_response=True).response_requested
