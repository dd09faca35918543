"""The acceptor's checklist for user identity, PS3.15 B.4 to B.7 and PS3.7 D.3.3.7."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from dicom_secure_node.errors import (
    AssociationRefused,
    ConfigurationError,
    IdentityRefused,
    ServiceUnavailable,
)
from dicom_secure_node.identity.claims import Claim, Identity, IdentityType, PeerFacts
from dicom_secure_node.identity.policy import Decision, IdentityPolicy

TLS = PeerFacts(calling_ae="CT1", protected=True)
PLAIN = PeerFacts(calling_ae="CT1")
BY_NAME = frozenset({IdentityType.USERNAME})
BY_TICKET = frozenset({IdentityType.KERBEROS})
ALL = frozenset(IdentityType)


def claim(kind: IdentityType, user: str = "ada", *, asks: bool = False) -> Claim:
    return Claim(kind, user.encode(), b"tiger" if kind == 2 else b"", response_requested=asks)


@dataclass
class OnlyAda:
    """A backend that takes ada with any secret, or fails as told."""

    kinds: frozenset[IdentityType] = frozenset(set(IdentityType) - BY_NAME)
    failure: Exception | None = None
    seen: list[Claim] = field(default_factory=list)

    def verify(self, claim: Claim, peer: PeerFacts) -> Identity:
        assert isinstance(peer, PeerFacts)
        self.seen.append(claim)
        if self.failure is not None:
            raise self.failure
        if claim.primary != b"ada":
            raise IdentityRefused("not ada")
        response = b"ticket" if claim.kind is IdentityType.KERBEROS else b""
        return Identity("ada", claim.kind, how="test", response=response)


PASSCODE, USERNAME = IdentityType.PASSCODE, IdentityType.USERNAME
ACCEPTED: dict[str, tuple[IdentityPolicy, Claim | None, PeerFacts, str | None, bytes | None]] = {
    # policy, claim, peer -> user, server response (None: no 59H)
    "D.3.3.7 no claim, none needed": (IdentityPolicy(), None, TLS, None, None),
    "D.3.3.7 not supported, claim sent: accepted without 59H": (
        IdentityPolicy("not-supported"), claim(PASSCODE, asks=True), TLS, None, None,
    ),
    "D.3.3.7 type not taken: accepted without 59H": (
        IdentityPolicy(), claim(IdentityType.SAML, asks=True), TLS, None, None,
    ),
    "D.3.3.7 reserved type: accepted without 59H": (
        IdentityPolicy(types=ALL), claim(IdentityType.UNKNOWN, asks=True), TLS, None, None,
    ),
    "B.4 user name, answer asked": (
        IdentityPolicy(types=BY_NAME), claim(USERNAME, asks=True), TLS, "ada", b"",
    ),
    "B.4 user name needs no TLS": (
        IdentityPolicy("required", types=BY_NAME), claim(USERNAME), PLAIN, "ada", None,
    ),
    "B.4 type 2 where names are taken: the passcode is ignored": (
        IdentityPolicy("required", types=BY_NAME), claim(PASSCODE, "eve", asks=True), TLS,
        "eve", b"",
    ),
    "B.5 passcode, no answer asked: no 59H": (
        IdentityPolicy("required"), claim(PASSCODE), TLS, "ada", None,
    ),
    "B.5 passcode, answer asked: 59H, empty": (
        IdentityPolicy("required"), claim(PASSCODE, asks=True), TLS, "ada", b"",
    ),
    "B.5 passcode without TLS, allowed": (
        IdentityPolicy(protected_only=False), claim(PASSCODE), PLAIN, "ada", None,
    ),
    "B.6 ticket, answer asked: 59H with the server ticket": (
        IdentityPolicy(types=BY_TICKET), claim(IdentityType.KERBEROS, asks=True), TLS,
        "ada", b"ticket",
    ),
    "B.6 ticket, no answer asked: the ticket stays here": (
        IdentityPolicy(types=BY_TICKET), claim(IdentityType.KERBEROS), TLS, "ada", None,
    ),
    "this AE title need not": (
        IdentityPolicy("required", overrides={"CT1": "supports"}), None, TLS, None, None,
    ),
}  # fmt: skip

REFUSED: dict[str, tuple[IdentityPolicy, Claim | None, PeerFacts, str]] = {
    "required, none sent": (IdentityPolicy("required"), None, TLS, "one is required"),
    "required of this AE title": (
        IdentityPolicy(overrides={"CT1": "required"}), None, TLS, "one is required",
    ),
    "required of this AE title, padded on the wire": (
        IdentityPolicy(overrides={"CT1": "required"}), None,
        PeerFacts(calling_ae="CT1             "), "one is required",
    ),
    "required, a mere name does not do": (
        IdentityPolicy("required"), claim(USERNAME), TLS, "type username was sent, wanted passcode",
    ),
    "required, reserved type": (
        IdentityPolicy("required"), claim(IdentityType.UNKNOWN), TLS, "type unknown",
    ),
    "D.3.3.7.3 wrong, also when nothing was required": (
        IdentityPolicy(), claim(PASSCODE, "eve"), TLS, "not ada",
    ),
    "D.3.3.7.3 wrong, also when no answer was asked": (
        IdentityPolicy("required"), claim(PASSCODE, "eve"), TLS, "not ada",
    ),
    "secret without TLS": (IdentityPolicy(), claim(PASSCODE), PLAIN, "without TLS"),
    "secret without TLS where identity is not supported: its owner must not send it again": (
        IdentityPolicy("not-supported"), claim(PASSCODE), PLAIN, "without TLS",
    ),
    "secret without TLS, passcode ignored (B.4)": (
        IdentityPolicy(types=BY_NAME), claim(PASSCODE), PLAIN, "without TLS",
    ),
    "ticket without TLS": (
        IdentityPolicy(types=BY_TICKET), claim(IdentityType.KERBEROS), PLAIN, "without TLS",
    ),
    "user name that is none": (
        IdentityPolicy(types=BY_NAME), claim(USERNAME, "a\n"), TLS, "control character",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(case: Any) -> None:
    policy, sent, peer, user, response = case
    decision = policy.decide(sent, peer, [OnlyAda()])
    assert (decision.identity.user if decision.identity else None) == user
    assert decision.response == response


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_refused(case: Any) -> None:
    policy, sent, peer, reason = case
    backend = OnlyAda()
    with pytest.raises(IdentityRefused, match=reason) as refused:
        policy.decide(sent, peer, [backend])
    assert (refused.value.result, refused.value.source, refused.value.diagnostic) == (1, 2, 1)
    assert "tiger" not in str(refused.value)
    assert reason == "not ada" or not backend.seen, "the secret went no further"


def test_B4_a_name_proves_nothing() -> None:
    decision = IdentityPolicy(types=BY_NAME).decide(claim(USERNAME), TLS)
    assert decision.identity is not None
    assert not decision.identity.proven


def test_D3371_a_directory_that_is_away_is_a_transient_refusal() -> None:
    backend = OnlyAda(failure=ServiceUnavailable("directory", "refused the connection"))
    with pytest.raises(AssociationRefused, match="directory") as refused:
        IdentityPolicy().decide(claim(PASSCODE), TLS, [backend])
    assert (refused.value.result, refused.value.source, refused.value.diagnostic) == (2, 3, 1)


def test_a_backend_that_breaks_does_not_admit() -> None:
    with pytest.raises(ZeroDivisionError):
        IdentityPolicy().decide(claim(PASSCODE), TLS, [OnlyAda(failure=ZeroDivisionError())])


def test_the_backend_is_chosen_by_type() -> None:
    names, tickets = OnlyAda(frozenset({PASSCODE})), OnlyAda(BY_TICKET)
    policy = IdentityPolicy(types=frozenset({PASSCODE, IdentityType.KERBEROS}))
    policy.decide(claim(IdentityType.KERBEROS), TLS, [names, tickets])
    assert [len(backend.seen) for backend in (names, tickets)] == [0, 1]


def test_a_type_nobody_verifies() -> None:
    with pytest.raises(IdentityRefused, match="nothing here verifies a passcode"):
        IdentityPolicy().decide(claim(PASSCODE), TLS, [])
    with pytest.raises(ConfigurationError, match=r"no table \[identity.passcode\]"):
        IdentityPolicy().check([])
    IdentityPolicy().check([OnlyAda()])
    IdentityPolicy(types=BY_NAME).check([])


def test_configuration_is_checked() -> None:
    with pytest.raises(ConfigurationError, match="'optional', wanted one of not-supported"):
        IdentityPolicy("optional")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="'never'"):
        IdentityPolicy(overrides={"CT1": "never"})  # type: ignore[dict-item]
    with pytest.raises(ConfigurationError, match="no type is taken"):
        IdentityPolicy("required", types=frozenset())


def test_no_identity_no_response() -> None:
    assert Decision(None, respond=True).response is None
