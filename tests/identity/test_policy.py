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
from dicom_secure_node.identity.policy import Decision, Demand, IdentityPolicy, Mode

TLS = PeerFacts(calling_ae="CT1", protected=True)
PLAIN = PeerFacts(calling_ae="CT1")
PASSCODE, USERNAME = IdentityType.PASSCODE, IdentityType.USERNAME
KERBEROS, SAML = IdentityType.KERBEROS, IdentityType.SAML
BY_NAME = frozenset({USERNAME})
BY_TICKET = frozenset({KERBEROS})
ALL = frozenset(IdentityType) - {IdentityType.UNKNOWN}


def policy(mode: Mode = "supports", *types: IdentityType, **options: Any) -> IdentityPolicy:
    """Return what one word says of `types`, of passcodes where none is given."""
    return IdentityPolicy(Demand.of(mode, types or [PASSCODE]), **options)


def by_type(**modes: Mode) -> IdentityPolicy:
    """Return what a table says."""
    return IdentityPolicy(Demand.by_type({IdentityType.named(k): m for k, m in modes.items()}))


def of_CT1(mode: Mode) -> dict[str, Any]:
    return {"overrides": {"CT1": Demand.of(mode, [PASSCODE])}}


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
        response = b"ticket" if claim.kind is KERBEROS else b""
        return Identity("ada", claim.kind, how="test", response=response)


ACCEPTED: dict[str, tuple[IdentityPolicy, Claim | None, PeerFacts, str | None, bytes | None]] = {
    # policy, claim, peer -> user, server response (None: no 59H)
    "D.3.3.7 no claim, none needed": (IdentityPolicy(), None, TLS, None, None),
    "D.3.3.7 not supported, claim sent: accepted without 59H": (
        policy("not-supported"), claim(PASSCODE, asks=True), TLS, None, None,
    ),
    "D.3.3.7 type not taken: accepted without 59H": (
        IdentityPolicy(), claim(SAML, asks=True), TLS, None, None,
    ),
    "D.3.3.7 reserved type: accepted without 59H": (
        policy("supports", *ALL), claim(IdentityType.UNKNOWN, asks=True), TLS, None, None,
    ),
    "B.4 user name, answer asked": (
        policy("supports", *BY_NAME), claim(USERNAME, asks=True), TLS, "ada", b"",
    ),
    "B.4 user name needs no TLS": (
        policy("required", *BY_NAME), claim(USERNAME), PLAIN, "ada", None,
    ),
    "B.4 type 2 where names are taken: the passcode is ignored": (
        policy("required", *BY_NAME), claim(PASSCODE, "eve", asks=True), TLS,
        "eve", b"",
    ),
    "B.5 passcode, no answer asked: no 59H": (
        policy("required"), claim(PASSCODE), TLS, "ada", None,
    ),
    "B.5 passcode, answer asked: 59H, empty": (
        policy("required"), claim(PASSCODE, asks=True), TLS, "ada", b"",
    ),
    "B.5 passcode without TLS, allowed": (
        policy(protected_only=False), claim(PASSCODE), PLAIN, "ada", None,
    ),
    "B.6 ticket, answer asked: 59H with the server ticket": (
        policy("supports", *BY_TICKET), claim(KERBEROS, asks=True), TLS,
        "ada", b"ticket",
    ),
    "B.6 ticket, no answer asked: the ticket stays here": (
        policy("supports", *BY_TICKET), claim(KERBEROS), TLS, "ada", None,
    ),
    "this AE title need not": (
        policy("required", **of_CT1("supports")), None, TLS, None, None,
    ),
    "by type: the one required": (
        by_type(kerberos="required", passcode="supports"), claim(KERBEROS), TLS, "ada", None,
    ),
    "by type: one of several required": (
        by_type(kerberos="required", saml="required"), claim(SAML, asks=True), TLS, "ada", b"",
    ),
    "by type: supported, nothing required": (
        by_type(kerberos="supports", passcode="supports"), claim(PASSCODE), TLS, "ada", None,
    ),
    "by type: none sent, none required": (
        by_type(kerberos="supports", passcode="supports"), None, TLS, None, None,
    ),
    "by type: not named is not supported: not looked at, without 59H": (
        by_type(kerberos="supports"), claim(PASSCODE, "eve", asks=True), TLS, None, None,
    ),
    "by type: said to be not supported, the same": (
        by_type(kerberos="supports", passcode="not-supported"), claim(PASSCODE, "eve", asks=True),
        TLS, None, None,
    ),
    "by type: an empty table is not supported": (
        by_type(), claim(PASSCODE, "eve", asks=True), TLS, None, None,
    ),
    "by type: reserved type, nothing required: accepted without 59H": (
        by_type(kerberos="supports"), claim(IdentityType.UNKNOWN, asks=True), TLS, None, None,
    ),
    "B.4 by type: a name is required, type 2 holds one": (
        by_type(username="required"), claim(PASSCODE, "eve", asks=True), TLS, "eve", b"",
    ),
    "B.4 by type: a name is required, passcodes explicitly not supported: ignored": (
        by_type(username="required", passcode="not-supported"), claim(PASSCODE, "eve"), TLS,
        "eve", None,
    ),
    "B.4 by type: a name is required, a passcode verified where sent": (
        by_type(username="required", passcode="supports"), claim(PASSCODE), TLS, "ada", None,
    ),
    "B.4 by type: a name is required, a passcode need not be sent": (
        by_type(username="required", passcode="supports"), claim(USERNAME, "eve"), TLS,
        "eve", None,
    ),
    "this AE title by another type": (
        IdentityPolicy(Demand.of("required", [PASSCODE]), {"CT1": Demand(BY_TICKET)}),
        claim(KERBEROS), TLS, "ada", None,
    ),
}  # fmt: skip

REFUSED: dict[str, tuple[IdentityPolicy, Claim | None, PeerFacts, str]] = {
    "required, none sent": (policy("required"), None, TLS, "one is required"),
    "required of this AE title": (
        policy(**of_CT1("required")), None, TLS, "one is required",
    ),
    "required of this AE title, padded on the wire": (
        policy(**of_CT1("required")), None,
        PeerFacts(calling_ae="CT1             "), "one is required",
    ),
    "required, a mere name does not do": (
        policy("required"), claim(USERNAME), TLS, "type username was sent, wanted passcode",
    ),
    "required, reserved type": (
        policy("required"), claim(IdentityType.UNKNOWN), TLS, "type unknown",
    ),
    "D.3.3.7.3 wrong, also when nothing was required": (
        IdentityPolicy(), claim(PASSCODE, "eve"), TLS, "not ada",
    ),
    "D.3.3.7.3 wrong, also when no answer was asked": (
        policy("required"), claim(PASSCODE, "eve"), TLS, "not ada",
    ),
    "secret without TLS": (IdentityPolicy(), claim(PASSCODE), PLAIN, "without TLS"),
    "secret without TLS where identity is not supported: its owner must not send it again": (
        policy("not-supported"), claim(PASSCODE), PLAIN, "without TLS",
    ),
    "secret without TLS, passcode ignored (B.4)": (
        policy("supports", *BY_NAME), claim(PASSCODE), PLAIN, "without TLS",
    ),
    "ticket without TLS": (
        policy("supports", *BY_TICKET), claim(KERBEROS), PLAIN, "without TLS",
    ),
    "by type: supported is not what is required": (
        by_type(kerberos="required", passcode="supports"), claim(PASSCODE), TLS,
        "type passcode was sent, wanted kerberos",
    ),
    "by type: none of those required": (
        by_type(saml="required", kerberos="required"), claim(PASSCODE), TLS,
        "type passcode was sent, wanted kerberos or saml",
    ),
    "by type: nothing sent is not what is required": (
        by_type(kerberos="required", passcode="supports"), None, TLS, "one is required",
    ),
    "by type: reserved type is not what is required": (
        by_type(kerberos="required"), claim(IdentityType.UNKNOWN), TLS, "type unknown",
    ),
    "by type: required and wrong": (
        by_type(kerberos="required"), claim(KERBEROS, "eve"), TLS, "not ada",
    ),
    "by type: supported and wrong": (
        by_type(kerberos="supports"), claim(KERBEROS, "eve"), TLS, "not ada",
    ),
    "by type: not supported, secret without TLS": (
        by_type(kerberos="supports"), claim(PASSCODE), PLAIN, "without TLS",
    ),
    "B.4 by type: a name does not do where a passcode is required": (
        by_type(passcode="required", username="supports"), claim(USERNAME), TLS,
        "type username was sent, wanted passcode",
    ),
    "B.4 by type: type 2 does not do where names are merely supported": (
        by_type(kerberos="required", username="supports"), claim(PASSCODE), TLS,
        "type passcode was sent, wanted kerberos",
    ),
    "B.4 by type: a name is required, and a wrong passcode is no way round the right one": (
        by_type(username="required", passcode="supports"), claim(PASSCODE, "eve"), TLS, "not ada",
    ),
    "this AE title by another type": (
        IdentityPolicy(Demand(), {"CT1": Demand(required=BY_TICKET)}), claim(PASSCODE), TLS,
        "type passcode was sent, wanted kerberos",
    ),
    "user name that is none": (
        policy("supports", *BY_NAME), claim(USERNAME, "a\n"), TLS, "control character",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(case: Any) -> None:
    wanted, sent, peer, user, response = case
    decision = wanted.decide(sent, peer, [OnlyAda()])
    assert (decision.identity.user if decision.identity else None) == user
    assert decision.response == response


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_refused(case: Any) -> None:
    wanted, sent, peer, reason = case
    backend = OnlyAda()
    with pytest.raises(IdentityRefused, match=reason) as refused:
        wanted.decide(sent, peer, [backend])
    assert (refused.value.result, refused.value.source, refused.value.diagnostic) == (1, 2, 1)
    assert "tiger" not in str(refused.value)
    assert reason == "not ada" or not backend.seen, "the secret went no further"


def test_B4_a_name_proves_nothing() -> None:
    decision = policy("supports", *BY_NAME).decide(claim(USERNAME), TLS)
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
    policy("supports", PASSCODE, KERBEROS).decide(claim(KERBEROS), TLS, [names, tickets])
    assert [len(backend.seen) for backend in (names, tickets)] == [0, 1]


def test_a_type_nobody_verifies() -> None:
    with pytest.raises(IdentityRefused, match="nothing here verifies a passcode"):
        IdentityPolicy().decide(claim(PASSCODE), TLS, [])
    with pytest.raises(ConfigurationError, match=r"no table \[identity.passcode\]"):
        IdentityPolicy().check([])
    IdentityPolicy().check([OnlyAda()])
    policy("supports", *BY_NAME).check([])


def test_configuration_is_checked() -> None:
    with pytest.raises(ConfigurationError, match="'optional', wanted one of not-supported"):
        policy("optional")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="'never'"):
        by_type(saml="never")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="no type is taken"):
        Demand.of("required", [])
    with pytest.raises(ConfigurationError, match="reserved"):
        Demand(supported=frozenset(IdentityType))


def test_a_backend_is_needed_for_each_type_somebody_may_send() -> None:
    mixed = IdentityPolicy(
        Demand.by_type({PASSCODE: "not-supported", USERNAME: "supports"}),
        {"WS1": Demand.by_type({KERBEROS: "required", SAML: "supports"})},
    )
    mixed.check([OnlyAda(frozenset({KERBEROS, SAML}))])
    with pytest.raises(ConfigurationError, match=r"found 'saml' .* no table \[identity.saml\]"):
        mixed.check([OnlyAda(BY_TICKET)])
    policy("not-supported", *ALL).check([])


def test_types_that_let_nobody_in_are_known() -> None:
    """A requestor sends one identity, so what is supported beside what is required is in vain."""
    assert by_type(kerberos="required", passcode="supports").default.idle == {PASSCODE}
    assert by_type(username="required", passcode="supports").default.idle == set()
    assert by_type(passcode="required", username="supports").default.idle == BY_NAME
    assert policy("supports", *ALL).default.idle == set()


def test_a_demand_in_words() -> None:
    assert str(Demand()) == str(policy("not-supported").default) == "not supported"
    mixed = by_type(kerberos="required", passcode="supports", jwt="not-supported")
    assert str(mixed.default) == "passcode supported, kerberos required"


def test_no_identity_no_response() -> None:
    assert Decision(None, respond=True).response is None
