"""Logging in and out: forms, their tokens, and the lock-out of `identity` before the passcodes."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from dicom_secure_node.audit_web.reporting import Reports
from dicom_secure_node.audit_web.sessions import Session, Sessions
from dicom_secure_node.errors import IdentityRefused, InvalidInput
from dicom_secure_node.identity.claims import Backend, Claim, IdentityType, PeerFacts
from dicom_secure_node.identity.lockout import Lockout
from dicom_secure_node.identity.userfile import UserFile

SESSION_COOKIE = "__Host-session"
FORM_COOKIE = "__Host-form"
_BODY_LIMIT = 8192  # octets
_BODY_SECONDS = 10.0
_FIELDS = 16
# Where to go after the login: one of our own pages, or the first one.
_OWN = re.compile(r"/(?:failures|counts|message/[0-9]{1,19})?(?:\?[A-Za-z0-9_.~%+&=:*-]{0,2048})?")


class Entry:
    """Knows who is who.

    Parameters
    ----------
    backend : Backend
        Verifies user name and passcode, behind `lockout`.
    lockout : Lockout
        Asked first, too: attempts of those who are locked out are reported as a sum.
    users : UserFile
        The same users: one who is removed, disabled or has another passcode is logged out.
    sessions : Sessions
    reports : Reports
    """

    def __init__(
        self,
        backend: Backend,
        lockout: Lockout,
        users: UserFile,
        sessions: Sessions,
        reports: Reports,
    ) -> None:
        self._backend = backend
        self._lockout = lockout
        self._users = users
        self._sessions = sessions
        self._reports = reports

    def session(self, request: Request) -> Session | None:
        """Return who is logged in."""
        word = request.cookies.get(SESSION_COOKIE, "")
        found = self._sessions.find(word) if word else None
        if found is not None and self._stamp(found.user) != found.stamp:
            self._sessions.end(word)
            return None
        return found

    def verify(self, user: str, passcode: str, address: str) -> str:
        """Return the stamp of a user who is let in; reported either way.

        Raises
        ------
        IdentityRefused
            Not this one, or not now.
        LimitReached, ServiceUnavailable
            Nothing was decided, or it could not be reported.
        """
        try:
            self._lockout.check(user, address)
        except IdentityRefused as exc:
            self._reports.refused_unheard(user, address, exc.reason)
            raise
        claim = Claim(IdentityType.PASSCODE, _octets(user), _octets(passcode))
        try:
            self._backend.verify(claim, PeerFacts(address=address, protected=True))
            stamp = self._stamp(user)
            if not stamp:
                raise IdentityRefused(f"user {user!r}: removed just now")
        except IdentityRefused as exc:
            self._reports.refused(user, address, exc.reason)
            raise
        self._reports.logged_in(user, address)
        return stamp

    def begin(self, request: Request, response: Response, user: str, stamp: str) -> None:
        """Begin a session; whatever session the browser had before ends."""
        self._sessions.end(request.cookies.get(SESSION_COOKIE, ""))
        _set_cookie(response, SESSION_COOKIE, self._sessions.begin(user, stamp))
        _drop_cookie(response, FORM_COOKIE)

    def end(self, request: Request, response: Response) -> None:
        """End the session."""
        self._sessions.end(request.cookies.get(SESSION_COOKIE, ""))
        _drop_cookie(response, SESSION_COOKIE)

    def _stamp(self, user: str) -> str:
        row = self._users.users.rows.get(user)
        return row.hash if row is not None and not row.disabled else ""


def new_form_token(response: Callable[[str], Response]) -> Response:
    """Return the login form, with a token in it and the same one in a cookie."""
    token = secrets.token_urlsafe(32)
    made = response(token)
    _set_cookie(made, FORM_COOKIE, token)
    return made


def form_token(request: Request) -> str:
    """Return the token the login form has to hold."""
    return request.cookies.get(FORM_COOKIE, "")


def same(given: str, wanted: str) -> bool:
    """Return whether a token is the right one; an empty one never is."""
    return bool(wanted) and secrets.compare_digest(_octets(given), _octets(wanted))


def from_ourselves(request: Request) -> bool:
    """Return whether a form was sent from a page of ours, as far as the browser says."""
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site", "same-origin")
    own = f"https://{request.headers.get('host', '')}"
    return site == "same-origin" and origin in (None, own)


def own_page(target: str) -> str:
    """Return `target` if it is a page of ours, otherwise the first one."""
    return target if _OWN.fullmatch(target) else "/"


async def form(request: Request) -> dict[str, str]:
    """Return the fields of a form.

    Raises
    ------
    InvalidInput
        It is none, too long, or too slow.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise InvalidInput("another content type", "a form")
    try:
        octets = await asyncio.wait_for(_body(request), _BODY_SECONDS)
        pairs = parse_qsl(
            octets.decode("ascii"), True, encoding="utf-8", errors="strict", max_num_fields=_FIELDS
        )
    except (TimeoutError, ValueError) as exc:
        raise InvalidInput("something else", "a form of ours") from exc
    return dict(pairs)


async def _body(request: Request) -> bytes:
    found = b""
    async for piece in request.stream():
        found += piece
        if len(found) > _BODY_LIMIT:
            raise ValueError("too long")
    return found


def _set_cookie(response: Response, name: str, value: str) -> None:
    response.set_cookie(name, value, path="/", secure=True, httponly=True, samesite="strict")


def _drop_cookie(response: Response, name: str) -> None:
    response.delete_cookie(name, path="/", secure=True, httponly=True, samesite="strict")


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
