"""Our side of Kerberos: tickets we send, answers we check, and both over the wire (B.6)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import build_context, evt

from dicom_secure_node.errors import (
    ConfigurationError,
    PeerRefused,
    SecureNodeError,
    ServiceUnavailable,
)
from dicom_secure_node.identity.claims import Claim, IdentityType, PeerFacts
from dicom_secure_node.identity.kerberos import (
    OutgoingTicket,
)
from dicom_secure_node.identity.policy import Demand, IdentityPolicy
from dicom_secure_node.node import scu, server
from dicom_secure_node.node.plugins.identity import IdentityPlugin
from dicom_secure_node.pki.credential import load_credential_base
from dicom_secure_node.pki.trust import load_trust
from dicom_secure_node.tls.context import ClientContext, ServerContext
from dicom_secure_node.tls.profiles import profile_named
from tests.certs import Ca
from tests.identity.kdc import (
    SERVICE,
    Realm,
    Site,
    claim,
    flipped,
    obey,
    pieces,
    running,
)
from tests.loopback import CT_SMALL, VERIFICATION, Recorder, port_of, serving
from tests.parts import run

PEER = PeerFacts(protected=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("kerberos")) as site:
        yield site


# -- requestor


NO_TICKETS: dict[str, tuple[str, str | None, type[SecureNodeError], str]] = {
    "no cache": (SERVICE, "FILE:/nonexistent/cc", ConfigurationError, "No credentials.*kinit"),
    "the user's cache, not there": (SERVICE, None, ConfigurationError, "No credentials.*kinit"),
    "cache of a kind unknown": (SERVICE, "NO:such", ConfigurationError, "nknown credential"),
    "service unknown": ("dicom/elsewhere", "", ConfigurationError, "dicom/elsewhere"),
    "realm unknown": (f"{SERVICE}@NO.TEST", "", ConfigurationError, "NO.TEST"),
    "no principal": ("a@b@c", "", ConfigurationError, "alformed"),
}


@pytest.mark.parametrize(("principal", "cache", "error", "reason"), NO_TICKETS.values(),
                         ids=NO_TICKETS)  # fmt: skip
def test_no_ticket_to_be_had(
    site: Site, principal: str, cache: str | None, error: type[SecureNodeError], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        OutgoingTicket(principal, cache=site.ada if cache == "" else cache)


def test_no_kdc(site: Site, tmp_path: Path) -> None:
    with Realm(tmp_path / "brief", "BRIEF.TEST") as realm, pytest.MonkeyPatch.context() as patch:
        obey(patch, realm)
        realm.user("dee")
        cache = realm.login("dee")
        realm.__exit__(None, None, None)
        with pytest.raises(ServiceUnavailable, match="KDC"):
            OutgoingTicket(SERVICE, cache=cache)


ANSWERS: dict[str, tuple[Callable[[Site, OutgoingTicket], bytes | None], str]] = {
    "none": (lambda s, t: None, "did not confirm"),
    "empty": (lambda s, t: b"", "did not confirm"),
    "our own ticket": (lambda s, t: t.claim.primary, "no AP-REP"),
    "a word": (lambda s, t: b"OK", "no AP-REP"),
    "a GSS tag": (lambda s, t: b"\x60", "no AP-REP"),
    "far too long": (lambda s, t: b"\x6f" + bytes(60_000), "no AP-REP"),
    "junk": (lambda s, t: b"\x6f\x03abc", "does not verify"),
    "another session's": (lambda s, t: _answer(s), "does not verify"),
    "damaged": (lambda s, t: flipped(_answer(s, t), -1), "does not verify"),
}


def _answer(site: Site, ticket: OutgoingTicket | None = None) -> bytes:
    field = ticket.claim.primary if ticket else site.ticket()
    return site.backend().verify(claim(field, answer=True), PEER).response


@pytest.mark.parametrize(("answer", "reason"), ANSWERS.values(), ids=ANSWERS)
def test_B6_an_answer_that_proves_nothing_is_refused(
    site: Site, answer: Callable[[Site, OutgoingTicket], bytes | None], reason: str
) -> None:
    with OutgoingTicket(SERVICE, cache=site.ada) as ticket:
        given = answer(site, ticket)
        with pytest.raises(PeerRefused, match=reason):
            ticket.confirm(given)
        ticket.confirm(_answer(site, ticket))  # the right one still will do


def test_no_answer_asked_for_none_checked(site: Site) -> None:
    with OutgoingTicket(SERVICE, cache=site.ada, ask_response=False) as ticket:
        assert not ticket.claim.response_requested
        ticket.confirm(None)
        ticket.confirm(b"whatever")
        site.backend().verify(ticket.claim, PEER)


def test_no_repr_holds_a_ticket(site: Site) -> None:
    with OutgoingTicket(SERVICE, cache=site.ada) as ticket:
        identity = site.backend().verify(ticket.claim, PEER)
        for thing in (ticket, ticket.claim, identity, ticket.__dict__):
            said = repr(thing)
            for secret in (ticket.claim.primary, identity.response):
                assert not any(piece in said for piece in pieces(secret))


# -- over the wire


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ServerContext, ClientContext]:
    folder = tmp_path_factory.mktemp("pki")
    ca = Ca()
    trust = load_trust([ca.anchor(folder / "ca.crt")])
    node, client = (load_credential_base(ca.write(folder, n).base) for n in ("node", "client"))
    profile = profile_named("8996")
    return folder, ServerContext(profile, [node], trust), ClientContext(profile, client, trust)


def kept(event: evt.Event) -> int:
    return 0


def gate(listener: str, *backends: Any) -> IdentityPlugin:
    policy = IdentityPolicy(Demand.of("required", [IdentityType.KERBEROS]))
    return IdentityPlugin({listener: policy}, backends)


def test_B6_storescu_with_a_ticket(
    site: Site,
    pki: tuple[Path, ServerContext, ClientContext],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, context, _ = pki
    recorder, file = Recorder(), tmp_path / "ticket"
    listener = server.Listener("tls", lambda: context)

    def send(*options: str) -> tuple[int, str]:
        tls = ["+tls", folder / "client.key", folder / "client.crt", "+cf", folder / "ca.crt"]
        where = ["localhost", str(port_of(node)), CT_SMALL]
        done = run(["storescu", "-v", *tls, "-kt", file, *options, *where])
        return done.returncode, done.stdout + done.stderr

    with (
        caplog.at_level(logging.DEBUG, "dicom_secure_node"),
        serving(
            [gate("tls", site.backend()), recorder],
            listener=listener,
            application={evt.EVT_C_STORE: kept},
        ) as node,
    ):
        for options, framing in (((), False), (("-rsp",), False), (("-rsp",), True)):
            file.write_bytes(site.ticket(gss=framing))
            assert send(*options)[0] == 0
            (association,) = recorder.wait_for("on_association_accepted")
            assert association.identity.user == "ada@DICOM.TEST"
            assert (association.respond is None) == (not options)
        code, words = send("-rsp")  # the same ticket again
        assert code != 0
        assert "Rejected Permanent" in words
        _, error = recorder.wait_for("on_association_refused")
        assert "the ticket was replayed" in error.reason
        file.write_bytes(b"opensesame")
        assert send()[0] != 0
        assert "not a ticket" in recorder.wait_for("on_association_refused")[1].reason
    assert not any(piece in caplog.text for piece in pieces(site.ticket()))


def test_B6_requestor_and_node_prove_each_other(
    site: Site, pki: tuple[Path, ServerContext, ClientContext]
) -> None:
    _, context, ours = pki
    with serving(
        [gate("tls", site.backend())], listener=server.Listener("tls", lambda: context)
    ) as node:
        for framing in (False, True):
            with OutgoingTicket(SERVICE, cache=site.ada, gss=framing) as ticket:
                association = called(port_of(node), ticket.claim, ours)
                ticket.confirm(association.acceptor.user_identity.server_response)
                association.end()
        with (
            OutgoingTicket("ldap/localhost", cache=site.ada) as ticket,
            pytest.raises(PeerRefused, match="1/2/1"),
        ):
            called(port_of(node), ticket.claim, ours)


def called(port: int, identity: Claim, context: ClientContext | None) -> Any:
    return scu.associate(
        "localhost",
        port,
        calling="US",
        called="NODE",
        contexts=[build_context(VERIFICATION)],
        tls_context=context,
        identity=identity,
    )


def test_a_ticket_does_not_travel_without_tls(site: Site) -> None:
    with (
        serving([gate("loopback", site.backend())]) as node,
        OutgoingTicket(SERVICE, cache=site.ada) as ticket,
        pytest.raises(ConfigurationError, match="kerberos would travel readable"),
    ):
        called(port_of(node), ticket.claim, None)
