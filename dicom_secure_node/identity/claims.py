"""What a requestor claims to be, what a verifier makes of it, and the seam between the two.

`Claim` is the User Identity sub-item 58H of an A-ASSOCIATE-RQ (PS3.7 Table D.3-14), `Identity`
what is known once it was looked at, `Backend` what looks at it. To verify another kind of
claim, write a class with `kinds` and `verify` and hand it to `IdentityPolicy.decide`::

    class OnlyAda:
        kinds = frozenset({IdentityType.PASSCODE})

        def verify(self, claim: Claim, peer: PeerFacts) -> Identity:
            if claim.user != "ada":
                raise IdentityRefused("not ada")
            return Identity("ada", claim.kind, how="the name is right")

Secrets (passcode, ticket, assertion, token) stay out of every `repr` and every reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Protocol

from cryptography import x509

from dicom_secure_node.errors import IdentityRefused

MAX_USER_LENGTH = 256  # characters; ours, the standard allows 65 535 bytes


class IdentityType(IntEnum):
    """User-Identity-Type, byte 5 of the sub-item 58H (PS3.7 Table D.3-14).

    Reserved values (0, 6 to 255) are read as `UNKNOWN`: they are no protocol error, the
    acceptor merely does not support them (PS3.7 D.3.3.7).
    """

    UNKNOWN = 0
    USERNAME = 1
    PASSCODE = 2
    KERBEROS = 3
    SAML = 4
    JWT = 5

    @classmethod
    def _missing_(cls, value: object) -> IdentityType | None:
        return cls.UNKNOWN if isinstance(value, int) and 5 < value < 256 else None

    @property
    def word(self) -> str:
        """The name used in the configuration: ``username``, ``passcode``, ``kerberos`` ..."""
        return self.name.lower()

    @property
    def is_secret(self) -> bool:
        """Whether a claim of this type carries something a listener could use again."""
        return self not in (IdentityType.USERNAME, IdentityType.UNKNOWN)

    @classmethod
    def named(cls, word: str) -> IdentityType:
        """Return the type called `word` in the configuration.

        Raises
        ------
        ValueError
            There is no such type; the text lists the known ones.
        """
        for kind in cls:
            if kind.word == word and kind is not cls.UNKNOWN:
                return kind
        known = ", ".join(kind.word for kind in cls if kind is not cls.UNKNOWN)
        raise ValueError(f"found identity type {word!r}, wanted one of {known}")


@dataclass(frozen=True, repr=False)
class Claim:
    """The user identity a requestor sent (sub-item 58H); nothing is proven yet.

    Attributes
    ----------
    kind : IdentityType
        User-Identity-Type.
    primary : bytes
        Primary-field: user name in UTF-8, or ticket, assertion, token. Never printed.
    secondary : bytes
        Secondary-field: the passcode of type 2. Never printed.
    response_requested : bool
        Positive-response-requested: the acceptance has to carry a sub-item 59H.
    """

    kind: IdentityType
    primary: bytes
    secondary: bytes = b""
    response_requested: bool = False

    @property
    def user(self) -> str:
        """The user name of types 1 and 2.

        Raises
        ------
        IdentityRefused
            It is empty, longer than 256 characters, not UTF-8 or not printable; or the type
            carries no plain user name.
        """
        if self.kind not in (IdentityType.USERNAME, IdentityType.PASSCODE):
            raise IdentityRefused(f"a {self.kind.word} claim carries no plain user name")
        return checked_user(self.primary)

    def __repr__(self) -> str:
        answer = ", response requested" if self.response_requested else ""
        return f"<Claim {self.described}{answer}>"

    @property
    def described(self) -> str:
        """The claim in words fit for a log: the type, and the user name where it is readable."""
        try:
            return f"{self.kind.word} {self.user!r}"
        except IdentityRefused:
            return self.kind.word


def checked_user(name: bytes) -> str:
    """Return the user name encoded in `name`, exactly as sent.

    Raises
    ------
    IdentityRefused
        The name is empty, too long, not UTF-8, or holds a character that is not printable
        (controls, line breaks and direction overrides, which would forge log lines).
    """
    try:
        user = name.decode("utf-8", "strict")
    except UnicodeDecodeError as exc:
        raise IdentityRefused(
            f"user name is not UTF-8 (byte {exc.start}; PS3.7 D.3.3.7)"
        ) from None  # the cause would carry the bytes
    if not user:
        raise IdentityRefused("user name is empty")
    if len(user) > MAX_USER_LENGTH:
        raise IdentityRefused(f"user name has {len(user)} characters, wanted at most 256")
    if not user.isprintable():
        raise IdentityRefused("user name holds a control character")
    return user


@dataclass(frozen=True)
class PeerFacts:
    """What is known of the requestor besides its claim, when the A-ASSOCIATE-RQ is read.

    Attributes
    ----------
    address : str
        IP address of the peer.
    calling_ae, called_ae : str
        AE titles without padding.
    listener : str
        Name of the listener it came in by.
    certificate : x509.Certificate or None
        The peer's certificate, where TLS verified one.
    protected : bool
        Whether the connection is encrypted.
    """

    address: str = ""
    calling_ae: str = ""
    called_ae: str = ""
    listener: str = ""
    certificate: x509.Certificate | None = field(default=None, repr=False)
    protected: bool = False


_NO_ATTRIBUTES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Identity:
    """Who the requestor is taken for, for the life of the association.

    Attributes
    ----------
    user : str
        The user id inside the application, also in audit messages.
    kind : IdentityType
        How it was claimed.
    groups : frozenset of str
        Group names, where the backend knows any.
    attributes : mapping of str to str
        What else the backend learnt. Never a secret.
    how : str
        What vouches for it, in words: ``passcode file``.
    proven : bool
        False for a bare user name (B.4): somebody said so, no more.
    response : bytes
        Server-response of the sub-item 59H: empty for types 1 and 2, a ticket or a response
        for 3 and 4. It leaves only if the requestor asked.
    """

    user: str
    kind: IdentityType
    groups: frozenset[str] = frozenset()
    attributes: Mapping[str, str] = field(default_factory=lambda: _NO_ATTRIBUTES, repr=False)
    how: str = ""
    proven: bool = True
    response: bytes = field(default=b"", repr=False)


class Backend(Protocol):
    """Verifies claims of the kinds it names. One object serves many associations at a time."""

    @property
    def kinds(self) -> frozenset[IdentityType]:
        """The types this backend verifies."""

    def verify(self, claim: Claim, peer: PeerFacts) -> Identity:
        """Return who sent `claim`.

        It is called in the association's own thread and may block, but has to come back
        within a deadline of its own.

        Raises
        ------
        IdentityRefused
            The claim is not true; the reason is for log and audit, and holds no secret.
        LimitReached
            Too much to do just now.
        ServiceUnavailable
            What would decide (a directory, a key distribution centre) is away.
        """
