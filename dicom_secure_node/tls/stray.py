"""What a stray ``OPENSSL_CONF`` changes and no call of ours can set back.

Versions, suites, groups, signature algorithms and level are set on every context, so the file
does not matter to them. Two things remain: options, which can be added but not taken away, and
the signature algorithms of client certificates, for which pyOpenSSL has no call. Where the
file touches those against a profile, there is no context.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from OpenSSL import SSL

from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.pki.credential import Credential
from dicom_secure_node.spec.tls_suites import SIGNATURE_ALGORITHMS
from dicom_secure_node.tls import engine
from dicom_secure_node.tls.profiles import TLSProfile

# Bits of SSL_OP_... (openssl/ssl.h); pyOpenSSL does not name the first five.
_HARMFUL = {
    1 << 0: "extended_master_secret is switched off",
    1 << 2: "servers without secure renegotiation are allowed",
    1 << 10: "key exchange without Diffie-Hellman is allowed",
    1 << 18: "unsafe renegotiation is allowed",
    1 << 19: "encrypt_then_mac is switched off",
    SSL.OP_NO_TLSv1_2: "TLS 1.2 is switched off",
    SSL.OP_NO_TLSv1_3: "TLS 1.3 is switched off",
}
_HANDSHAKE, _CERTIFICATE_REQUEST = 22, 13  # record and message types (RFC 5246)


def check_options(options: int, profile: TLSProfile) -> None:
    """Refuse options that came from a configuration file and weaken a profile.

    Parameters
    ----------
    options : int
        All options of a context.
    profile : TLSProfile
        Named in the error.

    Raises
    ------
    ConfigurationError
        One of them is set.
    """
    for bit, words in _HARMFUL.items():
        if options & bit:
            raise ConfigurationError(
                f"{words} by OpenSSL's configuration file (OPENSSL_CONF), against {profile}"
            )


def check_client_signatures(credential: Credential, profile: TLSProfile) -> None:
    """Refuse signature algorithms for client certificates that are not the profile's.

    The list can be set by ``ClientSignatureAlgorithms`` of a configuration file, and be read
    only off the wire: so a handshake is begun in memory, and the server's CertificateRequest,
    which TLS 1.2 sends in clear, is looked at.

    Parameters
    ----------
    credential : Credential
        Any; a server needs one to get that far.
    profile : TLSProfile
        Whose algorithms should be requested.

    Raises
    ------
    ConfigurationError
        Others are.
    """
    server = _probe(SSL.TLS_SERVER_METHOD, profile)
    server.set_verify(SSL.VERIFY_PEER, lambda *_: False)
    server.use_certificate(credential.certificate)
    server.use_privatekey(credential.key)
    requested = _requested(server, _probe(SSL.TLS_CLIENT_METHOD, profile))
    wanted = {SIGNATURE_ALGORITHMS[name] for name in profile.signature_algorithms}
    if requested and not requested <= wanted:
        raise ConfigurationError(
            "ClientSignatureAlgorithms is set by OpenSSL's configuration file (OPENSSL_CONF), "
            f"against {profile}"
        )


def _probe(method: int, profile: TLSProfile) -> SSL.Context:
    context = SSL.Context(method)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(b"ECDHE:@SECLEVEL=0")
    engine.set_groups(context, profile.groups)
    engine.set_signature_algorithms(context, profile.signature_algorithms)
    return context


def _requested(server_context: SSL.Context, client_context: SSL.Context) -> set[int]:
    server, client = SSL.Connection(server_context, None), SSL.Connection(client_context, None)
    server.set_accept_state()
    client.set_connect_state()
    with contextlib.suppress(SSL.WantReadError):
        client.do_handshake()
    server.bio_write(client.bio_read(1 << 16))
    # An error says that nothing in common was found: then there is nothing to sign either.
    with contextlib.suppress(SSL.Error):
        server.do_handshake()
    for kind, body in _messages(server.bio_read(1 << 16)):
        if kind == _CERTIFICATE_REQUEST:
            start = 1 + body[0]  # certificate types come first
            length = int.from_bytes(body[start : start + 2], "big")
            codes = body[start + 2 : start + 2 + length]
            return {int.from_bytes(codes[i : i + 2], "big") for i in range(0, length, 2)}
    return set()


def _messages(flight: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and body of the handshake messages in a flight of plain TLS records."""
    stream = bytearray()
    while flight:
        length = int.from_bytes(flight[3:5], "big")
        if flight[0] == _HANDSHAKE:
            stream += flight[5 : 5 + length]
        flight = flight[5 + length :]
    while stream:
        length = int.from_bytes(stream[1:4], "big")
        yield stream[0], bytes(stream[4 : 4 + length])
        del stream[: 4 + length]
