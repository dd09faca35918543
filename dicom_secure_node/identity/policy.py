"""What a user identity claim is worth at this acceptor (PS3.15 B.4 to B.7, PS3.7 D.3.3.7).

`IdentityPolicy.decide` takes these steps, in order:

1. A reusable secret over a connection without TLS is refused, whatever is demanded: to accept
   would teach its owner to send it again.
2. The `Demand` on the calling AE: which types are required, which supported.
3. No claim: fine, unless some type is *required*.
4. Where some type is required, a claim of any other is refused unseen, also of a type that is
   *supported*: a requestor sends one identity (D.3.3.7), so it has to be that one. Type 2 does
   where type 1 is required: it names the user as well (B.4).
5. A type that is *not supported*: accepted unanswered, the requestor decides (D.3.3.7).
6. Type 1, and type 2 where only user names are taken (B.4): the name is believed, unproven.
7. Everything else goes to the backend that verifies the type (B.5, B.6, B.7). Its no is ours.
8. A sub-item 59H is due only when the claim was accepted *and* the requestor asked for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, get_args

from dicom_secure_node.errors import (
    AssociationRefused,
    ConfigurationError,
    IdentityRefused,
    ServiceUnavailable,
)
from dicom_secure_node.identity.claims import Backend, Claim, Identity, IdentityType, PeerFacts

logger = logging.getLogger(__name__)

Mode = Literal["not-supported", "supports", "required"]


@dataclass(frozen=True)
class Decision:
    """What became of the identity question; a refusal is an exception instead.

    Attributes
    ----------
    identity : Identity or None
        Who it is, or None where nobody was identified and nobody had to be.
    respond : bool
        Whether the A-ASSOCIATE-AC carries the one sub-item 59H.
    """

    identity: Identity | None = None
    respond: bool = False

    @property
    def response(self) -> bytes | None:
        """Server-response of the 59H sub-item (may be empty), None where none is sent."""
        return self.identity.response if self.respond and self.identity else None


@dataclass(frozen=True)
class Demand:
    """What an acceptor demands of a requestor, type by type; of types not named, nothing.

    Attributes
    ----------
    supported : frozenset of IdentityType
        Looked at where sent.
    required : frozenset of IdentityType
        Looked at as well, and a claim of one of them has to be sent.
    """

    supported: frozenset[IdentityType] = frozenset()
    required: frozenset[IdentityType] = frozenset()

    def __post_init__(self) -> None:
        if IdentityType.UNKNOWN in self.taken:
            raise ConfigurationError("identity types that are reserved cannot be taken")

    @classmethod
    def by_type(cls, modes: Mapping[IdentityType, Mode]) -> Demand:
        """Return the demand with a mode for each type; a type left out is not supported.

        Raises
        ------
        ConfigurationError
            There is no such mode.
        """
        for mode in modes.values():
            _check_mode(mode)
        supported, required = (
            frozenset(kind for kind, mode in modes.items() if mode == word)
            for word in ("supports", "required")
        )
        return cls(supported, required)

    @classmethod
    def of(cls, mode: Mode, types: Iterable[IdentityType]) -> Demand:
        """Return the demand with the same mode for each of `types`.

        Raises
        ------
        ConfigurationError
            There is no such mode; or one is required and there are no types.
        """
        _check_mode(mode)
        found = cls.by_type(dict.fromkeys(types, mode))
        if mode == "required" and not found.required:
            raise ConfigurationError(
                "identity is required, but no type is taken ([identity] types)"
            )
        return found

    @property
    def taken(self) -> frozenset[IdentityType]:
        """The types supported or required."""
        return self.supported | self.required

    @property
    def idle(self) -> frozenset[IdentityType]:
        """The types supported in vain: another is required, so they let nobody in."""
        return frozenset(kind for kind in self.supported if not self.is_met_by(kind))

    def is_met_by(self, kind: IdentityType) -> bool:
        """Whether a true claim of type `kind` is all that is required."""
        if kind is IdentityType.PASSCODE and IdentityType.USERNAME in self.required:
            return True  # B.4: type 1 or 2
        return not self.required or kind in self.required

    def taken_as(self, kind: IdentityType) -> IdentityType | None:
        """Return the type whose rules decide on a claim of `kind`, None where not supported."""
        if kind in self.taken:
            return kind
        if kind is IdentityType.PASSCODE and IdentityType.USERNAME in self.taken:
            return IdentityType.USERNAME  # B.4: type 1 or 2, the passcode may be ignored
        return None

    def __str__(self) -> str:
        words = [
            f"{kind.word} {'required' if kind in self.required else 'supported'}"
            for kind in sorted(self.taken)
        ]
        return ", ".join(words) or "not supported"


def _check_mode(mode: str) -> None:
    if mode not in get_args(Mode):
        raise ConfigurationError(
            f"found identity mode {mode!r}, wanted one of {', '.join(get_args(Mode))}"
        )


_NO_OVERRIDES: Mapping[str, Demand] = MappingProxyType({})


@dataclass(frozen=True)
class IdentityPolicy:
    """Which claims an acceptor wants, takes and needs.

    Attributes
    ----------
    default : Demand
        What is demanded of everybody.
    overrides : mapping of str to Demand
        What is demanded in its place of single calling AE titles. An AE title is no proof of
        anything: bind it to a certificate before making an exception for it.
    protected_only : bool
        Refuse types 2 to 5 on a connection without TLS: the secret could be used again.
    """

    default: Demand = Demand(supported=frozenset({IdentityType.PASSCODE}))
    overrides: Mapping[str, Demand] = field(default_factory=lambda: _NO_OVERRIDES)
    protected_only: bool = True

    @property
    def demands(self) -> tuple[Demand, ...]:
        """Everything that is demanded of anybody."""
        return (self.default, *self.overrides.values())

    @property
    def taken(self) -> frozenset[IdentityType]:
        """The types supported or required of anybody."""
        return frozenset().union(*(demand.taken for demand in self.demands))

    def demand_on(self, calling_ae: str) -> Demand:
        """Return what is demanded of `calling_ae`."""
        return self.overrides.get(calling_ae.strip(" "), self.default)

    def check(self, backends: Iterable[Backend]) -> None:
        """Raise ConfigurationError unless every type that needs a backend has one."""
        served = {IdentityType.USERNAME, *(kind for b in backends for kind in b.kinds)}
        for kind in sorted(self.taken - served):
            raise ConfigurationError(
                f"found {kind.word!r} among the identity types, but no table [identity.{kind.word}]"
            )

    def decide(
        self, claim: Claim | None, peer: PeerFacts, backends: Sequence[Backend] = ()
    ) -> Decision:
        """Decide on `claim`, or on its absence.

        Parameters
        ----------
        claim : Claim or None
            What the requestor sent, None where it sent no sub-item 58H.
        peer : PeerFacts
            Who asks, and whether the connection is protected.
        backends : sequence of Backend
            The verifiers; the first one that names the type is asked.

        Raises
        ------
        IdentityRefused
            Permanent, 1/2/1 (PS3.7 D.3.3.7.3).
        AssociationRefused
            Transient, 2/3/1: what would have decided is away or overloaded.

        References
        ----------
        PS3.15 B.4 to B.7; PS3.7 D.3.3.7
        """
        # (1)
        if claim and self.protected_only and claim.kind.is_secret and not peer.protected:
            raise IdentityRefused(f"{claim.kind.word} claim over a connection without TLS")
        # (2)
        demand = self.demand_on(peer.calling_ae)
        # (3)
        if claim is None:
            if demand.required:
                raise IdentityRefused("no user identity was sent and one is required")
            return Decision()
        # (4)
        if not demand.is_met_by(claim.kind):
            wanted = " or ".join(kind.word for kind in sorted(demand.required))
            raise IdentityRefused(
                f"user identity of type {claim.kind.word} was sent, wanted {wanted}"
            )
        # (5)
        kind = demand.taken_as(claim.kind)
        if kind is None:
            logger.info("identity claim (%s) not looked at: not supported", claim.kind.word)
            return Decision()
        # (6), (7)
        if kind is IdentityType.USERNAME:
            identity = Identity(
                claim.user, claim.kind, how="user name, not verified (B.4)", proven=False
            )
        else:
            identity = _verified(claim, peer, backends)
        # (8)
        return Decision(identity, respond=claim.response_requested)


def _verified(claim: Claim, peer: PeerFacts, backends: Sequence[Backend]) -> Identity:
    for backend in backends:
        if claim.kind in backend.kinds:
            break
    else:
        raise IdentityRefused(f"nothing here verifies a {claim.kind.word} claim")
    try:
        return backend.verify(claim, peer)
    except ServiceUnavailable as exc:
        # Nothing was decided, so a permanent answer would be untrue.
        raise AssociationRefused(
            f"identity could not be verified: {exc}", result=2, source=3, diagnostic=1
        ) from exc
