"""Every way a handshake fails has its own word, and the peer hears an alert."""

from __future__ import annotations

import os
import random
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.hazmat.primitives.serialization import PublicFormat as Public
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from dicom_secure_node.errors import HandshakeRefused
from dicom_secure_node.pki.trust import load_trust
from dicom_secure_node.tls.context import ClientContext, ServerContext
from dicom_secure_node.tls.profiles import profile_named
from dicom_secure_node.tls.refusal import TLSRefused, alert_of, from_error
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
        refusal = _refused_client(_client(pki), port)
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
        client = _client(pki).wrap_socket(listener.connect(), server_hostname=name)
        with client:
            if good:
                client.handshake(WAIT)
            else:
                with pytest.raises(TLSRefused, match=f"wrong name: .*{name!r}"):
                    client.handshake(WAIT)


def test_name_check_can_be_switched_off(pki: Pki) -> None:
    with Listener(_server(pki, "ignore")) as listener:
        context = ClientContext(profile_named("8996"), None, pki.trust, check_name=False)
        with context.wrap_socket(listener.connect(), server_hostname="other.example") as client:
            client.handshake(WAIT)


def test_name_defaults_to_the_address_called(pki: Pki) -> None:
    with Listener(_server(pki, "ignore")) as listener:
        plain = socket.socket()
        with _client(pki).wrap_socket(plain) as client:
            client.connect(("127.0.0.1", listener.port))
            assert client.server_hostname == "127.0.0.1"


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
    with Listener(_server(pki, mode)) as listener:
        s_client(listener.port)
        assert listener.facts().peer_certificate is None


def test_verify_checks_what_is_sent_all_the_same(pki: Pki, tmp_path: Path) -> None:
    leaf = pki.ca.write(tmp_path, "old", expired=True)
    with Listener(_server(pki, "verify")) as listener:
        s_client(listener.port, "-cert", leaf.crt, "-key", leaf.key)
        assert listener.refusal().kind == "expired"


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_client_that_has_not_the_key_of_its_certificate(
    version: str, pki: Pki, tmp_path: Path
) -> None:
    leaf = pki.ca.write(tmp_path, "thief")
    (tmp_path / "thief.key").write_bytes(_forged_key(leaf))
    with Listener(_server(pki)) as listener:
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
    with Listener(_server(pki)) as listener:
        done = s_client(listener.port, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
        assert listener.refusal().kind == "protocol version"
    assert "alert protocol version" in done.stderr


def test_B12_a_client_with_older_suites_only(pki: Pki) -> None:
    with Listener(_server(pki)) as listener:
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
        refusal = _refused_client(_client(pki), port)
    assert refusal.kind == "protocol version" or "protocol_version" in refusal.reason


def test_client_meets_a_server_without_a_suite_in_common(pki: Pki, tmp_path: Path) -> None:
    options = ("-tls1_2", "-cipher", "AES128-SHA")
    with openssl_server(pki.client_rsa, tmp_path / "log", *options) as port:
        refusal = _refused_client(_client(pki), port)
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
    with Listener(_server(pki, "ignore")) as listener:
        done = s_client(listener.port, version, *(["-alpn", offer] if offer else []))
        if good:
            assert listener.facts().alpn == agreed
        else:
            assert listener.refusal().kind == "no shared protocol"
            assert "alert no application protocol" in done.stderr


def test_a_refused_alpn_offer_does_not_disturb_other_connections(pki: Pki) -> None:
    """pyOpenSSL keeps what a callback raised for whoever looks next; see `engine`."""
    with Listener(_server(pki, "ignore")) as listener:
        for _ in range(3):
            s_client(listener.port, "-alpn", "h2")
            assert listener.refusal().kind == "no shared protocol"
            with _client(pki).wrap_socket(listener.connect(), server_hostname="localhost") as good:
                good.handshake(WAIT)
            listener.facts()


def test_our_client_offers_dicom(pki: Pki) -> None:
    with Listener(_server(pki, "ignore")) as listener:
        with _client(pki).wrap_socket(listener.connect(), server_hostname="localhost") as client:
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


def test_peer_refuses_our_server_certificate(pki: Pki, tmp_path: Path) -> None:
    stranger = Ca("Stranger").anchor(tmp_path / "stranger.crt")
    with Listener(_server(pki)) as listener:
        s_client(listener.port, "-CAfile", stranger, "-verify_return_error")
        refusal = listener.refusal()
    assert refusal.kind == "refused by peer"
    assert "unknown_ca" in refusal.reason


# -- what is no TLS, or never ends


NOT_TLS = {
    "A-ASSOCIATE-RQ": (b"\x01\x00\x00\x00\x00\xcd\x00\x01", "not TLS", "A-ASSOCIATE-RQ"),
    "one byte of it": (b"\x01", "not TLS", "A-ASSOCIATE-RQ"),
    "A-ABORT": (b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00", "not TLS", "A-ABORT"),
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", "not TLS", "a plain HTTP request"),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", "not TLS", "bytes starting 53 53 48 2d"),
    "zeros": (bytes(100), "not TLS", "bytes starting 00 00 00 00"),
    "SSL 2": (b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10", "protocol version", "SSL 2"),
    "SSL 3 record of rubbish": (b"\x16\x03\x00\x00\x05hello", "tls failure", ""),
    "an alert at once": (b"\x15\x03\x01\x00\x02\x02\x28", "tls failure", ""),
    "nothing": (b"", "closed by peer", "without a word"),
    "half a hello": (b"\x16\x03\x01\x02\x00\x01\x00", "closed by peer", "during the handshake"),
}


@pytest.mark.parametrize(("sent", "kind", "words"), NOT_TLS.values(), ids=NOT_TLS)
def test_what_is_no_handshake_is_named(sent: bytes, kind: str, words: str, pki: Pki) -> None:
    refusal = _refused_bytes(_server(pki), sent)
    assert refusal.kind == kind
    assert words in refusal.reason


def test_client_meets_a_plain_dicom_server(pki: Pki) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x01")
    with (
        theirs,
        _client(pki).wrap_socket(ours, server_hostname="localhost") as client,
        pytest.raises(TLSRefused, match="not TLS: found a plain DICOM A-ABORT"),
    ):
        client.handshake(WAIT)


def test_a_silent_peer_meets_the_deadline(pki: Pki) -> None:
    ours, theirs = socket.socketpair()
    with theirs, _server(pki).wrap_socket(ours) as server:
        with pytest.raises(TLSRefused, match="time-out"):
            server.handshake(0.1)
        with pytest.raises(TLSRefused, match="time-out"):  # and stays refused
            server.recv(1)


def test_a_slow_peer_meets_the_same_deadline_with_every_byte(pki: Pki) -> None:
    hello = _client_hello()
    with Listener(_server(pki), seconds=0.5) as listener, listener.connect() as peer:
        started = time.monotonic()
        for byte in hello:
            closed, _, _ = select.select([peer], [], [], 0.1)  # its pace, and our alarm
            if closed:
                break
            peer.send(bytes([byte]))
        assert listener.refusal().kind == "time-out"
        assert time.monotonic() - started >= 0.5  # never before the deadline


def test_a_peer_that_does_not_read_meets_the_deadline_too(pki: Pki) -> None:
    ours, theirs = socket.socketpair()
    with theirs, _server(pki).wrap_socket(ours) as server:
        theirs.sendall(_client_hello())
        with pytest.raises(TLSRefused, match="time-out"):
            server.handshake(0.2)


@given(st.binary(min_size=1, max_size=200))
def test_random_first_bytes_raise_nothing_but_a_refusal(pki: Pki, start: bytes) -> None:
    assert _refused_bytes(_server(pki), start).kind in HandshakeRefused.KINDS


@given(st.integers(0, 2**32))
def test_a_damaged_hello_raises_nothing_but_a_refusal(pki: Pki, seed: int) -> None:
    chance = random.Random(seed)
    hello = bytearray(_client_hello())
    for _ in range(chance.randint(1, 6)):
        hello[chance.randrange(len(hello))] = chance.randrange(256)
    assert _refused_bytes(_server(pki), bytes(hello)).kind in HandshakeRefused.KINDS


def test_a_refusal_is_ours_and_an_oserror_for_pynetdicom() -> None:
    refusal = TLSRefused("expired", "the certificate has expired")
    assert isinstance(refusal, HandshakeRefused)
    assert isinstance(refusal, OSError)
    assert str(refusal) == "expired: the certificate has expired"
    assert refusal.kind == "expired"


ERRORS = {
    "an alert": ("tlsv1 alert unknown ca", "refused by peer", "unknown_ca"),
    "an alert of TLS 1.3": ("tlsv13 alert certificate required", "refused by peer", None),
    "an alert of new wording": ("ssl/tls alert bad certificate", "refused by peer", None),
    "something new": ("a reason of next year", "tls failure", None),
    "nothing at all": ("", "tls failure", None),
}


@pytest.mark.parametrize(("reason", "kind", "alert"), ERRORS.values(), ids=ERRORS)
def test_errors_of_openssl(reason: str, kind: str, alert: str | None) -> None:
    error = SSL.Error([("SSL routines", "", reason)])
    assert from_error(error).kind == kind
    if alert:
        assert alert_of(error) == alert


@pytest.mark.parametrize("error", [SSL.Error(), SSL.Error([]), SSL.Error("text"), SSL.Error(5)])
def test_errors_of_another_shape(error: SSL.Error) -> None:
    assert from_error(error).kind == "tls failure"


# -- the parts


def _ask(client: TLSSocket) -> bytes:
    client.handshake(WAIT)
    client.sendall(b"A-ASSOCIATE-RQ")
    return client.recv(10)


def _server(pki: Pki, mode: Any = "require") -> ServerContext:
    return ServerContext(profile_named("8996"), pki.server, pki.trust, mode)


def _client(pki: Pki) -> ClientContext:
    return ClientContext(profile_named("8996"), None, pki.trust)


def _refused_client(context: ClientContext, port: int) -> HandshakeRefused:
    plain = socket.create_connection(("127.0.0.1", port), timeout=WAIT)
    with (
        context.wrap_socket(plain, server_hostname="localhost") as client,
        pytest.raises(TLSRefused) as caught,
    ):
        client.handshake(WAIT)
    return caught.value


def _refused_bytes(context: ServerContext, sent: bytes) -> HandshakeRefused:
    """Return how a server refuses a peer that sends these bytes and no more."""
    ours, theirs = socket.socketpair()
    with theirs, context.wrap_socket(ours) as server:
        theirs.sendall(sent)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(HandshakeRefused) as caught:
            server.handshake(WAIT)
    return caught.value


def _client_hello() -> bytes:
    connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    connection.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()
    return connection.bio_read(os.sysconf("SC_PAGESIZE") * 4)
