"""What we build on: how pynetdicom behaves where its manual is silent.

Each fact decided something in our design. When an upgrade changes one, the test that fails says
which decision to look at again.
"""

from __future__ import annotations

import gc
import logging
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import UserIdentityNegotiation
from pynetdicom.sop_class import Verification

from tests.certs import Ca
from tests.parts import silent_peer, wait_until

Handlers = list[tuple[Any, Callable[..., Any]]]

REFUSED_BY_US = (1, 2, 1)  # PS3.7 D.3.3.7: rejected-permanent, by the service provider (ACSE)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Handlers that raise are logged by pynetdicom with a traceback; that is not news here."""
    caplog.set_level(logging.CRITICAL, logger="pynetdicom")


@contextmanager
def serving(handlers: Handlers, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Run a Verification SCP on a free port of loopback and yield the port."""
    ae = AE("SCP")
    ae.add_supported_context(Verification)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=context
    )
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def identity(kind: int, *, ask: bool) -> UserIdentityNegotiation:
    """Return a claim of type 1 (user name) or 2 (user name and passcode)."""
    item = UserIdentityNegotiation()
    item.user_identity_type = kind
    item.primary_field = b"ada"
    if kind == 2:
        item.secondary_field = b"lovelace"
    item.positive_response_requested = ask
    return item


def ask(
    port: int,
    claim: UserIdentityNegotiation | None = None,
    tls: ssl.SSLContext | None = None,
) -> Association:
    """Request an association and, where it is accepted, release it again."""
    ae = AE("SCU")
    ae.add_requested_context(Verification)
    assoc = ae.associate(
        "127.0.0.1",
        port,
        ext_neg=[claim] if claim else None,
        tls_args=(tls, "localhost") if tls else None,
    )
    if assoc.is_established:
        assoc.release()
    return assoc


def answer(assoc: Association) -> str | tuple[int, int, int]:
    """Return ``accepted``, ``aborted``, or result, source and diagnostic of the A-ASSOCIATE-RJ."""
    if assoc.is_released:
        return "accepted"
    if assoc.is_rejected:
        primitive = assoc.acceptor.primitive
        return primitive.result, primitive.result_source, primitive.diagnostic
    return "aborted"


@pytest.mark.parametrize(
    ("event", "claim"),
    [(evt.EVT_C_ECHO, None), (evt.EVT_USER_ID, identity(1, ask=False))],
    ids=["EVT_C_ECHO, an intervention event as EVT_C_STORE is", "EVT_USER_ID"],
)
def test_fact_01_a_second_handler_replaces_the_first(
    event: Any, claim: UserIdentityNegotiation | None
) -> None:
    """So one host owns the binding and calls the plugins."""
    called: list[str] = []

    def first(_: evt.Event) -> Any:
        called.append("first")
        return (True, None) if claim else 0x0000

    def last(_: evt.Event) -> Any:
        called.append("last")
        return (True, None) if claim else 0x0000

    with serving([(event, first), (event, last)]) as port:
        ae = AE("SCU")
        ae.add_requested_context(Verification)
        assoc = ae.associate("127.0.0.1", port, ext_neg=[claim] if claim else None)
        assert assoc.send_c_echo().Status == 0x0000
        assoc.release()
    assert called == ["last"]


def test_fact_01_notification_events_keep_all_handlers() -> None:
    """The application's notification handlers can be bound beside ours."""
    called: list[str] = []
    handlers: Handlers = [
        (evt.EVT_REQUESTED, lambda _: called.append("first")),
        (evt.EVT_REQUESTED, lambda _: called.append("last")),
    ]
    with serving(handlers) as port:
        assert answer(ask(port)) == "accepted"
    assert called == ["first", "last"]


def test_fact_02_an_exception_at_requested_means_accepted() -> None:
    """So the host catches everything and refuses."""

    def broken(_: evt.Event) -> None:
        raise ZeroDivisionError

    with serving([(evt.EVT_REQUESTED, broken)]) as port:
        assert answer(ask(port)) == "accepted"


def test_fact_03_not_implemented_at_user_id_means_accepted() -> None:
    """So no exception of a plugin may reach pynetdicom."""

    def broken(_: evt.Event) -> tuple[bool, None]:
        raise NotImplementedError

    with serving([(evt.EVT_USER_ID, broken)]) as port:
        assert answer(ask(port, identity(1, ask=False))) == "accepted"


def test_fact_04_false_at_user_id_is_rejected_transient() -> None:
    """PS3.7 D.3.3.7 wants 1, 2, 1: we send the answer ourselves."""
    with serving([(evt.EVT_USER_ID, lambda _: (False, None))]) as port:
        assert answer(ask(port, identity(1, ask=False))) == (2, 2, 1)


def test_fact_05_user_id_does_not_fire_without_a_claim() -> None:
    """So "identity required" is decided at EVT_REQUESTED."""
    fired: list[str] = []

    def verify(_: evt.Event) -> tuple[bool, None]:
        fired.append("user id")
        return False, None

    with serving([(evt.EVT_USER_ID, verify)]) as port:
        assert answer(ask(port)) == "accepted"
    assert fired == []


def test_fact_06_a_rejection_alone_is_seen_as_an_abort() -> None:
    """The negotiation goes on after the handler, and its A-ASSOCIATE-AC is out of turn."""
    handlers: Handlers = [(evt.EVT_REQUESTED, lambda e: e.assoc.acse.send_reject(*REFUSED_BY_US))]
    with serving(handlers) as port:
        assert answer(ask(port)) == "aborted"


def _refuse(event: evt.Event) -> None:
    event.assoc.acse.send_reject(*REFUSED_BY_US)
    event.assoc.kill()


def test_fact_06_a_rejection_and_kill_is_seen_as_a_rejection() -> None:
    """This is how the host refuses."""
    with serving([(evt.EVT_REQUESTED, _refuse)]) as port:
        assert [answer(ask(port)) for _ in range(5)] == [REFUSED_BY_US] * 5


def test_fact_07_rejected_does_not_fire_when_we_refuse() -> None:
    """So the host itself reports the refusal to the audit trail."""
    fired: list[str] = []
    closed = threading.Event()
    handlers: Handlers = [
        (evt.EVT_REQUESTED, _refuse),
        (evt.EVT_REJECTED, lambda _: fired.append("rejected")),
        (evt.EVT_CONN_CLOSE, lambda _: closed.set()),
    ]
    with serving(handlers) as port:
        assert answer(ask(port)) == REFUSED_BY_US
        assert closed.wait(20)
    assert fired == []


@pytest.mark.parametrize("kind", [1, 2], ids=["type 1", "type 2"])
def test_fact_08_no_positive_response_is_sent_for_user_names(kind: int) -> None:
    """PS3.15 B.4 and B.5 need one."""
    with serving([(evt.EVT_USER_ID, lambda _: (True, b""))]) as port:
        assoc = ask(port, identity(kind, ask=True))
        assert answer(assoc) == "accepted"
        assert assoc.acceptor.user_identity is None


@pytest.mark.parametrize("kind", [1, 2], ids=["type 1", "type 2"])
def test_fact_08_a_response_item_of_our_own_arrives(kind: int) -> None:
    """This is how the host answers."""

    def verify(event: evt.Event) -> tuple[bool, None]:
        item = UserIdentityNegotiation()
        item.server_response = b""
        event.assoc.acceptor.add_negotiation_item(item)
        return True, None

    with serving([(evt.EVT_USER_ID, verify)]) as port:
        assoc = ask(port, identity(kind, ask=True))
        assert answer(assoc) == "accepted"
        assert assoc.acceptor.user_identity.server_response == b""


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext, ssl.SSLContext]:
    """Contexts of the standard library: a server that wants a certificate, a client, a stranger."""
    ca = Ca()
    node, user = ca.write(tmp_path, "node"), ca.write(tmp_path, "user")
    anchor = ca.anchor(tmp_path / "ca.crt")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(node.crt, node.key)
    server.load_verify_locations(anchor)
    server.verify_mode = ssl.CERT_REQUIRED
    client, stranger = (ssl.create_default_context(cafile=str(anchor)) for _ in range(2))
    client.load_cert_chain(user.crt, user.key)
    return server, client, stranger


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_fact_09_a_failed_handshake_fires_no_event(tls: Any) -> None:
    """So our server shakes hands itself, and reports failure."""
    server, client, stranger = tls
    fired: list[str] = []
    # Every notification event there is, so that none is forgotten.
    handlers: Handlers = [
        (event, lambda e: fired.append(e.event.name)) for event in evt._NOTIFICATION_EVENTS
    ]
    with serving(handlers, server) as port:
        assert answer(ask(port, tls=stranger)) == "aborted"
        assert fired == []
        # The accept loop takes one connection at a time: had the first one an event, it were here.
        assert answer(ask(port, tls=client)) == "accepted"
        assert fired.count("EVT_CONN_OPEN") == 1
    gc.collect()  # pynetdicom leaves the stranger's socket unclosed: let it be noticed here


def test_fact_10_a_silent_connection_keeps_everybody_out(tls: Any) -> None:
    """So hands are shaken in the connection's own thread, under a deadline."""
    server, client, _ = tls
    opened = threading.Event()
    answers: list[Any] = []
    with serving([(evt.EVT_CONN_OPEN, lambda _: opened.set())], server) as port:
        with silent_peer(port):
            # The one thread that accepts is now inside the handshake with the silent peer ...
            wait_until(_somebody_shakes_hands, "the accept loop in a handshake")
            other = threading.Thread(target=lambda: answers.append(answer(ask(port, tls=client))))
            other.start()
            # ... and has no eye for anybody else.
            assert not opened.wait(1.5)
        assert opened.wait(20)
        other.join(20)
    assert answers == ["accepted"]


def _somebody_shakes_hands() -> bool:
    names = set()
    for frame in sys._current_frames().values():
        at: Any = frame
        while at is not None:
            names.add((Path(at.f_code.co_filename).name, at.f_code.co_name))
            at = at.f_back
    return {("ssl.py", "do_handshake"), ("transport.py", "get_request")} <= names


def test_fact_11_python_s_ssl_cannot_offer_the_ccm_suites_of_tls_1_3() -> None:
    """B.13 asks a server for them; `ssl` of Python 3.11 has no call to name TLS 1.3 suites."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    offered = {suite["name"] for suite in context.get_ciphers()}
    assert "TLS_AES_256_GCM_SHA384" in offered
    assert offered.isdisjoint({"TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"})


def test_fact_11_pyopenssl_offers_the_ccm_suites_of_tls_1_3() -> None:
    """Which is one reason for our TLS engine."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_tls13_ciphersuites(b"TLS_AES_128_CCM_SHA256:TLS_AES_128_CCM_8_SHA256")
    offered = SSL.Connection(context).get_cipher_list()
    assert {"TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"} <= set(offered)


@pytest.mark.parametrize(
    "name", ["ECDHE-RSA-CAMELLIA128-GCM-SHA256", "DHE-RSA-CAMELLIA256-GCM-SHA384"]
)
def test_fact_11_camellia_gcm_is_nowhere(name: str) -> None:
    """Optional since 2024c: a profile reports it as missing."""
    with pytest.raises(ssl.SSLError, match="No cipher can be selected"):
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(name)
    with pytest.raises(SSL.Error):
        SSL.Context(SSL.TLS_METHOD).set_cipher_list(name.encode())
