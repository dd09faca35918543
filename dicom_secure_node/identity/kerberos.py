"""Kerberos tickets as user identity, both sides (PS3.15 B.6; RFC 4120 3.2).

The Primary-field of type 3 is an AP-REQ: the service ticket and an authenticator, fresh for
each association. Some toolkits wrap it for GSS (RFC 4121 4.1); we take both and answer as we
were asked. `KerberosBackend` verifies them, `OutgoingTicket` makes one and checks the answer,
the only proof of the *service* Kerberos gives.

An authenticator seen before is refused (RFC 4120 3.2.3: the same user, service and time to the
microsecond) until it is too old anyway. libkrb5's own replay cache is not used: it counts from
when a request was seen, which forgets one from a clock ahead of ours too early, and it may
lose the last ones in a power cut.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType, TracebackType

from dicom_secure_node.errors import (
    ConfigurationError,
    IdentityRefused,
    PeerRefused,
    ServiceUnavailable,
)
from dicom_secure_node.identity.claims import (
    Claim,
    Identity,
    IdentityType,
    PeerFacts,
    checked_user,
)
from dicom_secure_node.identity.krb5 import (
    Accepted,
    Krb5Error,
    Request,
    accept_request,
    check_keytab,
)
from dicom_secure_node.identity.replay import ReplayStore, Uses, utc_now

MAX_TICKET_LENGTH = 48_000  # bytes; what Windows allows its own (MaxTokenSize)

_AP_REQ, _AP_REP, _GSS = 0x6E, 0x6F, 0x60  # first bytes (RFC 4120 5.5, RFC 2743 3.1)
_KERBEROS_OID = bytes.fromhex("06092a864886f712010202")  # RFC 4121 4.1
_AP_REQ_TOKEN, _AP_REP_TOKEN = b"\x01\x00", b"\x02\x00"  # RFC 4121 4.1

_BASE = -1765328384  # of the krb5 error table; RFC 4120's codes 0 to 127 come first
_NO_KEY, _NOT_US, _SKEWED = _BASE + 45, _BASE + 35, _BASE + 37
_REFUSALS = {
    # code: the reason in words. RFC 4120 7.5.9, and below it what only libkrb5 has.
    _BASE + 14: "encryption type not supported",
    _BASE + 31: "damaged, or made with a key that is not ours",
    _BASE + 32: "ticket expired",
    _BASE + 33: "ticket not yet valid",
    _NOT_US: "ticket for another service",
    _BASE + 36: "ticket and authenticator name different users",
    _SKEWED: "the requestor's clock and ours differ too much",
    _BASE + 3: "not Kerberos version 5",
    _BASE + 39: "not Kerberos version 5",
    _BASE + 40: "not an AP-REQ",
    _BASE + 41: "damaged",
    _BASE + 44: "no key of this version in the keytab",
    _NO_KEY: "no key for this ticket in the keytab",
    _BASE + 50: "checksum not acceptable",
    _BASE + 51: "the ticket came through a realm not trusted",
    _BASE + 144: "ticket for another service",
    _BASE + 145: "ticket not valid yet (postdated)",
    _BASE + 138: "not an AP-REQ",
    _BASE + 188: "encryption type not supported",
    _BASE + 236: "encryption type not permitted",
}
_ASN1 = range(1859794432, 1859794432 + 32)
# Codes of what is ours: errno, krb5.conf. Nothing was decided.
_NO_DEFAULT_REALM = _BASE + 224
_OURS = (
    range(1, 256),
    range(_BASE + 135, _BASE + 138),
    range(_NO_DEFAULT_REALM, _NO_DEFAULT_REALM + 1),
    range(-1429577728, -1429577700),
)

Clock = Callable[[], datetime]


class KerberosBackend:
    """Verifies type 3 with the keys of a keytab.

    Parameters
    ----------
    keytab : Path
        The service's keys; libkrb5 opens it for each claim, so a new one counts at once.
    principal : str, optional
        The service a ticket has to be for, ``dicom/host@REALM``. By default any ``dicom/...``
        in the keytab: a ticket for another service of this host is no good here.
    used : Uses, optional
        Remembers what was seen; in memory only by default, so that a restart forgets it.
    skew : timedelta
        How far the requestor's clock may be from ours; ``clockskew`` in ``krb5.conf``, 5
        minutes by default, holds as well.
    realms : collection of str
        Realms users may come from, besides the service's own. That the key distribution
        centres trust each other is not enough.
    clock : callable
        Returns the present time, aware.

    Raises
    ------
    ConfigurationError
        The keytab or libkrb5 cannot be used.
    """

    kinds = frozenset({IdentityType.KERBEROS})

    def __init__(
        self,
        keytab: Path,
        principal: str | None = None,
        *,
        used: Uses | None = None,
        skew: timedelta = timedelta(minutes=5),
        realms: Collection[str] = (),
        clock: Clock = utc_now,
    ) -> None:
        self._keytab = f"FILE:{keytab.absolute()}"
        self._principal = principal
        self._used = used if used is not None else ReplayStore(clock=clock)
        self._skew = skew
        self._realms = frozenset(realm.encode() for realm in realms)
        self._clock = clock
        try:
            check_keytab(self._keytab, principal)
        except Krb5Error as exc:
            raise ConfigurationError(f"cannot use the keytab: {exc.text}", str(keytab)) from exc

    def verify(self, claim: Claim, peer: PeerFacts) -> Identity:  # noqa: ARG002
        """Return the principal the ticket in `claim` was given to; see `Backend`."""
        message, framed = _unframed(claim.primary)
        now = self._clock()
        try:
            accepted = accept_request(
                message,
                self._keytab,
                self._principal,
                answer=claim.response_requested,
                now=int(now.timestamp()),
            )
        except Krb5Error as exc:
            raise self._refusal(exc) from exc
        self._check_service(accepted)
        user = _user(accepted)
        self._check_realm(accepted, user)
        self._check_first_use(accepted, user, now)
        answer = accepted.answer
        return Identity(
            user,
            claim.kind,
            attributes=MappingProxyType({"realm": accepted.client_realm.decode()}),
            how="Kerberos ticket (B.6)",
            response=_framed(_AP_REP_TOKEN, answer) if framed and answer else answer,
        )

    def _check_service(self, accepted: Accepted) -> None:
        if self._principal is None and not accepted.service.startswith(b"dicom/"):
            service = _quoted(accepted.service.decode("utf-8", "replace"))
            raise IdentityRefused(f"Kerberos: ticket for another service: {service}")

    def _check_realm(self, accepted: Accepted, user: str) -> None:
        if accepted.client_realm not in {accepted.service_realm, *self._realms}:
            raise IdentityRefused(f"Kerberos: user {user!r} is of a realm not taken here")

    def _check_first_use(self, accepted: Accepted, user: str, now: datetime) -> None:
        if abs(accepted.made - now) > self._skew:
            raise IdentityRefused(f"Kerberos: user {user!r}: {_REFUSALS[_SKEWED]}")
        key = repr((accepted.client, accepted.service, accepted.made))
        # A second more: libkrb5 was told the time without fractions.
        until = accepted.made + self._skew + timedelta(seconds=1)
        if not self._used.use(f"kerberos {key}", until):
            raise IdentityRefused(f"Kerberos: user {user!r}: the ticket was replayed")

    def close(self) -> None:
        """Let the replay store go."""
        self._used.close()

    def _refusal(self, error: Krb5Error) -> Exception:
        """Return the error for what libkrb5 says."""
        code = error.code
        words = "damaged, or not a Kerberos ticket" if code in _ASN1 else _REFUSALS.get(code)
        if words is None or code in (_NO_KEY, _NOT_US):
            # Said, too, where the keytab has gone or cannot be read.
            try:
                check_keytab(self._keytab, None)
            except Krb5Error as exc:
                return ServiceUnavailable("Kerberos keytab", _quoted(exc.text))
        if any(code in codes for codes in _OURS):
            return ServiceUnavailable("Kerberos", _quoted(error.text))
        return IdentityRefused(f"Kerberos: {words or 'not valid'}: {_quoted(error.text)}")


class OutgoingTicket:
    """A claim of type 3, and the check of what the peer answers.

    Made for one association: an acceptor takes an AP-REQ once. Use it in a ``with`` block, or
    `close` it. ::

        with OutgoingTicket("dicom/pacs.example") as ticket:
            association = associate(..., identity=ticket.claim)
            ticket.confirm(answer)      # before any DIMSE message; abort where it raises

    Parameters
    ----------
    principal : str
        The service, ``dicom/HOST`` or ``dicom/HOST@REALM``; taken literally, the DNS is not
        asked for another name of it.
    cache : str, optional
        Credential cache, ``FILE:/path``; by default the user's (``KRB5CCNAME``).
    ask_response : bool
        Have the peer prove that it is the service.
    gss : bool
        Wrap the AP-REQ for a peer that uses GSS (RFC 4121); PS3.7 says bare.
    clock : callable, optional
        Returns the time to put into the authenticator.

    Attributes
    ----------
    claim : Claim
        What to send.

    Raises
    ------
    ConfigurationError
        There is no ticket in the cache, it has expired, or the realm knows no such service.
    ServiceUnavailable
        No KDC answers.
    """

    def __init__(
        self,
        principal: str,
        *,
        cache: str | None = None,
        ask_response: bool = True,
        gss: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._principal = principal
        try:
            self._request = Request(
                principal,
                cache=cache,
                mutual=ask_response,
                gss=gss,
                now=int(clock().timestamp()) if clock else None,
            )
        except Krb5Error as exc:
            raise _no_ticket(principal, exc) from exc
        message = self._request.message
        self.claim = Claim(
            IdentityType.KERBEROS,
            _framed(_AP_REQ_TOKEN, message) if gss else message,
            response_requested=ask_response,
        )

    def confirm(self, answer: bytes | None) -> None:
        """Check the Server-response of the sub-item 59H, None where the peer sent none.

        Nothing is checked where no response was asked for (PS3.7 D.3.3.7).

        Raises
        ------
        PeerRefused
            The peer did not prove that it is the service: abort, before any data flows.
        """
        if not self.claim.response_requested:
            return
        if not answer:
            raise PeerRefused(f"{self._principal}: did not confirm the Kerberos ticket (B.6)")
        if answer.startswith(bytes([_GSS])):
            answer = _content(answer, _AP_REP_TOKEN) or answer
        if answer[0] != _AP_REP or len(answer) > MAX_TICKET_LENGTH:
            raise PeerRefused(f"{self._principal}: answered the Kerberos ticket with no AP-REP")
        try:
            self._request.check(answer)
        except Krb5Error as exc:
            raise PeerRefused(
                f"{self._principal}: its answer to the Kerberos ticket does not verify: "
                f"{_quoted(exc.text)}"
            ) from exc

    def close(self) -> None:
        """Forget the session key."""
        self._request.close()

    def __enter__(self) -> OutgoingTicket:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


_NO_KDC = frozenset(_BASE + n for n in (154, 156, 220))  # realm unknown, unreachable, unresolved
_NOTHING_CACHED = frozenset(_BASE + n for n in (32, 139, 141, 142, 195))


def _no_ticket(principal: str, error: Krb5Error) -> Exception:
    if error.code in _NO_KDC:
        return ServiceUnavailable("Kerberos KDC", _quoted(error.text))
    hint = "; kinit gets one" if error.code in _NOTHING_CACHED else ""
    return ConfigurationError(f"no Kerberos ticket for {principal!r}: {_quoted(error.text)}{hint}")


# -- framing -------------------------------------------------------------------------------


def _unframed(field: bytes) -> tuple[bytes, bool]:
    """Return the AP-REQ in a Primary-field, and whether it was wrapped for GSS."""
    if len(field) > MAX_TICKET_LENGTH:
        raise IdentityRefused(
            f"Kerberos: ticket of {len(field)} bytes, wanted at most {MAX_TICKET_LENGTH}"
        )
    if field[:1] == bytes([_AP_REQ]):
        return field, False
    if field[:1] != bytes([_GSS]):
        raise IdentityRefused("Kerberos: not a ticket: neither AP-REQ nor GSS token")
    message = _content(field, _AP_REQ_TOKEN)
    if message is None:
        raise IdentityRefused("Kerberos: not a ticket: GSS token of another mechanism, or damaged")
    return message, True


def _content(token: bytes, kind: bytes) -> bytes | None:
    """Return what a GSS token of `kind` holds, None where it is no such token."""
    head = 2
    if len(token) > 1 and token[1] & 0x80:
        head += token[1] & 0x7F
    start = _KERBEROS_OID + kind
    if token != _tlv(_GSS, token[head:]) or not token.startswith(start, head):
        return None
    return token[head + len(start) :]


def _framed(kind: bytes, message: bytes) -> bytes:
    return _tlv(_GSS, _KERBEROS_OID + kind + message)


def _tlv(tag: int, content: bytes) -> bytes:
    """Return the DER encoding of `content` (X.690 8.1.3, definite form)."""
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


# -- words ---------------------------------------------------------------------------------


def _user(accepted: Accepted) -> str:
    user = checked_user(accepted.client)
    if user.startswith("WELLKNOWN/"):
        # RFC 8062: the KDC vouches for nobody.
        raise IdentityRefused(f"Kerberos: {user!r} names nobody")
    return user


def _quoted(text: str) -> str:
    """Return the library's words, which may quote a peer, fit for one line of a log."""
    return repr(text if len(text) <= 200 else text[:200] + "...")
