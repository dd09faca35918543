"""What to know about a directory before asking it: `LdapSettings`, checked once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.identity.userfile import passcode_line
from dicom_secure_node.pki.credential import load_credential_base
from dicom_secure_node.pki.trust import load_trust

_ATTRIBUTE = re.compile(r"[A-Za-z][A-Za-z0-9-]*")  # RFC 4512 1.4, descr


@dataclass(frozen=True)
class LdapSettings:
    """``[identity.ldap]``: where the directory is, how to search it, and what of it to use.

    Attributes
    ----------
    urls : tuple of str
        ``ldaps://HOST[:PORT]`` or, with `start_tls`, ``ldap://HOST[:PORT]``; asked in this order.
    base : str
        Below which users are searched.
    trust, crl : tuple of Path
        PEM files; read at every connection, so renewed ones count at once.
    start_tls : bool
        Make ``ldap://`` safe before anything is said. There is no way without.
    credential : Path or None
        Base name of our certificate and key (PEM, unencrypted) for the directory. Without
        `bind_dn` it is also who we are there (SASL EXTERNAL).
    bind_dn : str
        The account we search as; empty for EXTERNAL or nobody.
    bind_passcode_file : Path or None
        Its passcode, in the first line; read at every connection.
    filter : str
        Finds one entry; ``{user}`` is the name the peer sent, escaped.
    scope : str
        ``subtree`` or ``one`` (level below `base`).
    user_attribute : str
        Holds the name the user goes by from here on, whatever the peer typed: one value.
    groups_attribute : str
        Holds the DNs of the user's groups; empty for none.
    groups_base : str
        Groups elsewhere do not count; `base` where empty. A group's name is the first part of
        its DN, so who may make groups here can make one of any name.
    groups_filter : str
        Finds groups by searching instead: ``{dn}`` is the user's.
    groups_name : str
        Then holds a group's name.
    workers, queue : int
        Logins verified at a time, and how many more may wait.
    timeout : float
        Seconds one server may take for one step.
    seconds : float
        How long one login may take, all servers and waiting included.

    Raises
    ------
    ConfigurationError
        Something is wrong. The files are looked at by `check_files`.
    """

    urls: tuple[str, ...]
    base: str
    trust: tuple[Path, ...]
    crl: tuple[Path, ...] = ()
    start_tls: bool = True
    credential: Path | None = None
    bind_dn: str = ""
    bind_passcode_file: Path | None = None
    filter: str = "(uid={user})"
    scope: Literal["subtree", "one"] = "subtree"
    user_attribute: str = "uid"
    groups_attribute: str = "memberOf"
    groups_base: str = ""
    groups_filter: str = ""
    groups_name: str = "cn"
    workers: int = 2
    queue: int = 20
    timeout: float = 3.0
    seconds: float = 10.0

    def __post_init__(self) -> None:
        if not self.urls:
            raise ConfigurationError("found no urls, wanted at least one directory server")
        for url in self.urls:
            self._check_url(url)
        if not self.base:
            raise ConfigurationError("base is empty, wanted the DN below which users are")
        self._check_search()
        if self.workers < 1 or self.queue < 0:
            raise ConfigurationError("found workers or queue out of range, wanted at least 1")
        if not (self.timeout > 0 and self.seconds > 0):
            raise ConfigurationError("found no timeout or seconds, wanted more than 0")
        if bool(self.bind_dn) != (self.bind_passcode_file is not None):
            # RFC 4513 5.1.2: a name without a passcode would bind as nobody, and say it went well.
            raise ConfigurationError(
                "found one of bind_dn and bind_passcode_file, wanted both or neither"
            )

    def _check_url(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            wrong = parts.port == 0
        except ValueError:
            wrong = True
        if wrong or not re.fullmatch(r"ldaps?://([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?/?", url):
            raise ConfigurationError(f"found {url!r} in urls, wanted ldaps://HOST[:PORT]")
        if parts.scheme == "ldap" and not self.start_tls:
            raise ConfigurationError(
                f"found {url!r} without start_tls, wanted ldaps:// or start_tls = true: "
                "passcodes do not travel in clear"
            )

    def _check_search(self) -> None:
        _check_filter("filter", self.filter, "user")
        if self.groups_filter:
            _check_filter("groups_filter", self.groups_filter, "dn")
        if self.scope not in ("subtree", "one"):
            raise ConfigurationError(f"found scope {self.scope!r}, wanted 'subtree' or 'one'")
        for key in ("user_attribute", "groups_attribute", "groups_name"):
            name = getattr(self, key)
            if not _ATTRIBUTE.fullmatch(name) and (name or key != "groups_attribute"):
                raise ConfigurationError(f"found {name!r} in {key}, wanted an attribute's name")

    def check_files(self) -> None:
        """Read every file named here once.

        Raises
        ------
        ConfigurationError, InvalidCertificate
            One is missing, or does not hold what it should.
        """
        load_trust(self.trust, self.crl)
        for path in (*self.trust, *self.crl):
            if b"-----BEGIN " not in path.read_bytes():
                raise ConfigurationError("found DER, wanted PEM", str(path))
        if self.credential is not None:
            load_credential_base(self.credential)
        if self.bind_passcode_file is not None:
            self.bind_passcode()

    def bind_passcode(self) -> bytes:
        """Return the passcode of `bind_dn`, read now.

        Raises
        ------
        ConfigurationError
            The file cannot be read, or its first line is empty.
        """
        assert self.bind_passcode_file is not None
        where = str(self.bind_passcode_file)
        try:
            return passcode_line(self.bind_passcode_file.read_bytes(), where)
        except OSError as exc:
            raise ConfigurationError(f"cannot read: {exc.strerror}", where) from exc


def _check_filter(key: str, text: str, name: str) -> None:
    # The syntax is checked by libldap, see `ldap_directory`; here only what we put in.
    if f"{{{name}}}" not in text or re.sub(rf"\{{{name}\}}", "", text).strip("()") == "":
        raise ConfigurationError(f"found {text!r} in {key}, wanted an LDAP filter with {{{name}}}")
