"""One connection to a directory, by python-ldap; import it only where that is installed.

It is protected before libldap hears of it (`ldap_tls`). What is left of libldap's traps: a bind
without a passcode succeeds, referrals are followed unless that is switched off, and ``ldap.conf``
and the environment set what we do not.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType

import ldap
import ldap.dn
from ldap.controls import DecodeControlTuples
from ldap.controls.ppolicy import PasswordPolicyControl
from ldap.filter import escape_filter_chars

from dicom_secure_node.errors import ConfigurationError, ServiceUnavailable
from dicom_secure_node.identity.ldap_settings import LdapSettings
from dicom_secure_node.identity.ldap_tls import Channel

Entry = tuple[str, Mapping[str, Sequence[bytes]]]  # DN, values by attribute in lower case

# The directory looked, and the answer is no. Everything else is no answer.
_NO = (
    ldap.INVALID_CREDENTIALS,
    ldap.INAPPROPRIATE_AUTH,  # the entry has no passcode
    ldap.INSUFFICIENT_ACCESS,
    ldap.NO_SUCH_OBJECT,
    ldap.UNWILLING_TO_PERFORM,  # 389 Directory Server: the account is disabled
    ldap.CONSTRAINT_VIOLATION,  # 389 Directory Server: too many failures
)
# draft-behera-ldap-password-policy 6.2, field error
_POLICY = {
    0: "the passcode has expired",
    1: "the directory has locked the account",
    2: "the passcode has to be changed first",
}
# What libldap takes for the server's address. Should it ever connect again by itself, in clear and
# with the next passcode, it finds a place nobody can make. (2.5 does not.)
_NOWHERE = "ldapi://%2Fdev%2Fnull%2Fnowhere"
_SCOPES = {"subtree": ldap.SCOPE_SUBTREE, "one": ldap.SCOPE_ONELEVEL}


class LdapConnection:
    """A connection to one server, protected before anything is said.

    Parameters
    ----------
    settings : LdapSettings
        Whom to trust, and how to search.
    url : str
        The server.
    deadline : float
        By `time.monotonic`; no step goes on after it.

    Raises
    ------
    ServiceUnavailable
        From every method: this server gives no answer.
    """

    def __init__(self, settings: LdapSettings, url: str, deadline: float) -> None:
        self._settings = settings
        self._url = url
        self._deadline = deadline
        self._channel = Channel(settings, url, deadline)
        self._ldap = ldap.initialize(_NOWHERE, fileno=self._channel.detach())
        self._ldap.protocol_version = ldap.VERSION3
        # A referral would have libldap go wherever somebody's entry points.
        self._ldap.set_option(ldap.OPT_REFERRALS, ldap.OPT_OFF)
        self._ldap.set_option(ldap.OPT_DEREF, ldap.DEREF_NEVER)

    def __enter__(self) -> LdapConnection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Say goodbye, whether or not anybody listens."""
        with contextlib.suppress(ldap.LDAPError):
            self._ldap.unbind_s()
        self._channel.join()

    def bind_as_service(self) -> None:
        """Become who may search."""
        settings = self._settings
        with self._step("service account: "):
            if settings.bind_dn:
                self._ldap.simple_bind_s(settings.bind_dn, settings.bind_passcode())
            elif settings.credential is not None:
                self._ldap.sasl_bind_s("", "EXTERNAL", b"")  # who our certificate says
            else:
                self._ldap.simple_bind_s()

    def find_user(self, name: str) -> list[Entry]:
        """Return the entries for `name`; of several at most two."""
        settings = self._settings
        query = settings.filter.replace("{user}", escape_filter_chars(name))
        wanted = [settings.user_attribute, *filter(None, [settings.groups_attribute])]
        return self._find(settings.base, settings.scope, query, wanted, most=2)

    def find_groups(self, dn: str, most: int) -> list[Entry]:
        """Return the groups that `groups_filter` finds for `dn`; of more than `most`, most + 1."""
        settings = self._settings
        query = settings.groups_filter.replace("{dn}", escape_filter_chars(dn))
        base = settings.groups_base or settings.base
        return self._find(base, "subtree", query, [settings.groups_name], most + 1)

    def _find(
        self, base: str, scope: str, query: str, wanted: Sequence[str], most: int
    ) -> list[Entry]:
        with self._step() as seconds:
            try:
                rows = self._ldap.search_ext_s(
                    base, _SCOPES[scope], query, list(wanted), timeout=seconds, sizelimit=most
                )
            except ldap.SIZELIMIT_EXCEEDED:
                return [("", {})] * most
        return [
            (dn, {name.lower(): values for name, values in attributes.items()})
            for dn, attributes in rows
            if dn is not None  # a referral is no entry
        ]

    def bind_as(self, dn: str, passcode: bytes) -> str:
        """Return why `dn` may not come in with `passcode`, empty where it may."""
        assert dn, "would be an anonymous bind"
        assert passcode, "would be an unauthenticated bind (RFC 4513 5.1.2)"
        with self._step():
            try:
                *_, controls = self._ldap.simple_bind_s(
                    dn, passcode, serverctrls=[PasswordPolicyControl()]
                )
            except _NO as exc:
                found = exc.args[0]
                denied = _policy_words(DecodeControlTuples(found.get("ctrls") or ()))
                if denied or isinstance(exc, ldap.INVALID_CREDENTIALS):
                    return denied or "wrong passcode"
                return f"the directory does not let the account in ({found.get('desc')})"
            return _policy_words(controls)

    @contextlib.contextmanager
    def _step(self, what: str = "") -> Iterator[float]:
        """Give a step the seconds that are left, at most `timeout`, and translate its errors."""
        service = f"directory {self._url}"
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise ServiceUnavailable(service, f"{what}no time left")
        seconds = min(self._settings.timeout, left)
        try:
            self._ldap.set_option(ldap.OPT_NETWORK_TIMEOUT, seconds)
            self._ldap.set_option(ldap.OPT_TIMEOUT, seconds)
            yield seconds
        except ldap.LDAPError as exc:
            raise ServiceUnavailable(service, what + _words(exc)) from exc
        except ConfigurationError as exc:  # the passcode file, since the start
            raise ServiceUnavailable(service, what + str(exc)) from exc


def _words(error: ldap.LDAPError) -> str:
    """Return `error` in words of libldap: never those of the server, who heard the passcode."""
    found = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    desc = str(found.get("desc", type(error).__name__))
    is_local = found.get("result", 0) < 0  # libldap's own codes; a server's are positive
    info = str(found.get("info", ""))[:200] if is_local else ""
    return f"{desc} ({info})" if info else desc


def check_syntax(settings: LdapSettings) -> None:
    """Raise ConfigurationError for a filter or a DN that libldap cannot read."""
    for key, query in (("filter", settings.filter), ("groups_filter", settings.groups_filter)):
        if query and not _is_filter(query.replace("{user}", "x").replace("{dn}", "x")):
            raise ConfigurationError(f"found {query!r} in {key}, wanted an LDAP filter (RFC 4515)")
    for key in ("base", "bind_dn", "groups_base"):
        dn = getattr(settings, key)
        if dn and not ldap.dn.is_dn(dn):
            raise ConfigurationError(f"found {dn!r} in {key}, wanted a DN (RFC 4514)")


def _is_filter(query: str) -> bool:
    nowhere = ldap.initialize(_NOWHERE)
    try:
        nowhere.search_ext("", ldap.SCOPE_BASE, query)  # is encoded before it is sent
    except ldap.FILTER_ERROR:
        return False
    except ldap.LDAPError:
        return True
    return True


def name_below(dn: str, base: str) -> str:
    """Return the first part's value of `dn`, empty where it is not below `base` or no DN."""
    try:
        parts, above = ldap.dn.str2dn(dn), _folded(ldap.dn.str2dn(base))
    except ldap.DECODING_ERROR:
        return ""
    if len(parts) <= len(above) or _folded(parts)[-len(above) :] != above:
        return ""
    return str(parts[0][0][1])


def _folded(parts: Sequence[Sequence[tuple[str, str, int]]]) -> list[list[tuple[str, str]]]:
    """Return a parsed DN such that spellings of one DN compare equal."""
    return [
        sorted((kind.lower(), " ".join(value.casefold().split())) for kind, value, _ in part)
        for part in parts
    ]


def _policy_words(controls: Sequence[object]) -> str:
    for control in controls:
        if isinstance(control, PasswordPolicyControl):
            return _POLICY.get(control.error, "")
    return ""
