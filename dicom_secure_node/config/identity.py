"""``[identity]`` and the tables below it: whom we believe, and who says so (PS3.15 B.4 to B.7)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NewType

from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.identity.claims import IdentityType
from dicom_secure_node.identity.ldap_settings import LdapSettings
from dicom_secure_node.identity.policy import Demand, Mode

Location = NewType("Location", str)
"""A path, relative to the file like any other, or a URL."""

_MOST_FAILURES = 1000  # each is remembered

TypeName = Literal["username", "passcode", "kerberos", "saml", "jwt"]

Demanded = Mode | Mapping[TypeName, Mode]
"""One mode for all types that are taken, or a mode for each type."""


def demand_of(demanded: Demanded, types: Iterable[TypeName]) -> Demand:
    """Return what `demanded` means where `types` are taken.

    Raises
    ------
    ConfigurationError
        There is no such type or mode; or one is required and there are no types.
    """
    try:
        if isinstance(demanded, Mapping):
            return Demand.by_type({IdentityType.named(k): mode for k, mode in demanded.items()})
        return Demand.of(demanded, map(IdentityType.named, types))
    except ValueError as exc:
        raise ConfigurationError(str(exc)) from exc


@dataclass(frozen=True)
class Passcode:
    """``[identity.passcode]``: users whose passcodes we verify ourselves.

    Attributes
    ----------
    file : Path
        Written by ``user add``. Not looked at where ``[identity.ldap]`` is given.
    """

    file: Path = Path("users.toml")


@dataclass(frozen=True)
class Kerberos:
    """``[identity.kerberos]``: tickets of type 3 (PS3.15 B.6).

    Attributes
    ----------
    keytab : Path
        Keys of the service, from its key distribution centre.
    principal : str
        ``dicom/HOST@REALM``; any ``dicom/...`` of the keytab when left empty.
    realms : tuple of str
        Realms users may come from besides the service's own.
    """

    keytab: Path
    principal: str = ""
    realms: tuple[str, ...] = ()


@dataclass(frozen=True)
class SamlIssuer:
    """``[[identity.saml.issuer]]``: an identity provider and its signing certificate.

    Attributes
    ----------
    entity_id : str
        Its name, as in ``saml:Issuer``.
    certificate : Path
        PEM; two certificates in it while it changes keys.
    """

    entity_id: str
    certificate: Path


@dataclass(frozen=True)
class Saml:
    """``[identity.saml]``: assertions of type 4 (PS3.15 B.7).

    Attributes
    ----------
    audience : str
        Our own entity ID: what assertions have to be for.
    issuer : tuple of SamlIssuer
    recipients : tuple of str
        What else a Recipient may name: URLs, for issuers that know no other form.
    groups_attribute : str
        Attribute that holds the user's groups; empty for none.
    skew_seconds : float
        How far clocks may differ.
    credential : tuple of Path
        At most one, without its ending: signs our SAML responses.
    """

    audience: str
    issuer: tuple[SamlIssuer, ...]
    recipients: tuple[str, ...] = ()
    groups_attribute: str = "groups"
    skew_seconds: float = 120.0
    credential: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if not self.issuer:
            raise ConfigurationError("found none, wanted at least one", "issuer")
        if len(self.credential) > 1:
            raise ConfigurationError(f"found {len(self.credential)}, wanted one", "credential")


@dataclass(frozen=True)
class Jwt:
    """``[identity.jwt]``: tokens of type 5 (PS3.7 D.3.3.7; no profile of PS3.15).

    Attributes
    ----------
    issuer, audience : str
        The ``iss`` claim, and our own name in ``aud``.
    jwks : Location
        The issuer's keys: a file, or an ``https:`` URL.
    algorithms : tuple of str
        Signature algorithms taken.
    user_claim, groups_claim : str
        What becomes the user's name and groups.
    leeway_seconds, max_lifetime_seconds : float
        How far clocks may differ; how long a token may be good for.
    one_time : bool
        Take each token once (its ``jti``).
    trust : tuple of Path
        Anchors for the URL's certificate; the system's when left out.
    """

    issuer: str
    audience: str
    jwks: Location
    algorithms: tuple[str, ...] = ("RS256", "PS256", "ES256")
    user_claim: str = "sub"
    groups_claim: str = "groups"
    leeway_seconds: float = 60.0
    max_lifetime_seconds: float = 86_400.0
    one_time: bool = False
    trust: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Lockout:
    """``[identity.lockout]``: who fails too often has to wait.

    Attributes
    ----------
    failures : int
        Of one user from one address; the two are locked together, so that nobody can lock
        somebody else out from elsewhere. 0: never.
    window_seconds, lock_seconds : float
        Within which failures count; how long a lock holds.
    address_failures : int
        Of one address, over all users. 0: never.

    Raises
    ------
    ConfigurationError
        A number is out of its range.
    """

    failures: int = 5
    window_seconds: float = 900.0
    lock_seconds: float = 900.0
    address_failures: int = 30

    def __post_init__(self) -> None:
        for key in ("failures", "address_failures"):
            value = getattr(self, key)
            if not 0 <= value <= _MOST_FAILURES:
                raise ConfigurationError(
                    f"found {key} = {value}, wanted 0 to {_MOST_FAILURES}", "identity.lockout"
                )
        for key in ("window_seconds", "lock_seconds"):
            if not getattr(self, key) > 0:
                raise ConfigurationError(
                    f"found {key} = {getattr(self, key)}, wanted more than 0", "identity.lockout"
                )


@dataclass(frozen=True)
class Identity:
    """``[identity]``: the types of user identity we take (PS3.7 D.3.3.7).

    Attributes
    ----------
    types : tuple of str
        Those that satisfy ``required``. ``username`` is a name nobody proves (B.4).
    replay : Path
        Folder that remembers which tickets, assertions and tokens were used.
    """

    types: tuple[TypeName, ...] = ("passcode",)
    replay: Path = Path("replay")
    passcode: Passcode = Passcode()
    ldap: LdapSettings | None = None
    kerberos: Kerberos | None = None
    saml: Saml | None = None
    jwt: Jwt | None = None
    lockout: Lockout = Lockout()

    def __post_init__(self) -> None:
        for name in ("kerberos", "saml", "jwt"):
            if name in self.types and getattr(self, name) is None:
                raise ConfigurationError(
                    f"found {name!r}, and no table [identity.{name}] that says who verifies it",
                    "types",
                )
