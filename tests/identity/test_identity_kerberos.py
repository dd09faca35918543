"""Kerberos tickets of a real KDC: taken, refused, answered (PS3.15 B.6, RFC 4120 3.2)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import gssapi
import pytest

from dicom_secure_node.errors import (
    ConfigurationError,
    IdentityRefused,
    LimitReached,
    ServiceUnavailable,
)
from dicom_secure_node.identity.claims import IdentityType, PeerFacts
from dicom_secure_node.identity.kerberos import (
    MAX_TICKET_LENGTH,
    KerberosBackend,
    OutgoingTicket,
    _framed,
)
from dicom_secure_node.identity.replay import ReplayStore
from tests.identity.kdc import (
    SERVICE,
    Site,
    claim,
    flipped,
    pieces,
    running,
    shifted,
    validations_per_second,
)

PEER = PeerFacts(protected=True)
MUTUAL = gssapi.RequirementFlag.mutual_authentication
KERBEROS = gssapi.MechType.kerberos


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("kerberos")) as site:
        yield site


# -- taken


def test_B6_the_user_is_the_principal(site: Site) -> None:
    identity = site.backend().verify(claim(site.ticket()), PEER)
    assert identity.user == "ada@DICOM.TEST"
    assert identity.kind is IdentityType.KERBEROS
    assert identity.proven
    assert identity.how == "Kerberos ticket (B.6)"
    assert identity.attributes == {"realm": "DICOM.TEST"}
    assert identity.response == b""


def test_a_bare_request_is_answered_with_a_bare_ap_rep(site: Site) -> None:
    with OutgoingTicket(SERVICE, cache=site.ada) as ticket:
        assert ticket.claim.primary[0] == 0x6E
        answer = site.backend().verify(ticket.claim, PEER).response
        assert answer[0] == 0x6F
        ticket.confirm(answer)


def test_a_gss_initiator_is_answered_in_its_own_framing(site: Site) -> None:
    context = initiator(site)
    token = context.step()
    assert token[0] == 0x60
    identity = site.backend().verify(claim(token, answer=True), PEER)
    assert identity.user == "ada@DICOM.TEST"
    assert not context.complete
    context.step(identity.response)
    assert context.complete


def initiator(site: Site) -> Any:
    name = gssapi.Name(f"{SERVICE}@DICOM.TEST", gssapi.NameType.kerberos_principal)
    mine = gssapi.Credentials(usage="initiate", mechs=[KERBEROS], store={"ccache": site.ada})
    return gssapi.SecurityContext(
        name=name, creds=mine, mech=KERBEROS, usage="initiate", flags=MUTUAL
    )


def test_our_framed_ticket_is_taken_by_a_gss_acceptor(site: Site, tmp_path: Path) -> None:
    store = {"keytab": f"FILE:{site.keytab}", "rcache": f"file2:{tmp_path}/seen"}
    theirs = gssapi.Credentials(usage="accept", mechs=[KERBEROS], store=store)
    with OutgoingTicket(SERVICE, cache=site.ada, gss=True) as ticket:
        acceptor = gssapi.SecurityContext(creds=theirs, usage="accept")
        answer = acceptor.step(ticket.claim.primary)
        assert acceptor.complete
        assert str(acceptor.initiator_name) == "ada@DICOM.TEST"
        ticket.confirm(answer)


def test_without_a_principal_any_dicom_service_of_the_keytab_will_do(site: Site) -> None:
    backend = site.backend(principal=None)
    assert backend.verify(claim(site.ticket()), PEER).user == "ada@DICOM.TEST"


def test_an_instance_is_part_of_the_name(site: Site) -> None:
    field = site.ticket(cache=site.realm.login("ada/admin"))
    assert site.backend().verify(claim(field), PEER).user == "ada/admin@DICOM.TEST"


def test_a_user_of_a_realm_taken_here(site: Site) -> None:
    backend = site.backend(realms=["OTHER.TEST"])
    field = site.ticket(f"{SERVICE}@DICOM.TEST", cache=site.bob)
    assert backend.verify(claim(field), PEER).user == "bob@OTHER.TEST"


def test_a_new_keytab_counts_from_the_next_claim_on(site: Site, tmp_path: Path) -> None:
    keytab = tmp_path / "keytab"
    keytab.write_bytes(site.stale.read_bytes())
    backend = KerberosBackend(keytab)
    with pytest.raises(IdentityRefused):
        backend.verify(claim(site.ticket()), PEER)
    keytab.write_bytes(site.keytab.read_bytes())
    backend.verify(claim(site.ticket()), PEER)


# -- refused


REFUSALS: dict[str, tuple[Callable[[Site], bytes], dict[str, Any], str]] = {
    # sentence: (the field, the back-end, its reason)
    "empty field": (lambda s: b"", {}, "not a ticket: neither"),
    "some text": (lambda s: b"opensesame", {}, "not a ticket: neither"),
    "an answer instead of a request": (lambda s: b"\x6f" + s.ticket()[1:], {}, "not a ticket: n"),
    "one byte": (lambda s: b"\x6e", {}, "damaged, or not a Kerberos ticket"),
    "indefinite length": (lambda s: b"\x6e\x80\0\0", {}, "damaged, or not a Kerberos ticket"),
    "cut off": (lambda s: s.ticket()[:-10], {}, "damaged, or not a Kerberos ticket"),
    "zeros": (lambda s: b"\x6e" + bytes(40_000), {}, "damaged, or not a Kerberos ticket"),
    "oversized": (lambda s: s.ticket() + bytes(MAX_TICKET_LENGTH), {}, "wanted at most 48000"),
    "Kerberos 4": (
        lambda s: s.ticket().replace(b"\xa0\3\2\1\5\xa1\3\2\1\x0e", b"\xa0\3\2\1\4\xa1\3\2\1\x0e"),
        {},
        "not Kerberos version 5",
    ),
    "a bare GSS tag": (lambda s: b"\x60", {}, "GSS token of another mechanism, or damaged"),
    "GSS, absurd length": (lambda s: b"\x60\x84\xff\xff\xff\xff", {}, "another mechanism, or dam"),
    "GSS, endless length": (lambda s: b"\x60\xff" + bytes(127), {}, "another mechanism, or dam"),
    "GSS, cut off": (lambda s: s.ticket(gss=True)[:-1], {}, "another mechanism, or damaged"),
    "GSS, a byte too many": (lambda s: s.ticket(gss=True) + b"\0", {}, "another mechanism, or dam"),
    "GSS, SPNEGO": (
        lambda s: bytes.fromhex("600a06062b0601050502a000"),
        {},
        "GSS token of another mechanism, or damaged",
    ),
    "GSS, empty inside": (lambda s: _framed(b"\1\0", b""), {}, "not an AP-REQ"),
    "ticket damaged": (lambda s: flipped(s.ticket(), 250), {}, "damaged, or made with a key that"),
    "authenticator damaged": (lambda s: flipped(s.ticket(), -5), {}, "damaged, or made with a key"),
    "foreign KDC of the same name": (
        lambda s: s.ticket(cache=s.cyd),
        {},
        "damaged, or made with a key that is not ours",
    ),
    "ticket for another service": (
        lambda s: s.ticket("ldap/localhost"),
        {},
        "ticket for another service: .*ldap/localhost",
    ),
    "ticket for another service in the keytab": (
        lambda s: s.ticket("ldap/localhost"),
        {"principal": None},
        "ticket for another service: 'ldap/localhost@DICOM.TEST'",
    ),
    "ticket for the service of another realm": (
        lambda s: s.ticket(f"{SERVICE}@OTHER.TEST"),
        {},
        "ticket for another service: .*localhost@OTHER.TEST",
    ),
    "user of a realm not taken": (
        lambda s: s.ticket(f"{SERVICE}@DICOM.TEST", cache=s.bob),
        {},
        "user 'bob@OTHER.TEST' is of a realm not taken here",
    ),
    "key replaced since": (
        lambda s: s.ticket("dicom/stale"),
        {"keytab": "stale", "principal": "dicom/stale"},
        "no key of this version in the keytab: .*kvno 3",
    ),
    "key replaced since, any service": (
        lambda s: s.ticket("dicom/stale"),
        {"keytab": "stale", "principal": None},
        "no key of this version in the keytab: .*kvno 3",
    ),
    "expired": (
        lambda s: s.ticket(cache=s.short, clock=shifted(14)),
        {"clock": shifted(16)},
        "ticket expired",
    ),
    "not yet valid": (
        lambda s: s.ticket(clock=shifted(-4)),
        {"clock": shifted(-6)},
        "ticket not yet valid",
    ),
    "clock behind ours": (
        lambda s: s.ticket(),
        {"clock": shifted(6)},
        "the requestor's clock and ours differ too much",
    ),
    "clock ahead of ours": (
        lambda s: s.ticket(clock=shifted(6)),
        {},
        "the requestor's clock and ours differ too much",
    ),
    "clock further off than we allow": (
        lambda s: s.ticket(clock=shifted(-2)),
        {"skew": timedelta(minutes=1)},
        "the requestor's clock and ours differ too much",
    ),
    "a well-known name, as of an anonymous ticket": (
        lambda s: s.ticket(cache=s.realm.login("WELLKNOWN/NOBODY")),
        {},
        "names nobody",
    ),
    "name too long": (
        lambda s: s.ticket(cache=s.realm.login("a" * 260)),
        {},
        "user name has 271 characters, wanted at most 256",
    ),
}


@pytest.mark.parametrize(("field", "options", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_B6_refused(
    site: Site,
    field: Callable[[Site], bytes],
    options: dict[str, Any],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    given = options | ({"keytab": site.stale} if "keytab" in options else {})
    sent = field(site)
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(IdentityRefused, match=reason) as refused,
    ):
        site.backend(**given).verify(claim(sent, answer=True), PEER)
    error = refused.value
    assert (error.result, error.source, error.diagnostic) == (1, 2, 1)
    assert error.reason.isprintable()
    assert len(error.reason) < 350
    said = f"{error!r} {error.__cause__!r} {caplog.text}"
    assert not any(part in said for part in pieces(sent))


def test_no_bit_of_a_ticket_can_be_changed_to_another_user(site: Site) -> None:
    backend, field, taken = site.backend(), site.ticket(), 0
    for position in range(len(field)):
        try:
            identity = backend.verify(claim(flipped(field, position)), PEER)
        except IdentityRefused:
            continue
        assert identity.user == "ada@DICOM.TEST"
        taken += 1
    # Unprotected bits (ap-options) may change; they make no second use of it.
    assert taken <= 1


# -- replay


def test_a_ticket_is_taken_once_in_whatever_framing(site: Site) -> None:
    backend = site.backend()
    bare, wrapped = site.ticket(), site.ticket(gss=True)
    backend.verify(claim(bare), PEER)
    backend.verify(claim(wrapped), PEER)
    again = {
        "as it was": bare,
        "with a tail": bare + b"\0",
        "wrapped": _framed(b"\1\0", bare),
        "other ap-options": bare.replace(b"\xa2\7\3\5\0\x20", b"\xa2\7\3\5\0\0"),
        "wrapped, as it was": wrapped,
        "unwrapped": wrapped[wrapped.index(b"\x6e", 10) :],
    }
    for words, field in again.items():
        with pytest.raises(IdentityRefused, match=r"'ada@DICOM\.TEST': the ticket was replayed"):
            pytest.fail(f"{words}: {backend.verify(claim(field), PEER)}")


def test_a_restart_does_not_forget(site: Site, tmp_path: Path) -> None:
    field = site.ticket()
    used = ReplayStore(tmp_path / "used")
    site.backend(used=used).verify(claim(field), PEER)
    used.close()
    used = ReplayStore(tmp_path / "used")
    with pytest.raises(IdentityRefused, match="replayed"):
        site.backend(used=used).verify(claim(field), PEER)
    used.close()


def test_a_clock_ahead_of_ours_buys_no_second_use(site: Site) -> None:
    passed = [0.0]

    def clock() -> datetime:
        return datetime.now(UTC) + timedelta(minutes=passed[0])

    backend = site.backend(used=ReplayStore(clock=clock), clock=clock)
    field = site.ticket(clock=shifted(4.5))
    backend.verify(claim(field), PEER)
    for passed[0] in (5.0, 8.0, 9.4):
        with pytest.raises(IdentityRefused, match="replayed"):
            backend.verify(claim(field), PEER)
    passed[0] = 9.6
    with pytest.raises(IdentityRefused, match="clock"):
        backend.verify(claim(field), PEER)


def test_of_many_at_once_one_is_taken(site: Site) -> None:
    backend, field = site.backend(), site.ticket()
    start, outcomes = threading.Barrier(8), []

    def knock() -> None:
        start.wait(20)
        try:
            backend.verify(claim(field), PEER)
            outcomes.append("taken")
        except IdentityRefused as exc:
            outcomes.append(exc.reason.rpartition(" ")[2])

    threads = [threading.Thread(target=knock) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(outcomes) == ["replayed"] * 7 + ["taken"]


def test_no_room_to_remember_nobody_comes_in(site: Site) -> None:
    backend = site.backend(used=ReplayStore(capacity=1))
    backend.verify(claim(site.ticket()), PEER)
    with pytest.raises(LimitReached):
        backend.verify(claim(site.ticket()), PEER)


# -- what is ours to mend


def test_a_keytab_that_has_gone_decides_nothing(site: Site, tmp_path: Path) -> None:
    keytab = tmp_path / "keytab"
    keytab.write_bytes(site.keytab.read_bytes())
    backend = KerberosBackend(keytab, SERVICE)
    for content in (b"", b"junk", site.keytab.read_bytes()[:1]):
        keytab.write_bytes(content)
        with pytest.raises(ServiceUnavailable, match="keytab"):
            backend.verify(claim(site.ticket()), PEER)
    keytab.unlink()
    with pytest.raises(ServiceUnavailable, match="keytab"):
        backend.verify(claim(site.ticket()), PEER)


def test_a_krb5_conf_that_cannot_be_read_decides_nothing(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, field = site.backend(), site.ticket()
    (tmp_path / "krb5.conf").write_text("[libdefaults]\n default_realm = {\n")
    monkeypatch.setenv("KRB5_CONFIG", str(tmp_path / "krb5.conf"))
    with pytest.raises(ServiceUnavailable, match=r"krb5\.conf|onfiguration|rofile"):
        backend.verify(claim(field), PEER)


BAD_SETTINGS: dict[str, tuple[Callable[[Site], tuple[Path, str | None]], str]] = {
    "no keytab": (lambda s: (Path("/nonexistent/keytab"), None), "nonexistent or empty"),
    "a folder": (lambda s: (s.keytab.parent, None), "nonexistent or empty"),
    "no key of the service": (lambda s: (s.keytab, "dicom/elsewhere"), "dicom/elsewhere"),
    "no principal": (lambda s: (s.keytab, "dicom/a@b@c"), "alformed"),
}


@pytest.mark.parametrize(("arguments", "reason"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_settings_that_cannot_work(
    site: Site, arguments: Callable[[Site], tuple[Path, str | None]], reason: str
) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        KerberosBackend(*arguments(site))


# -- speed


def test_validations_can_be_counted(site: Site) -> None:
    assert validations_per_second(site.backend(), SERVICE, site.ada, count=40, threads=2) > 0
