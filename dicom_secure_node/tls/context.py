"""TLS contexts of a profile, in the shape of ``ssl.SSLContext`` that pynetdicom asks for.

Nothing is left to OpenSSL's defaults, which a stray ``OPENSSL_CONF`` may change: versions,
suites, groups, signature algorithms, security level and options are all set here; `stray`
refuses what cannot be set.
"""

from __future__ import annotations

import ipaddress
import socket
import tempfile
from collections.abc import Sequence

import service_identity
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL, crypto
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address

from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.pki.credential import Credential
from dicom_secure_node.pki.trust import TrustStore
from dicom_secure_node.spec.tls_suites import Suite
from dicom_secure_node.tls import engine
from dicom_secure_node.tls.dh import FFDHE2048
from dicom_secure_node.tls.facts import TLSFacts
from dicom_secure_node.tls.profiles import TLSProfile
from dicom_secure_node.tls.refusal import TLSRefused
from dicom_secure_node.tls.socket import TLSSocket
from dicom_secure_node.tls.stray import check_client_signatures, check_options
from dicom_secure_node.tls.verify import PeerCheck, Verdict
from dicom_secure_node.tls.weakness import weaknesses

_NAME_ERRORS = (service_identity.VerificationError, service_identity.CertificateError)

_ASK = {
    "require": SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
    "verify": SSL.VERIFY_PEER,
    "ignore": SSL.VERIFY_NONE,
}

_OPTIONS = (
    SSL.OP_NO_COMPRESSION
    | SSL.OP_NO_RENEGOTIATION
    | SSL.OP_NO_TICKET
    | SSL.OP_CIPHER_SERVER_PREFERENCE
    | SSL.OP_SINGLE_DH_USE
    | SSL.OP_SINGLE_ECDH_USE
)


class TLSContext:
    """What server and client contexts have in common.

    Attributes
    ----------
    profile : TLSProfile
        What may be negotiated.
    handshake_seconds : float
        How long a handshake may take where the caller does not say.
    missing : tuple of str
        IANA names of suites the profile wants and this context does not offer.
    """

    def __init__(
        self,
        method: int,
        profile: TLSProfile,
        credentials: Sequence[Credential],
        trust: TrustStore,
        handshake_seconds: float,
    ) -> None:
        if profile.status == "unspeakable":
            raise ConfigurationError(f"{profile} cannot be spoken: {profile.why}")
        self.profile = profile
        self.handshake_seconds = handshake_seconds
        self._trust = trust
        self._context = context = SSL.Context(method)
        context.set_min_proto_version(profile.minimum)
        context.set_max_proto_version(profile.maximum)
        check_options(context.set_options(_OPTIONS), profile)
        # No resumption, in no version: a resumed session would pass by the checks of the
        # peer's certificate, and so by a revocation made since.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_session_id(b"dicom-secure-node")
        offered = self._set_suites(credentials)
        self.missing = tuple(s.name for s in profile.suites if s.openssl not in offered)
        engine.set_groups(context, profile.groups)
        engine.set_signature_algorithms(context, profile.signature_algorithms)
        for credential in credentials:
            self._use(credential)
        if credentials:
            check_client_signatures(credentials[0], profile)
        self._set_trust(trust)

    def connection(self, server_side: bool, server_hostname: str | None) -> SSL.Connection:
        """Return a new connection with memory BIOs, ready to shake hands."""
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(Verdict())
        if server_side:
            connection.set_accept_state()
        else:
            connection.set_connect_state()
            if server_hostname and not _is_address(server_hostname):
                connection.set_tlsext_host_name(_ascii_name(server_hostname).encode())
        return connection

    def check_name(self, facts: TLSFacts, name: str | None) -> None:
        """Check the server's name, on the client's side only; a server has nothing to check."""

    def observed(self, facts: TLSFacts) -> TLSRefused | None:  # noqa: ARG002
        """Return what else an observing server would have refused."""
        return None

    def _suites(self, credentials: Sequence[Credential]) -> list[Suite]:
        raise NotImplementedError

    def _set_suites(self, credentials: Sequence[Credential]) -> set[str]:
        """Offer the suites and return OpenSSL's names of those it took."""
        names = [s.openssl for s in self._suites(credentials) if s.openssl]
        older = [name for name in names if not name.startswith("TLS_")]
        newer = [name for name in names if name.startswith("TLS_")]
        older.append(f"@SECLEVEL={self.profile.security_level}")
        # pyOpenSSL locks a context once a connection has been made of it, and the list can
        # only be read from a connection. So it is set on a second context as well.
        probe = SSL.Context(SSL.TLS_METHOD)
        try:
            for context in (self._context, probe):
                context.set_cipher_list(":".join(older).encode("ascii"))
                context.set_tls13_ciphersuites(":".join(newer).encode("ascii"))
        except SSL.Error as exc:
            kinds = ", ".join(credential.key_kind for credential in credentials) or "no"
            raise ConfigurationError(
                f"no suite of {self.profile} can be served with {kinds} credentials"
            ) from exc
        return set(SSL.Connection(probe).get_cipher_list())

    def _use(self, credential: Credential) -> None:
        """Present `credential` with its own chain.

        Raises
        ------
        ConfigurationError
            A certificate of it is too weak for the profile.
        """
        for certificate in (credential.certificate, *credential.chain):
            weak = weaknesses(certificate, self.profile)
            if weak:
                subject = certificate.subject.rfc4514_string()
                raise ConfigurationError(
                    f"certificate {subject!r} has {'; '.join(weak)} ({self.profile})"
                )
        # The public way to a chain for each credential is a file; no key goes into it.
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            for certificate in (credential.certificate, *credential.chain):
                file.write(certificate.public_bytes(Encoding.PEM))
            file.flush()
            self._context.use_certificate_chain_file(file.name)
        self._context.use_privatekey(credential.key)

    def _set_trust(self, trust: TrustStore) -> None:
        store = self._context.get_cert_store()
        if store is None:  # pyOpenSSL's type allows it; OpenSSL's contexts always have one
            raise ConfigurationError("this TLS library has no certificate store")
        for anchor in trust.anchors:
            store.add_cert(crypto.X509.from_cryptography(anchor))
        # An intermediate or a single peer may be the anchor: what is configured is trusted.
        flags = crypto.X509StoreFlags.PARTIAL_CHAIN
        if trust.check_revocation:
            flags |= crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL
            for crl in trust.crls:
                store.add_crl(crl)
        store.set_flags(flags)


class ServerContext(TLSContext):
    """TLS for a listener.

    Parameters
    ----------
    profile : TLSProfile
        One of `profiles.PROFILES`.
    credentials : sequence of Credential
        At most one of each kind, RSA and EC; each is presented with its own chain.
    trust : TrustStore
        Whose clients are let in.
    client_certificate : str
        ``require``, ``verify`` (let in without, but check what is sent) or ``ignore``.
    handshake_seconds : float
        For the whole handshake.
    observe : bool
        Let every client in, and tell in `TLSFacts.observed` why it would have been refused.
        What both sides have to agree upon (versions, suites) is not observed but demanded.

    Raises
    ------
    ConfigurationError
        A credential is missing, too weak or not meant for servers, there is no anchor, or
        OpenSSL's own configuration file stands in the way.
    """

    def __init__(
        self,
        profile: TLSProfile,
        credentials: Sequence[Credential],
        trust: TrustStore,
        client_certificate: str = "require",
        handshake_seconds: float = 10.0,
        observe: bool = False,
    ) -> None:
        _check_kinds(profile, credentials)
        for credential in credentials:
            _check_usage(credential, ExtendedKeyUsageOID.SERVER_AUTH, "servers")
        if client_certificate not in _ASK:
            raise ConfigurationError(
                f"found client_certificate {client_certificate!r}, wanted require, verify or ignore"
            )
        if client_certificate != "ignore" and not trust.anchors:
            raise ConfigurationError("found no trust anchor to check client certificates by")
        super().__init__(SSL.TLS_SERVER_METHOD, profile, credentials, trust, handshake_seconds)
        self.client_certificate = client_certificate
        self.observe = observe
        asked = "verify" if observe and client_certificate == "require" else client_certificate
        self._context.set_verify(_ASK[asked], PeerCheck(profile, trust, observe))
        for anchor in trust.anchors:
            self._context.add_client_ca(anchor)
        if profile.alpn:  # else an offer is passed over (RFC 7301 3.2)
            engine.select_application_protocol(self._context, profile.alpn)
        if any(s.ephemeral_dh for s in profile.tls12_suites):
            with tempfile.NamedTemporaryFile(suffix=".pem") as file:
                file.write(FFDHE2048)
                file.flush()
                self._context.load_tmp_dh(file.name)

    def wrap_socket(
        self,
        sock: socket.socket,
        server_side: bool = True,  # noqa: ARG002 (of ssl.SSLContext)
        server_hostname: str | None = None,
    ) -> TLSSocket:
        """Return `sock` as a TLS socket; hands are shaken later, see `TLSSocket.handshake`."""
        return TLSSocket(self, sock, True, server_hostname)

    def observed(self, facts: TLSFacts) -> TLSRefused | None:
        """Return the refusal of a client without certificate where one is demanded."""
        if not self.observe or self.client_certificate != "require" or facts.peer_chain:
            return None
        return TLSRefused("no certificate", "the peer sent no certificate")

    def _suites(self, credentials: Sequence[Credential]) -> list[Suite]:
        kinds = {credential.key_kind for credential in credentials}
        return [s for s in self.profile.suites if s.key is None or s.key in kinds]


class ClientContext(TLSContext):
    """TLS for an association requestor.

    Parameters
    ----------
    profile : TLSProfile
        One of `profiles.PROFILES`.
    credential : Credential or None
        What to present when the server asks; B.12 encourages to have one.
    trust : TrustStore
        Whose servers are believed.
    check_name : bool
        Whether the server's certificate has to be for the name or address called.
    handshake_seconds : float
        For the whole handshake.

    Raises
    ------
    ConfigurationError
        The credential is too weak or not meant for clients, or there is no anchor.
    """

    def __init__(
        self,
        profile: TLSProfile,
        credential: Credential | None,
        trust: TrustStore,
        check_name: bool = True,
        handshake_seconds: float = 10.0,
    ) -> None:
        if credential:
            _check_usage(credential, ExtendedKeyUsageOID.CLIENT_AUTH, "clients")
        if not trust.anchors:
            raise ConfigurationError("found no trust anchor to check the server by")
        credentials = (credential,) if credential else ()
        super().__init__(SSL.TLS_CLIENT_METHOD, profile, credentials, trust, handshake_seconds)
        self._names = check_name
        self._context.set_verify(SSL.VERIFY_PEER, PeerCheck(profile, trust))
        if profile.alpn:
            self._context.set_alpn_protos([profile.alpn])

    def wrap_socket(
        self,
        sock: socket.socket,
        server_side: bool = False,  # noqa: ARG002 (of ssl.SSLContext)
        server_hostname: str | None = None,
    ) -> TLSSocket:
        """Return `sock` as a TLS socket; ``connect`` shakes hands.

        Parameters
        ----------
        sock : socket.socket
            Connected or not.
        server_side : bool
            Of ``ssl.SSLContext``; a client context has one side only.
        server_hostname : str, optional
            DNS name or IP address the certificate has to be for; the address given to
            ``connect`` if left out.
        """
        return TLSSocket(self, sock, False, server_hostname)

    def check_name(self, facts: TLSFacts, name: str | None) -> None:
        """Refuse a server whose certificate is for another name (RFC 9525).

        Raises
        ------
        TLSRefused
            Of the kind ``wrong name``.
        """
        if not self._names:
            return
        certificate = facts.peer_certificate
        if certificate is None or not name:
            raise TLSRefused("wrong name", "found no name to check the server's certificate by")
        try:
            if _is_address(name):
                verify_certificate_ip_address(certificate, name)
            else:
                verify_certificate_hostname(certificate, _ascii_name(name))
        except (*_NAME_ERRORS, ValueError) as exc:  # ValueError: the name is none
            raise TLSRefused("wrong name", f"the server's certificate is not for {name!r}") from exc

    def _suites(self, credentials: Sequence[Credential]) -> list[Suite]:  # noqa: ARG002
        # At level 0 nothing stops a server from using a small Diffie-Hellman group, and we
        # could not tell: "do not select DHE suites with a stack that cannot set the size".
        allowed = self.profile.security_level > 0
        return [s for s in self.profile.suites if allowed or not s.ephemeral_dh]


def _check_kinds(profile: TLSProfile, credentials: Sequence[Credential]) -> None:
    kinds = sorted(credential.key_kind for credential in credentials)
    if not kinds:
        raise ConfigurationError("found no credential, wanted a server certificate and its key")
    if len(set(kinds)) < len(kinds):
        raise ConfigurationError(f"found credentials {', '.join(kinds)}, wanted one of each kind")
    if profile.both_server_keys and kinds != ["EC", "RSA"]:
        raise ConfigurationError(
            f"found an {kinds[0]} credential only; a server of {profile} has to have one RSA and "
            "one EC credential to serve every required suite"
        )


def _check_usage(credential: Credential, usage: x509.ObjectIdentifier, whom: str) -> None:
    try:
        extension = credential.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        return  # no restriction
    if (
        usage not in extension.value
        and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in extension.value
    ):
        raise ConfigurationError(
            f"certificate {credential.subject!r} is not meant for TLS {whom} (extended key usage)"
        )


def _ascii_name(name: str) -> str:
    """Return a DNS name as the wire and certificates have it (RFC 5890).

    Raises
    ------
    TLSRefused
        It is none.
    """
    try:
        return name.encode("idna").decode("ascii")
    except UnicodeError as exc:
        raise TLSRefused("wrong name", f"{name!r} is no host name") from exc


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
