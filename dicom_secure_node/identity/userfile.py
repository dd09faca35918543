"""The users file: names and Argon2id hashes, in TOML.

::

    [users."ada"]
    hash = "$argon2id$v=19$m=65536,t=3,p=4$...$..."
    added = 2026-03-01T09:30:00Z
    disabled = false

It is written by ``dicom-secure-node user`` and may be edited by hand. The whole file is
replaced at each change, mode 0600.
"""

from __future__ import annotations

import base64
import logging
import os
import re
import threading
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from dicom_secure_node.durable.files import write_atomically
from dicom_secure_node.errors import ConfigurationError, IdentityRefused
from dicom_secure_node.identity.claims import checked_user

logger = logging.getLogger(__name__)

# RFC 9106 section 4, second recommended option but for the lanes: 64 MiB for about 0.3 s.
ITERATIONS, LANES, MEMORY_KIB = 3, 1, 64 * 1024
_PHC = re.compile(
    r"\$argon2id\$v=19\$(?P<cost>m=(?P<m>\d{1,7}),t=(?P<t>\d{1,2}),p=(?P<p>\d{1,2}))"
    r"\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{16,86}"
)
# OpenSSL's threads for hashes of several lanes deadlock when two such hashes overlap.
_ONE_AT_A_TIME = threading.Lock()
_MAX_MEMORY_KIB = 1024 * 1024  # a slip of the pen must not take the machine down
MAX_PASSCODE_LENGTH = 1024  # bytes


@dataclass(frozen=True)
class User:
    """One row of the users file.

    Attributes
    ----------
    name : str
        As the requestor sends it; compared character by character.
    hash : str
        Argon2id in PHC format.
    added : datetime or None
        UTC.
    disabled : bool
        Known, but refused.
    """

    name: str
    hash: str = field(repr=False)
    added: datetime | None = None
    disabled: bool = False


def passcode_line(source: bytes, where: str) -> bytes:
    """Return the passcode in the first line of `source`, what a file or a pipe held.

    Raises
    ------
    ConfigurationError
        It is empty.
    """
    line = source.split(b"\n", 1)[0].removesuffix(b"\r")
    if not line:
        raise ConfigurationError("the passcode is empty", where)
    return line


def hash_passcode(passcode: bytes) -> str:
    """Return a fresh Argon2id PHC string for `passcode`.

    Raises
    ------
    ConfigurationError
        The passcode is empty or longer than 1024 bytes.
    """
    if not passcode:
        raise ConfigurationError("the passcode is empty")
    if len(passcode) > MAX_PASSCODE_LENGTH:
        raise ConfigurationError(f"the passcode is longer than {MAX_PASSCODE_LENGTH} bytes")
    hasher = Argon2id(
        salt=os.urandom(16), length=32, iterations=ITERATIONS, lanes=LANES, memory_cost=MEMORY_KIB
    )
    with _ONE_AT_A_TIME:
        return hasher.derive_phc_encoded(passcode)


def passcode_matches(passcode: bytes, phc: str) -> bool:
    """Return whether `phc` was made from `passcode`; costs one hash either way."""
    with _ONE_AT_A_TIME:
        try:
            Argon2id.verify_phc_encoded(passcode, phc)
        except InvalidKey:
            return False
        return True


@dataclass(frozen=True)
class Users:
    """What a users file held when it was read.

    Attributes
    ----------
    rows : mapping of str to User
        By name, in the order of the file.
    nobody : str
        A PHC string nothing matches, at the cost most rows have: verifying against it takes
        an unknown name the time a known one takes.
    """

    rows: Mapping[str, User]
    nobody: str = field(repr=False)


def parse_users(text: str, where: str) -> Users:
    """Return the users written in `text`, TOML.

    Raises
    ------
    ConfigurationError
        With `where`, the name of the file, and the key that is wrong. Never a hash.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigurationError(f"not TOML: {exc}", where) from exc
    if unknown := set(document) - {"users"}:
        raise ConfigurationError(f"found key {min(unknown)!r}, wanted only [users.NAME]", where)
    tables = document.get("users", {})
    if not isinstance(tables, dict):
        raise ConfigurationError("users is no table, wanted [users.NAME]", where)
    rows = {name: _user(name, table, f"{where}: users.{name!r}") for name, table in tables.items()}
    return Users(MappingProxyType(rows), _nobody(rows.values()))


def _user(name: str, table: Any, where: str) -> User:
    try:
        checked_user(name.encode("utf-8"))
    except IdentityRefused as exc:
        raise ConfigurationError(exc.reason, where) from exc
    if not isinstance(table, dict):
        raise ConfigurationError("found a value, wanted a table", where)
    if unknown := set(table) - {"hash", "added", "disabled"}:
        raise ConfigurationError(
            f"found key {min(unknown)!r}, wanted hash, added or disabled", where
        )
    disabled = table.get("disabled", False)
    if not isinstance(disabled, bool):
        raise ConfigurationError("disabled is neither true nor false", where)
    added = table.get("added")
    if added is not None and not isinstance(added, datetime):
        raise ConfigurationError("added is no date and time", where)
    return User(name, _checked_hash(table.get("hash"), where), added, disabled)


def _checked_hash(phc: Any, where: str) -> str:
    found = _PHC.fullmatch(phc) if isinstance(phc, str) else None
    if found is None:
        raise ConfigurationError("hash is no Argon2id PHC string ($argon2id$v=19$...)", where)
    m, t, p = int(found["m"]), int(found["t"]), int(found["p"])
    if not (8 * p <= m <= _MAX_MEMORY_KIB and t >= 1 and p >= 1):
        raise ConfigurationError(
            f"found the Argon2id cost {found['cost']}, wanted 8p <= m <= {_MAX_MEMORY_KIB}, "
            "t >= 1, p >= 1",
            where,
        )
    return found.string


def _nobody(rows: Any) -> str:
    costs = Counter(_PHC.fullmatch(row.hash)["cost"] for row in rows)  # type: ignore[index]
    ours = f"m={MEMORY_KIB},t={ITERATIONS},p={LANES}"
    cost = costs.most_common(1)[0][0] if costs else ours
    salt, tag = (base64.b64encode(os.urandom(n)).decode().rstrip("=") for n in (16, 32))
    return f"$argon2id$v=19${cost}${salt}${tag}"


def format_users(rows: Mapping[str, User]) -> str:
    """Return `rows` as the text of a users file."""
    lines = ["# Users and hashes of their passcodes. Change with: dicom-secure-node user"]
    for row in rows.values():
        lines += ["", f"[users.{toml_string(row.name)}]", f"hash = {toml_string(row.hash)}"]
        if row.added is not None:
            added = row.added if row.added.tzinfo is None else row.added.astimezone(UTC)
            lines.append(f"added = {added.isoformat().replace('+00:00', 'Z')}")
        if row.disabled:
            lines.append("disabled = true")
    return "\n".join(lines) + "\n"


def toml_string(text: str) -> str:
    """Return `text` as a TOML basic string, also fit for a quoted key."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in escaped) + '"'


class UserFile:
    """A users file that is read again when it changes.

    A new version that cannot be used is reported once, and the last good one stays in force.
    May be shared by threads.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    ConfigurationError
        It is absent or wrong now, at the start.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self._users = read_users(path)

    @property
    def users(self) -> Users:
        """The users in force."""
        with self._lock:
            stamp = self._stamp()
            if stamp != self._seen:
                self._seen = stamp
                try:
                    self._users = read_users(self.path)
                    logger.info("users read again from %s", self.path)
                except ConfigurationError as exc:
                    logger.error("users file unusable, the last good one stays: %s", exc)
            return self._users

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


def read_users(path: Path) -> Users:
    """Return the users in the file `path`.

    Raises
    ------
    ConfigurationError
        The file cannot be read, or its content is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigurationError(f"cannot read: {exc.strerror}", str(path)) from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError("not UTF-8", str(path)) from exc
    return parse_users(text, str(path))


def add_user(path: Path, name: str, passcode: bytes, now: datetime) -> bool:
    """Add `name` to the file `path` (made if absent), or give a known one a new passcode.

    Returns
    -------
    bool
        Whether the name was new.
    """
    try:
        checked_user(name.encode("utf-8", "surrogateescape"))
    except IdentityRefused as exc:
        raise ConfigurationError(exc.reason, str(path)) from exc
    rows = dict(read_users(path).rows) if path.exists() else {}
    new = name not in rows
    row = rows.get(name) or User(name, "", now.replace(microsecond=0))
    rows[name] = replace(row, hash=hash_passcode(passcode), disabled=False)
    _write(path, rows)
    return new


def remove_user(path: Path, name: str) -> bool:
    """Remove `name` from the file `path`; returns whether it was there."""
    rows = dict(read_users(path).rows)
    if rows.pop(name, None) is None:
        return False
    _write(path, rows)
    return True


def _write(path: Path, rows: Mapping[str, User]) -> None:
    try:
        write_atomically(path, format_users(rows).encode("utf-8"), mode=0o600)
    except OSError as exc:
        raise ConfigurationError(f"cannot write: {exc.strerror}", str(path)) from exc
