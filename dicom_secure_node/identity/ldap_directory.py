"""User name and passcode, verified by a directory: search, then bind (PS3.15 B.5, RFC 4513).

What happens to one login, on a connection of its own that serves no other:

1. What no directory should be asked is refused: an empty passcode (RFC 4513 5.1.2: the bind
   would succeed, as nobody), a NUL in it (some servers stop reading there), one that is too long.
2. Connect, TLS with the server's name checked, bind as the service account.
3. Search for the entry: exactly one, or the answer will be no.
4. Bind as that entry with the passcode. A name that is not there costs a bind as well, as an
   entry that does not exist: the peer hears the same and waits the same. (A directory with slow
   hashes answers that bind faster than one of a real entry. Then put a `lockout` before it.)
5. The identity is what the entry says, never what the peer typed: directories take "ADA " for
   "ada", and an access rule would not.

A server that does not come to an answer is passed over for the next one, and asked last for a
while; when none comes to an answer, nothing was decided, and the peer hears so (2/3/1).
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from dicom_secure_node.errors import (
    IdentityRefused,
    LimitReached,
    MissingExtra,
    ServiceUnavailable,
)
from dicom_secure_node.identity.claims import (
    Claim,
    Identity,
    IdentityType,
    PeerFacts,
    checked_user,
)
from dicom_secure_node.identity.ldap_settings import LdapSettings
from dicom_secure_node.identity.userfile import MAX_PASSCODE_LENGTH

if TYPE_CHECKING:  # it imports python-ldap, which may not be there
    from dicom_secure_node.identity.ldap_connection import Entry, LdapConnection

logger = logging.getLogger(__name__)

MAX_GROUPS = 1000
_REST = 30.0  # seconds for which a server that failed is asked last


class LdapBackend:
    """Verifies type 2 against a directory.

    Parameters
    ----------
    settings : LdapSettings
        Where it is, and how to search it.
    each : int
        Of the logins that are verified or wait, how many may come from one address.

    Raises
    ------
    MissingExtra
        python-ldap is not installed.
    ConfigurationError
        A filter or a DN cannot be read.
    """

    kinds = frozenset({IdentityType.PASSCODE})

    def __init__(self, settings: LdapSettings, *, each: int = 8) -> None:
        try:
            from dicom_secure_node.identity import ldap_connection
        except ImportError as exc:
            raise MissingExtra("verifying passcodes by a directory", "ldap") from exc
        settings.check_files()
        ldap_connection.check_syntax(settings)
        self._settings = settings
        self._each = each
        self._connect: Callable[[LdapSettings, str, float], LdapConnection]
        self._connect = ldap_connection.LdapConnection
        self._name_below = ldap_connection.name_below
        self._taken: Counter[str] = Counter()  # logins being verified or waiting, by address
        self._guard = threading.Lock()
        self._turns = threading.BoundedSemaphore(settings.workers)
        self._rested: dict[str, float] = {}  # until when a server is asked last

    def verify(self, claim: Claim, peer: PeerFacts) -> Identity:
        """Return who the directory says `claim` is; see `Backend`."""
        deadline = time.monotonic() + self._settings.seconds
        name = claim.user
        # (1)
        if not claim.secondary:
            raise IdentityRefused(f"user {name!r}: the passcode is empty")
        if len(claim.secondary) > MAX_PASSCODE_LENGTH:
            raise IdentityRefused(f"user {name!r}: the passcode is too long")
        if b"\0" in claim.secondary:
            raise IdentityRefused(f"user {name!r}: the passcode holds a NUL")
        with self._turn(peer.address, deadline):
            return self._first_answer(name, claim, deadline)

    @contextlib.contextmanager
    def _turn(self, address: str, deadline: float) -> Iterator[None]:
        """Wait for one of the workers; a crowd beyond the queue hears so at once."""
        settings = self._settings
        with self._guard:
            is_full = self._taken.total() >= settings.workers + settings.queue
            if is_full or self._taken[address] >= self._each:
                raise LimitReached("too many passcodes to verify at a time", diagnostic=1)
            self._taken[address] += 1
        try:
            if not self._turns.acquire(timeout=max(0.0, deadline - time.monotonic())):
                raise LimitReached("waiting for the directory took too long", diagnostic=1)
            try:
                yield
            finally:
                self._turns.release()
        finally:
            with self._guard:
                self._taken[address] -= 1
                if not self._taken[address]:
                    del self._taken[address]

    def _first_answer(self, name: str, claim: Claim, deadline: float) -> Identity:
        now = time.monotonic()
        failures: list[str] = []
        for url in sorted(self._settings.urls, key=lambda url: self._rested.get(url, now) > now):
            if failures and time.monotonic() >= deadline:
                break
            try:
                # (2)
                with self._connect(self._settings, url, deadline) as connection:
                    connection.bind_as_service()
                    identity = self._verified(connection, name, claim)
            except ServiceUnavailable as exc:
                logger.error("%s", exc)
                self._rested[url] = time.monotonic() + _REST
                failures.append(f"{url}: {exc.reason}")
                continue
            except IdentityRefused:
                self._rested.pop(url, None)
                raise
            self._rested.pop(url, None)
            return identity
        raise ServiceUnavailable("directory", "; ".join(failures))

    def _verified(self, connection: LdapConnection, name: str, claim: Claim) -> Identity:
        # (3)
        found = connection.find_user(name)
        # (4)
        one = len(found) == 1 and bool(found[0][0])
        dn = found[0][0] if one else f"cn={secrets.token_hex(12)},{self._settings.base}"
        denied = connection.bind_as(dn, claim.secondary)
        if not one:
            why = "more than one entry in the directory" if found else "unknown user"
            raise IdentityRefused(f"user {name!r}: {why}")
        if denied:
            raise IdentityRefused(f"user {name!r}: {denied}")
        # (5)
        user = self._user_of(found[0], name)
        groups = self._groups_of(found[0], user, connection)
        return Identity(user, claim.kind, groups, {"dn": dn}, how="directory (B.5)")

    def _user_of(self, entry: Entry, name: str) -> str:
        attribute = self._settings.user_attribute
        values = entry[1].get(attribute.lower(), ())
        if len(values) != 1:
            raise IdentityRefused(
                f"user {name!r}: the entry has {len(values)} values of {attribute}, wanted one"
            )
        return checked_user(values[0])

    def _groups_of(self, entry: Entry, user: str, connection: LdapConnection) -> frozenset[str]:
        settings = self._settings
        if settings.groups_filter:
            connection.bind_as_service()  # what users may see of groups is no concern of ours
            entries = connection.find_groups(entry[0], MAX_GROUPS)
            _check_number(len(entries), user)
            key = settings.groups_name.lower()
            names = (_text(value) for _, row in entries for value in row.get(key, ()))
            return frozenset(filter(None, names))
        key = settings.groups_attribute.lower()
        # Active Directory gives a long list in pieces, the first as "memberOf;range=0-1499".
        cut = any(name.startswith(f"{key};range=") for name in entry[1])
        values = entry[1].get(key, ())
        _check_number(MAX_GROUPS + 1 if cut else len(values), user)
        base = settings.groups_base or settings.base
        return frozenset(filter(None, (self._name_below(_text(value), base) for value in values)))


def _check_number(groups: int, user: str) -> None:
    """Refuse a list that may be cut: a rule that denies a group must not miss it."""
    if groups > MAX_GROUPS:
        raise IdentityRefused(f"user {user!r}: in more than {MAX_GROUPS} groups")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
