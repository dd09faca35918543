"""The protected way to a directory: TLS of our own, and libldap at the end of it.

libldap is not left to do TLS. Built with GnuTLS, as Debian's is, it waits for a handshake without
end (``tlsg_session_connect`` calls ``gnutls_handshake`` until it is over), so one server that hangs
would take every login with it; and what it trusts depends on ``ldap.conf`` and the environment.
So the connection, StartTLS and TLS are made here, with a time-out on every read, and a thread
carries the bytes between TLS and the plain socket that libldap gets.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from urllib.parse import urlsplit

from pyasn1.codec.ber import decoder
from pyasn1.error import PyAsn1Error
from pyasn1_modules.rfc2251 import LDAPMessage

from dicom_secure_node.errors import ServiceUnavailable
from dicom_secure_node.identity.ldap_settings import LdapSettings

# RFC 4511 4.14.1: LDAPMessage 1, ExtendedRequest, requestName 1.3.6.1.4.1.1466.20037
_START_TLS = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037"
_LONGEST_ANSWER = 4096  # bytes; a response with nothing but a diagnostic text
_PORTS = {"ldap": 389, "ldaps": 636}


class Channel:
    """A TLS connection to a directory server, and a plain socket that leads into it.

    Parameters
    ----------
    settings : LdapSettings
        Whom to trust, and who we are.
    url : str
        ``ldaps://`` or, for StartTLS, ``ldap://``.
    deadline : float
        By `time.monotonic`; the connection ends then, if not before.

    Raises
    ------
    ServiceUnavailable
        There is no connection, or none that is to be trusted.
    """

    def __init__(self, settings: LdapSettings, url: str, deadline: float) -> None:
        try:
            tls = _connected(settings, url, deadline)
        except ssl.SSLCertVerificationError as exc:
            raise ServiceUnavailable(f"directory {url}", f"TLS: {exc.verify_message}") from exc
        except ssl.SSLError as exc:
            raise ServiceUnavailable(f"directory {url}", f"TLS: {exc.reason or exc}") from exc
        except TimeoutError as exc:
            raise ServiceUnavailable(f"directory {url}", "timed out") from exc
        except OSError as exc:
            raise ServiceUnavailable(f"directory {url}", exc.strerror or str(exc)) from exc
        self._plain, inner = socket.socketpair()
        self._thread = threading.Thread(
            target=_carry,
            args=(tls, inner, settings.timeout, deadline),
            name="directory",
            daemon=True,  # it ends by itself at the deadline
        )
        self._thread.start()

    def detach(self) -> int:
        """Return the descriptor of the plain end, which is the caller's to close from now on."""
        return self._plain.detach()

    def join(self) -> None:
        """Wait for the end, once the plain end is closed."""
        self._thread.join()


def _connected(settings: LdapSettings, url: str, deadline: float) -> ssl.SSLSocket:
    parts = urlsplit(url)
    assert parts.hostname, "checked by LdapSettings"
    context = _context(settings)
    until = min(deadline, time.monotonic() + settings.timeout)
    address = (parts.hostname, parts.port or _PORTS[parts.scheme])
    raw = socket.create_connection(address, _left(until))
    try:
        # Questions and answers are short: waiting to fill a segment would cost 40 ms at each.
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if parts.scheme == "ldap":
            _start_tls(raw, url, until)
        raw.settimeout(_left(until))
        return context.wrap_socket(raw, server_hostname=parts.hostname)
    except BaseException:
        raw.close()
        raise


def _left(until: float) -> float:
    """Return the seconds until then; none left is a time-out."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _context(settings: LdapSettings) -> ssl.SSLContext:
    """Return what to trust, read from the files now, so that renewed ones count."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks certificate and name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN  # an anchor need be no root
    for path in (*settings.trust, *settings.crl):
        context.load_verify_locations(cafile=path)
    if settings.crl:
        context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_CHAIN
    if settings.credential is not None:
        base = settings.credential
        context.load_cert_chain(
            base.with_name(f"{base.name}.crt"),
            base.with_name(f"{base.name}.key"),
            # Without it OpenSSL asks at the terminal for an encrypted key's passphrase.
            password=b"",
        )
    return context


def _start_tls(raw: socket.socket, url: str, until: float) -> None:
    """Agree with the server on TLS; not a byte is read beyond its answer (RFC 4511 4.14)."""
    raw.sendall(_START_TLS)
    head = _read(raw, 2, until)
    length = head[1]
    if length > 0x80:  # X.690 8.1.3.5: what follows is the length of the length
        more = _read(raw, length - 0x80, until)
        head, length = head + more, int.from_bytes(more, "big")
    try:
        if length > _LONGEST_ANSWER:
            raise PyAsn1Error("too long")
        message, _ = decoder.decode(head + _read(raw, length, until), asn1Spec=LDAPMessage())
        code = int(message["protocolOp"]["extendedResp"]["resultCode"])
    except PyAsn1Error as exc:
        raise ServiceUnavailable(f"directory {url}", "does not speak LDAP") from exc
    if code:
        raise ServiceUnavailable(f"directory {url}", f"refuses StartTLS (result {code})")


def _read(raw: socket.socket, length: int, until: float) -> bytes:
    data = b""
    while len(data) < length:
        raw.settimeout(_left(until))
        piece = raw.recv(length - len(data))
        if not piece:
            raise ConnectionError("closed the connection")
        data += piece
    return data


def _carry(tls: ssl.SSLSocket, plain: socket.socket, quiet: float, deadline: float) -> None:
    """Carry bytes both ways until one side ends, nothing moves for `quiet` s, or the deadline."""
    with contextlib.suppress(OSError), plain, tls:
        poll = select.poll()  # select() ends at descriptor 1023
        for one in (tls, plain):
            one.settimeout(quiet)
            poll.register(one, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            ready = {} if tls.pending() else dict(poll.poll(min(quiet, left) * 1000))
            if plain.fileno() in ready:
                source: socket.socket = plain
                sink: socket.socket = tls
            elif ready or tls.pending():
                source, sink = tls, plain
            else:
                return
            data = source.recv(65536)
            if not data:
                return
            sink.sendall(data)
