"""Every way a handshake fails has its own word, and the peer hears an alert."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.hazmat.primitives.serialization import PublicFormat as Public

from dicom_secure_node.errors import HandshakeRefused
from dicom_secure_node.pki.trust import load_trust
from dicom_secure_node.tls.context import ClientContext, ServerContext
from dicom_secure_node.tls.profiles import profile_named
from dicom_secure_node.tls.refusal import TLSRefused
from dicom_secure_node.tls.socket import TLSSocket
from tests.certs import Ca, Leaf
from tests.tls.conftest import Pki
from tests.tls.listener import WAIT, Listener, openssl_server, s_client

PROFILES = ["8996", "8996-mod"]


@dataclass(frozen=True)
class Odd:
    """A peer that must not be believed: how it is made, and what it is called.

    `alert` is what a client hears from us (RFC 8446 6.2).
    """

    kind: str
    words: str
    alert: str = "bad certificate"
    leaf: dict[str, Any] = field(default_factory=dict)
    issuer: Callable[[Ca], Ca] = lambda ca: ca
    lists: str = ""  # "fresh", "expired", "revoking": the revocation list in force


def _stranger(_: Ca) -> Ca:
    return Ca("Stranger")


def _namesake(_: Ca) -> Ca:
    return Ca()  # the name of the authority we trust, and not its key


ODD = {
    "expired": Odd("expired", "has expired", "certificate expired", {"expired": True}),
    "not yet valid": Odd("not yet valid", "not valid yet", leaf={"not_yet_valid": True}),
    "self-signed": Odd("self-signed", "self-signed", "unknown ca", {"self_signed": True}),
    "unknown issuer": Odd("unknown issuer", "nobody we trust", "unknown ca", issuer=_stranger),
    "namesake of our authority": Odd("unknown issuer", "", "unknown ca", issuer=_namesake),
    "damaged signature": Odd("bad signature", "wrong", "decrypt error", {"bad_signature": True}),
    "mail certificate": Odd("wrong usage", "", "unsupported certificate", {"usage": "mail"}),
    "1024 bits": Odd("weak key", "RSA key of 1024 bits, want 2048", leaf={"key": "rsa1024"}),
    "SHA-1": Odd("weak key", "SHA1, want SHA-256", leaf={"digest": "sha1"}),
    "issuer is no authority": Odd(
        "bad certificate", "no certification", "unknown ca", {}, lambda ca: _no_authority(ca)
    ),
    "weak intermediate": Odd(
        "weak key",
        "an authority 'CN=Weak",
        "",
        {},
        lambda ca: ca.intermediate("Weak", key="rsa1024"),
    ),
    "revoked": Odd("revoked", "is revoked", "certificate revoked", lists="revoking"),
    "list out of date": Odd("crl expired", "out of date", "certificate expired", lists="expired"),
    "no list of the intermediate": Odd(
        "crl missing", "no valid", "unknown ca", {}, lambda ca: ca.intermediate(), "fresh"
    ),
}


def _no_authority(ca: Ca) -> Ca:
    return ca.intermediate("No authority", ca_flag=False)


def _trusting(case: Odd, pki: Pki, leaf: Leaf, folder: Path) -> Any:
    if not case.lists:
        return pki.trust
    revoked = [leaf] if case.lists == "revoking" else []
    crl = pki.ca.crl(folder / "ca.crl", revoked, expired=case.lists == "expired")
    return load_trust([pki.anchor], [crl])


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("case", ODD.values(), ids=ODD)
def test_B12_B13_server_names_what_is_wrong_with_a_client(
    case: Odd, profile: str, version: str, pki: Pki, tmp_path: Path
) -> None:
    leaf = case.issuer(pki.ca).write(tmp_path, "odd", **case.leaf)
    trust = _trusting(case, pki, leaf, tmp_path)
    with Listener(ServerContext(profile_named(profile), pki.server, trust)) as listener:
        done = s_client(
            *(listener.port, version, "-ign_eof", "-cipher", "DEFAULT:@SECLEVEL=0"),
            *("-cert", leaf.crt, "-cert_chain", leaf.crt, "-key", leaf.key),
        )
        refusal = listener.refusal()
    assert refusal.kind == case.kind
    assert case.words in refusal.reason
    # At security level 0 it is our callback that says no, and it cannot name the alert.
    alert = "internal error" if (case.kind, profile) == ("weak key", "8996-mod") else case.alert
    assert f"alert {alert}" in done.stderr


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("case", ODD.values(), ids=ODD)
def test_B12_B13_client_names_what_is_wrong_with_a_server(
    case: Odd, profile: str, pki: Pki, tmp_path: Path
) -> None:
    leaf = case.issuer(pki.ca).write(tmp_path, "odd", **case.leaf)
    trust = _trusting(case, pki, leaf, tmp_path)
    with openssl_server(leaf, tmp_path / "log") as port:
        refusal = _refused_client(ClientContext(profile_named(profile), None, trust), port)
    assert refusal.kind == case.kind
    assert case.words in refusal.reason


def test_client_only_certificate_is_no_server(pki: Pki, tmp_path: Path) -> None:
    leaf = pki.ca.write(tmp_path, "odd", usage="client")
    with openssl_server(leaf, tmp_path / "log") as port:
        refusal = _refused_client(pki.client_context(), port)
    assert refusal.kind == "wrong usage"


NAMES = {
    # name asked for: (hosts in the certificate, accepted)
    "localhost": (("localhost",), True),
    "LOCALHOST": (("localhost",), True),
    "127.0.0.1": (("127.0.0.1",), True),
    "pacs.ward.example": (("*.ward.example",), True),
    "other.example": (("localhost", "127.0.0.1"), False),
    "127.0.0.2": (("127.0.0.1",), False),
    "a.b.ward.example": (("*.ward.example",), False),
    "node": ((), False),  # the common name does not count
}


@pytest.mark.parametrize(("name", "hosts", "good"), [(n, h, g) for n, (h, g) in NAMES.items()])
def test_client_checks_the_name(
    name: str, hosts: tuple[str, ...], good: bool, pki: Pki, tmp_path: Path
) -> None:
    leaf = pki.ca.write(tmp_path, "node", hosts=hosts)
    context = ServerContext(profile_named("8996"), [pki.credential(leaf)], pki.trust, "ignore")
    with Listener(context) as listener:
        client = pki.client_context().wrap_socket(listener.connect(), server_hostname=name)
        with client:
            if good:
                client.handshake(WAIT)
            else:
                with pytest.raises(TLSRefused, match=f"wrong name: .*{name!r}"):
                    client.handshake(WAIT)


@pytest.mark.parametrize("name", ["a..b", "x" * 80, "under_score.example", " ", "*", "\u2603"])
def test_a_name_that_is_none_is_refused(name: str, pki: Pki) -> None:
    with (
        Listener(pki.server_context("ignore")) as listener,
        pki.client_context().wrap_socket(listener.connect(), server_hostname=name) as client,
        pytest.raises(TLSRefused, match="wrong name"),
    ):
        client.handshake(WAIT)


def test_name_check_can_be_switched_off(pki: Pki) -> None:
    with Listener(pki.server_context("ignore")) as listener:
        context = ClientContext(profile_named("8996"), None, pki.trust, check_name=False)
        with context.wrap_socket(listener.connect(), server_hostname="other.example") as client:
            client.handshake(WAIT)


def test_name_defaults_to_the_address_called(pki: Pki) -> None:
    with Listener(pki.server_context("ignore")) as listener:
        plain = socket.socket()
        with pki.client_context().wrap_socket(plain) as client:
            client.connect(("127.0.0.1", listener.port))
            assert client.server_hostname == "127.0.0.1"


ANCHORED = {"good": ([], None), "revoked": (["client"], "revoked")}


@pytest.mark.parametrize(("revoked", "kind"), ANCHORED.values(), ids=ANCHORED)
def test_an_intermediate_as_anchor_needs_no_list_of_its_own(
    revoked: list[str], kind: str | None, pki: Pki, tmp_path: Path
) -> None:
    ward = pki.ca.intermediate("Ward")
    leaf = ward.write(tmp_path, "client")
    crl = ward.crl(tmp_path / "ward.crl", [leaf] if revoked else [])
    trust = load_trust([ward.anchor(tmp_path / "ward.crt")], [crl])
    with Listener(ServerContext(profile_named("8996"), pki.server, trust)) as listener:
        s_client(listener.port, "-cert", leaf.crt, "-key", leaf.key, "-cert_chain", leaf.crt)
        outcome = listener.outcome()
    assert getattr(outcome, "kind", None) == kind


def test_a_single_certificate_can_be_the_anchor(pki: Pki, tmp_path: Path) -> None:
    leaf = pki.ca.write(tmp_path, "modality", self_signed=True)
    context = ServerContext(profile_named("8996"), pki.server, load_trust([leaf.crt]))
    with Listener(context) as listener:
        s_client(listener.port, "-cert", leaf.crt, "-key", leaf.key)
        assert listener.facts().peer_certificate == leaf.certificate


# -- no certificate, no key


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("profile", PROFILES)
def test_B12_B13_client_without_a_certificate(profile: str, version: str, pki: Pki) -> None:
    with Listener(ServerContext(profile_named(profile), pki.server, pki.trust)) as listener:
        done = s_client(listener.port, version, "-ign_eof")
        assert listener.refusal().kind == "no certificate"
    assert "alert" in done.stderr


@pytest.mark.parametrize("mode", ["verify", "ignore"])
def test_B12_item5_a_server_may_be_configured_not_to_ask(mode: Any, pki: Pki) -> None:
    with Listener(pki.server_context(mode)) as listener:
        s_client(listener.port)
        assert listener.facts().peer_certificate is None


def test_verify_checks_what_is_sent_all_the_same(pki: Pki, tmp_path: Path) -> None:
    leaf = pki.ca.write(tmp_path, "old", expired=True)
    with Listener(pki.server_context("verify")) as listener:
        s_client(listener.port, "-cert", leaf.crt, "-key", leaf.key)
        assert listener.refusal().kind == "expired"


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_client_that_has_not_the_key_of_its_certificate(
    version: str, pki: Pki, tmp_path: Path
) -> None:
    leaf = pki.ca.write(tmp_path, "thief")
    (tmp_path / "thief.key").write_bytes(_forged_key(leaf))
    with Listener(pki.server_context()) as listener:
        s_client(listener.port, version, "-cert", leaf.crt, "-key", leaf.key)
        assert listener.refusal().kind == "wrong key"


def _forged_key(leaf: Leaf) -> bytes:
    """Return a key file that claims the public key of `leaf` and holds another private one."""
    own, other = leaf.private_key, ec.generate_private_key(ec.SECP256R1())
    point = (Encoding.X962, Public.UncompressedPoint)
    der = other.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    mine, theirs = (k.public_key().public_bytes(*point) for k in (own, other))
    assert theirs in der
    return der.replace(theirs, mine)


# -- versions, suites, protocols


def test_B12_tls_1_1_is_refused(pki: Pki) -> None:
    with Listener(pki.server_context()) as listener:
        done = s_client(listener.port, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
        assert listener.refusal().kind == "protocol version"
    assert "alert protocol version" in done.stderr


def test_B12_a_client_with_older_suites_only(pki: Pki) -> None:
    with Listener(pki.server_context()) as listener:
        s_client(listener.port, "-tls1_2", "-cipher", "AES128-SHA")
        assert listener.refusal().kind == "no shared suite"


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_B13_a_client_with_X25519_only(version: str, pki: Pki) -> None:
    context = ServerContext(profile_named("8996-mod"), pki.server, pki.trust)
    with Listener(context) as listener:
        s_client(listener.port, version, "-groups", "X25519")
        assert listener.refusal().kind == "no shared suite"


def test_client_meets_a_server_of_another_version(pki: Pki, tmp_path: Path) -> None:
    with openssl_server(
        pki.client, tmp_path / "log", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"
    ) as port:
        refusal = _refused_client(pki.client_context(), port)
    assert refusal.kind == "protocol version" or "protocol_version" in refusal.reason


def test_client_meets_a_server_without_a_suite_in_common(pki: Pki, tmp_path: Path) -> None:
    options = ("-tls1_2", "-cipher", "AES128-SHA")
    with openssl_server(pki.client_rsa, tmp_path / "log", *options) as port:
        refusal = _refused_client(pki.client_context(), port)
    assert refusal.kind == "refused by peer"
    assert "handshake_failure" in refusal.reason


ALPN = {
    "another protocol only": ("h2,http/1.1", False, None),
    "another protocol first": ("h2,dicom", True, "dicom"),
    "ours": ("dicom", True, "dicom"),
    "none, as old peers do": ("", True, None),
}


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize(("offer", "good", "agreed"), ALPN.values(), ids=ALPN)
def test_RFC9325_alpn(offer: str, good: bool, agreed: str | None, version: str, pki: Pki) -> None:
    with Listener(pki.server_context("ignore")) as listener:
        done = s_client(listener.port, version, *(["-alpn", offer] if offer else []))
        if good:
            assert listener.facts().alpn == agreed
        else:
            assert listener.refusal().kind == "no shared protocol"
            assert "alert no application protocol" in done.stderr


def test_a_refused_alpn_offer_does_not_disturb_other_connections(pki: Pki) -> None:
    """pyOpenSSL keeps what a callback raised for whoever looks next; see `engine`."""
    with Listener(pki.server_context("ignore")) as listener:
        for _ in range(3):
            s_client(listener.port, "-alpn", "h2")
            assert listener.refusal().kind == "no shared protocol"
            with pki.client_context().wrap_socket(
                listener.connect(), server_hostname="localhost"
            ) as good:
                good.handshake(WAIT)
            listener.facts()


def test_our_client_offers_dicom(pki: Pki) -> None:
    with Listener(pki.server_context("ignore")) as listener:
        with pki.client_context().wrap_socket(
            listener.connect(), server_hostname="localhost"
        ) as client:
            assert client.handshake(WAIT).alpn == "dicom"
            assert client.selected_alpn_protocol() == "dicom"
        assert listener.facts().alpn == "dicom"


# -- refused by the peer


@pytest.mark.parametrize("profile", ["8996", "bcp195-ex"])
def test_peer_refuses_our_client_certificate(profile: str, pki: Pki, tmp_path: Path) -> None:
    """In TLS 1.3 a client learns of it at its first read, when its request is already sent."""
    expired = pki.credential(pki.ca.write(tmp_path, "old", expired=True))
    chosen = profile_named(profile, allow_retired=True)
    with Listener(ServerContext(chosen, pki.server, pki.trust)) as listener:
        plain = listener.connect()
        with ClientContext(chosen, expired, pki.trust).wrap_socket(
            plain, server_hostname="localhost"
        ) as client:
            with pytest.raises(TLSRefused) as caught:
                _ask(client)
            assert client.refusal is caught.value
    assert caught.value.kind == "refused by peer"
    assert "certificate_expired" in caught.value.reason


def test_peer_refuses_our_client_certificate_and_we_only_write(pki: Pki, tmp_path: Path) -> None:
    """Who writes on sees a broken pipe, unless somebody looks for the alert before it."""
    expired = pki.credential(pki.ca.write(tmp_path, "old", expired=True))
    profile = profile_named("8996")
    with (
        Listener(pki.server_context()) as listener,
        ClientContext(profile, expired, pki.trust).wrap_socket(
            listener.connect(), server_hostname="localhost"
        ) as client,
    ):
        client.handshake(WAIT)
        client.settimeout(WAIT)
        assert listener.refusal().kind == "expired"
        with pytest.raises(TLSRefused, match=r"refused by peer: .*certificate_expired"):
            client.sendall(bytes(64 << 20))


def test_peer_refuses_our_server_certificate(pki: Pki, tmp_path: Path) -> None:
    stranger = Ca("Stranger").anchor(tmp_path / "stranger.crt")
    with Listener(pki.server_context()) as listener:
        s_client(listener.port, "-CAfile", stranger, "-verify_return_error")
        refusal = listener.refusal()
    assert refusal.kind == "refused by peer"
    assert "unknown_ca" in refusal.reason


# -- the parts


def _ask(client: TLSSocket) -> bytes:
    client.handshake(WAIT)
    client.sendall(b"A-ASSOCIATE-RQ")
    return client.recv(10)


def _refused_client(context: ClientContext, port: int) -> HandshakeRefused:
    plain = socket.create_connection(("127.0.0.1", port), timeout=WAIT)
    with (
        context.wrap_socket(plain, server_hostname="localhost") as client,
        pytest.raises(TLSRefused) as caught,
    ):
        client.handshake(WAIT)
    return caught.value
