"""The only module that calls into pyOpenSSL's private side.

pyOpenSSL has no public call to set a list of groups or of signature algorithms, to read into a
caller's buffer without a copy, or to refuse an ALPN offer without a shared list of pending
exceptions. Each private call stands alone here, is looked up once, and has a public fall-back;
`fallbacks` names those in use, and a test fails when a new release makes one necessary.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

logger = logging.getLogger(__name__)

_PUBLIC_CURVES: dict[str, type[ec.EllipticCurve]] = {
    "secp256r1": ec.SECP256R1,
    "secp384r1": ec.SECP384R1,
    "secp521r1": ec.SECP521R1,
}


@functools.cache
def _private(name: str) -> Any | None:
    """Return a function of pyOpenSSL's binding, or None where a release has moved it."""
    return getattr(getattr(SSL, "_lib", None), name, None)


@functools.cache
def fallbacks() -> tuple[str, ...]:
    """Return what this pyOpenSSL makes us do the public and lesser way."""
    checks = {
        "groups": _private("SSL_CTX_set1_curves_list"),
        "signature algorithms": _private("SSL_CTX_set1_sigalgs_list"),
        "reading into a buffer": _private("SSL_read")
        and getattr(SSL, "_ffi", None)
        and hasattr(SSL.Connection, "_raise_ssl_error"),
        "looking for output": _private("BIO_get_mem_data")
        and hasattr(SSL.Connection, "bio_read")
        and getattr(SSL, "_ffi", None),
        "refusing application protocols": hasattr(SSL, "_ALPNSelectHelper"),
    }
    return tuple(name for name, there in checks.items() if not there)


def set_groups(context: SSL.Context, groups: Sequence[str]) -> None:
    """Allow exactly `groups` for key exchange, in this order of preference."""
    if _set_list(context, "SSL_CTX_set1_curves_list", groups):
        return
    first = next(name for name in groups if name in _PUBLIC_CURVES)
    logger.warning("this pyOpenSSL lets us set one group only: %s", first)
    context.set_tmp_ecdh(_PUBLIC_CURVES[first]())


def set_signature_algorithms(context: SSL.Context, algorithms: Sequence[str]) -> None:
    """Allow exactly `algorithms` for signatures in the handshake, in this order."""
    if not _set_list(context, "SSL_CTX_set1_sigalgs_list", algorithms):
        logger.warning("this pyOpenSSL keeps OpenSSL's own list of signature algorithms")


def _set_list(context: SSL.Context, name: str, values: Sequence[str]) -> bool:
    call, pointer = _private(name), getattr(context, "_context", None)
    if call is None or pointer is None:
        return False
    if call(pointer, ":".join(values).encode("ascii")) != 1:
        raise ValueError(f"OpenSSL refuses the list {':'.join(values)}")
    return True


def select_application_protocol(context: SSL.Context, protocol: bytes) -> None:
    """Answer an ALPN offer with `protocol`; end the handshake if it is not in the offer.

    The alert is no_application_protocol (RFC 7301 3.2), which pyOpenSSL sends when the callback
    raises. But it keeps the exception in a list that all connections of the context share, and
    the next one to look, in whatever thread, would raise it. So that list forgets.
    """

    def select(_connection: SSL.Connection, offered: list[bytes]) -> Any:
        if protocol in offered:
            return protocol
        if not forgetful:  # completed without a protocol; the socket refuses afterwards
            return SSL.NO_OVERLAPPING_PROTOCOLS
        raise LookupError("no shared protocol")

    context.set_alpn_select_callback(select)
    helper = getattr(context, "_alpn_select_helper", None)
    forgetful = isinstance(getattr(helper, "_problems", None), list)
    if helper is not None and forgetful:
        helper._problems = _Forgetful()


class _Forgetful(list[Exception]):
    """A list that stays empty."""

    def append(self, _item: Exception) -> None:
        """Do nothing."""


Drain = Callable[[SSL.Connection, memoryview], tuple[int, SSL.Error | None]]

_WANT_READ = SSL.WantReadError()  # one for all: it is made for each lot of records otherwise


def reader() -> Drain:
    """Return the fastest way to decrypt what is at hand into a buffer.

    It returns how many bytes it wrote, and what ended it before the buffer was full.
    """
    if "reading into a buffer" in fallbacks():
        return _read_public
    return _read_private


def _read_public(connection: SSL.Connection, view: memoryview) -> tuple[int, SSL.Error | None]:
    filled = 0
    try:
        while filled < len(view):
            filled += connection.recv_into(view[filled:])
    except SSL.Error as exc:
        return filled, exc
    return filled, None


def _read_private(connection: Any, view: memoryview) -> tuple[int, SSL.Error | None]:
    """Let OpenSSL write the plain text where the caller wants it: no allocation, no copy."""
    read, pointed, size = SSL._lib.SSL_read, connection._ssl, len(view)  # type: ignore[attr-defined]
    filled = 0
    with SSL._ffi.from_buffer(view, require_writable=True) as pointer:  # type: ignore[attr-defined]
        while filled < size:
            count: int = read(pointed, pointer + filled, size - filled)  # a record at a time
            if count <= 0:
                return filled, _ended_by(connection, count)
            filled += count
    return filled, None


def _ended_by(connection: Any, count: int) -> SSL.Error:
    """Return why OpenSSL did not read."""
    if SSL._lib.SSL_get_error(connection._ssl, count) == SSL._lib.SSL_ERROR_WANT_READ:  # type: ignore[attr-defined]
        return _WANT_READ
    try:
        connection._raise_ssl_error(connection._ssl, count)
    except SSL.Error as exc:
        return exc
    return SSL.Error("OpenSSL gives no reason")


def has_output(connection: Any) -> bool:
    """Tell whether OpenSSL has written something to be sent; True where that cannot be known."""
    if "looking for output" in fallbacks():
        return True
    return bool(SSL._lib.BIO_get_mem_data(connection._from_ssl, SSL._ffi.NULL) > 0)  # type: ignore[attr-defined]


def group_name(connection: SSL.Connection) -> str | None:
    """Return the key-exchange group, None where there was none (static RSA) or it is unknown."""
    with contextlib.suppress(NotImplementedError, SSL.Error):
        return connection.get_group_name()
    return None
