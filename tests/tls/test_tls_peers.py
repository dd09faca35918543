"""Associations with real peers: DCMTK, Orthanc and stock pynetdicom, both ways."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from dicom_secure_node.tls.context import ClientContext, ServerContext
from dicom_secure_node.tls.profiles import PROFILES, profile_named
from tests.parts import orthanc, run, silent_peer, storescp
from tests.tls.conftest import Pki

# What each of DCMTK 3.6.7's profiles has in common with each of ours.
DCMTK = {
    "B.3": {"+py": False, "+px": True, "+pz": False, "+pa": True},
    "B.9": {"+py": True, "+px": True, "+pz": True, "+pa": True},
    "B.10": {"+py": True, "+px": True, "+pz": True, "+pa": False},
    "B.11": {"+py": True, "+px": True, "+pz": True, "+pa": False},
    "B.12": {"+py": True, "+px": True, "+pz": True, "+pa": False},
    "B.13": {"+py": True, "+px": True, "+pz": True, "+pa": False},
}
SPOKEN = [p for p in PROFILES if p.section in DCMTK]


@contextmanager
def scp(context: Any) -> Iterator[int]:
    """Yield the port of a stock pynetdicom Verification SCP over `context`."""
    ae = AE("SCP")
    ae.add_supported_context(Verification)
    server = ae.start_server(("127.0.0.1", 0), block=False, ssl_context=context)
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def echo(port: int, context: Any, called: str = "ANY-SCP", name: str = "localhost") -> bool:
    """Return whether stock pynetdicom gets an answer to a C-ECHO over `context`."""
    ae = AE("SCU")
    ae.add_requested_context(Verification)
    assoc = ae.associate("127.0.0.1", port, ae_title=called, tls_args=(context, name))
    if not assoc.is_established:
        return False
    status = assoc.send_c_echo().Status
    assoc.release()
    return bool(status == 0x0000)


def tls_options(pki: Pki) -> list[str | Path]:
    return ["+tls", pki.client_rsa.key, pki.client_rsa.crt, "+cf", pki.anchor]


@pytest.mark.parametrize("flag", ["+py", "+px", "+pz", "+pa"])
@pytest.mark.parametrize("profile", SPOKEN, ids=lambda p: p.section)
def test_dcmtk_calls_us(profile: Any, flag: str, pki: Pki) -> None:
    with scp(ServerContext(profile, pki.server, pki.trust)) as port:
        done = run(["echoscu", flag, *tls_options(pki), "127.0.0.1", str(port)])
    assert (done.returncode == 0) == DCMTK[profile.section][flag], done.stderr


@pytest.mark.parametrize("profile", SPOKEN, ids=lambda p: p.section)
@pytest.mark.parametrize("flag", ["+py", "+px", "+pz", "+pa"])
def test_we_call_dcmtk(profile: Any, flag: str, pki: Pki, tmp_path: Path) -> None:
    client = ClientContext(profile, pki.credential(pki.client_rsa), pki.trust)
    with storescp(tmp_path, flag, *tls_options(pki), "-rc") as peer:
        assert echo(peer.port, client) == DCMTK[profile.section][flag]


@pytest.mark.parametrize("name", ["8996", "8996-mod"])
def test_we_call_orthanc_and_it_wants_our_certificate(name: str, pki: Pki, tmp_path: Path) -> None:
    settings = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(pki.client_rsa.crt),
        "DicomTlsPrivateKey": str(pki.client_rsa.key),
        "DicomTlsTrustedCertificates": str(pki.anchor),
    }
    profile = profile_named(name)
    with orthanc(tmp_path / "orthanc", **settings) as peer:
        own = pki.credential(pki.client_rsa)
        assert echo(peer.port, ClientContext(profile, own, pki.trust), "ORTHANC")
        assert not echo(peer.port, ClientContext(profile, None, pki.trust), "ORTHANC")


@pytest.mark.parametrize("profile", SPOKEN, ids=lambda p: p.section)
def test_stock_pynetdicom_with_our_contexts_on_both_sides(profile: Any, pki: Pki) -> None:
    client = ClientContext(profile, pki.credential(pki.client), pki.trust)
    with scp(ServerContext(profile, pki.server, pki.trust)) as port:
        assert all(echo(port, client) for _ in range(3))
        assert not echo(port, client, name="other.example")


def test_rule3_a_silent_peer_keeps_nobody_out(pki: Pki) -> None:
    profile = profile_named("8996")
    client = ClientContext(profile, pki.credential(pki.client), pki.trust)
    with (
        scp(ServerContext(profile, pki.server, pki.trust)) as port,
        silent_peer(port),
        silent_peer(port),
    ):
        assert echo(port, client)


def test_a_plain_peer_is_turned_away_and_others_still_served(pki: Pki) -> None:
    profile = profile_named("8996")
    client = ClientContext(profile, pki.credential(pki.client), pki.trust)
    with scp(ServerContext(profile, pki.server, pki.trust)) as port:
        assert run(["echoscu", "127.0.0.1", str(port)]).returncode != 0
        assert echo(port, client)


@pytest.mark.parametrize("odd", [{"expired": True}, {"self_signed": True}, {"usage": "server"}])
def test_a_client_that_must_not_be_believed_gets_no_association(
    odd: dict[str, Any], pki: Pki, tmp_path: Path
) -> None:
    leaf = pki.ca.write(tmp_path, "odd", key="rsa", **odd)
    with scp(ServerContext(profile_named("8996"), pki.server, pki.trust)) as port:
        done = run(
            ["echoscu", "+tls", leaf.key, leaf.crt, "+cf", pki.anchor, "127.0.0.1", str(port)]
        )
    assert done.returncode != 0
