"""What a user identity claim is worth at this acceptor (PS3.15 B.4 to B.7, PS3.7 D.3.3.7).

`IdentityPolicy.decide` takes these steps, in order:

1. A reusable secret over a connection without TLS is refused in every mode: to accept would
   teach its owner to send it again.
2. The mode for the calling AE: *not-supported* accepts and never answers.
3. No claim: fine, unless identity is *required*.
4. A type we do not take: accepted unanswered, the requestor decides (D.3.3.7); refused where
   identity is *required*.
5. Type 1, and type 2 where only user names are taken (B.4): the name is believed, unproven.
6. Everything else goes to the backend that verifies the type (B.5, B.6, B.7). Its no is ours.
7. A sub-item 59H is due only when the claim was accepted *and* the requestor asked for it.
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
_NO_OVERRIDES: Mapping[str, Mode] = MappingProxyType({})


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
class IdentityPolicy:
    """Which claims an acceptor wants, takes and needs.

    Attributes
    ----------
    mode : str
        ``not-supported``, ``supports`` or ``required``.
    overrides : mapping of str to str
        Another mode for single calling AE titles. An AE title is no proof of anything: bind
        it to a certificate before making an exception for it.
    types : frozenset of IdentityType
        The types taken, and so the types that satisfy ``required``.
    protected_only : bool
        Refuse types 2 to 5 on a connection without TLS: the secret could be used again.
    """

    mode: Mode = "supports"
    overrides: Mapping[str, Mode] = field(default_factory=lambda: _NO_OVERRIDES)
    types: frozenset[IdentityType] = frozenset({IdentityType.PASSCODE})
    protected_only: bool = True

    def __post_init__(self) -> None:
        for mode in (self.mode, *self.overrides.values()):
            if mode not in get_args(Mode):
                raise ConfigurationError(
                    f"found identity mode {mode!r}, wanted one of {', '.join(get_args(Mode))}"
                )
        if not self.types and "required" in (self.mode, *self.overrides.values()):
            raise ConfigurationError(
                "identity is required, but no type is taken ([identity] types)"
            )

    def mode_for(self, calling_ae: str) -> Mode:
        """Return the mode in force for `calling_ae`."""
        return self.overrides.get(calling_ae.strip(" "), self.mode)

    def check(self, backends: Iterable[Backend]) -> None:
        """Raise ConfigurationError unless every type that needs a backend has one."""
        if {self.mode, *self.overrides.values()} == {"not-supported"}:
            return
        served = {IdentityType.USERNAME, *(kind for b in backends for kind in b.kinds)}
        for kind in sorted(self.types - served):
            raise ConfigurationError(
                f"found {kind.word!r} in [identity] types, but no table [identity.{kind.word}]"
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
        mode = self.mode_for(peer.calling_ae)
        if mode == "not-supported":
            return Decision()
        # (3)
        if claim is None:
            if mode == "required":
                raise IdentityRefused("no user identity was sent and one is required")
            return Decision()
        # (4)
        kind = self._taken_as(claim.kind)
        if kind is None:
            if mode == "required":
                raise IdentityRefused(
                    f"user identity of type {claim.kind.word} was sent, wanted {self._wanted()}"
                )
            logger.info("identity claim (%s) not looked at: type not taken", claim.kind.word)
            return Decision()
        # (5), (6)
        if kind is IdentityType.USERNAME:
            identity = Identity(
                claim.user, claim.kind, how="user name, not verified (B.4)", proven=False
            )
        else:
            identity = _verified(claim, peer, backends)
        # (7)
        return Decision(identity, respond=claim.response_requested)

    def _taken_as(self, kind: IdentityType) -> IdentityType | None:
        """Return the type whose rules decide on a claim of `kind`, None where not taken."""
        if kind in self.types and kind is not IdentityType.UNKNOWN:
            return kind
        if kind is IdentityType.PASSCODE and IdentityType.USERNAME in self.types:
            return IdentityType.USERNAME  # B.4: type 1 or 2, the passcode may be ignored
        return None

    def _wanted(self) -> str:
        return " or ".join(kind.word for kind in sorted(self.types))


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
