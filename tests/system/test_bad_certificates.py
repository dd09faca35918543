"""Every kind of certificate that must not come in is refused, and the audit trail says why."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import parts
from tests.certs import Ca
from tests.loopback import request_pdu
from tests.system.running import (
    ALERT,
    CONFIGURATION,
    NODE_AUTHENTICATION,
    Node,
    cli,
    closed_by_peer,
    dcmtk_tls,
    tcp,
)

# Arguments of Ca.write, and the word the log and the audit trail have for it.
BAD = {
    "an expired certificate": ({"expired": True}, "expired"),
    "a certificate that is not valid yet": ({"not_yet_valid": True}, "not yet valid"),
    "a self-signed certificate": ({"self_signed": True}, "self-signed"),
    "a certificate of an unknown authority": ({}, "unknown issuer"),
    "a revoked certificate": ({}, "revoked"),
    "a certificate for e-mail": ({"usage": "mail"}, "wrong usage"),
    "no certificate at all": (None, "no certificate"),
    "a certificate with a forged signature": ({"bad_signature": True}, "bad signature"),
    "a certificate for servers only": ({"usage": "server"}, "wrong usage"),
    "a weak key": ({"key": "rsa1024"}, "weak key"),
}


class Site:
    """A node that trusts a CA of ours besides its own, with a CRL."""

    def __init__(self, home: Path) -> None:
        self.folder = home.parent / "site"
        self.ca = Ca("Site CA")
        self.ca.anchor(home / "pki" / "site.crt")
        self.revoked = self.ca.write(self.folder, "revoked")
        self.good = self.ca.write(self.folder, "good")
        self.crl = self.ca.crl(home / "pki" / "site.crl", [self.revoked])
        self.node = Node(
            home,
            change={
                'trust = ["pki/ca.crt"]': 'trust = ["pki/ca.crt", "pki/site.crt"]',
                'crl = ["pki/ca.crl"]': 'crl = ["pki/ca.crl", "pki/site.crl"]',
            },
        )

    def credential(self, case: str) -> list[str]:
        """Return DCMTK's options to call with the certificate of a case of `BAD`."""
        arguments, _ = BAD[case]
        anchor = self.node.home / "pki" / "ca.crt"
        if arguments is None:
            return ["+tla", "+cf", str(anchor)]
        if case == "a revoked certificate":
            leaf = self.revoked
        else:
            ca = Ca("Unknown CA") if "unknown" in case else self.ca
            leaf = ca.write(self.folder, case.replace(" ", "-"), **arguments)
        return dcmtk_tls(leaf.key, leaf.crt, anchor)


@pytest.fixture(scope="module")
def site(template_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    copied = shutil.copytree(template_home, tmp_path_factory.mktemp("site") / "home")
    site = Site(Path(copied))
    with site.node:
        yield site


def test_B12_a_good_certificate_of_the_site_comes_in(site: Site) -> None:
    pki = site.node.home / "pki"
    options = dcmtk_tls(site.good.key, site.good.crt, pki / "ca.crt")
    done = parts.run(["echoscu", *options, "127.0.0.1", str(site.node.port)])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("case", BAD)
def test_B12_refused_and_audited_by_name(case: str, site: Site) -> None:
    node = site.node
    options = site.credential(case)
    done = parts.run(["echoscu", *options, "-ta", "10", "127.0.0.1", str(node.port)])
    assert done.returncode != 0
    word = BAD[case][1]
    alert = node.wait_for_alert(f"refused: {word}")
    assert alert.outcome == 8
    assert "127.0.0.1" in alert.users
    node.wait_for_log("WARNING", "127.0.0.1", f"refused: {word}")


def test_all_kinds_in_a_row_from_one_address_are_each_audited_by_name(home: Path) -> None:
    site = Site(home)
    with site.node as node:
        for case in BAD:
            options = site.credential(case)
            done = parts.run(["echoscu", *options, "-ta", "10", "127.0.0.1", str(node.port)])
            assert done.returncode != 0, case
        parts.run(["echoscu", "-ta", "10", "127.0.0.1", str(node.port)])  # no TLS at all
        parts.wait_until(lambda: node.log.count("refused: ") > len(BAD), "every refusal logged")
        node.wait_for_log("refused: not TLS")
        words = [one.words for one in node.records(ALERT, NODE_AUTHENTICATION)]
        expected = {word for _, word in BAD.values()} | {"not TLS"}
        missing = {word for word in expected if not any(word in said for said in words)}
        assert not missing


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_B12_an_old_version_of_TLS(version: str, home: Path) -> None:
    with Node(home) as node:
        argv = ["openssl", "s_client", "-connect", f"127.0.0.1:{node.port}", version]
        done = parts.run([*argv, "-cipher", "ALL:@SECLEVEL=0"])
        assert done.returncode != 0
        node.wait_for_alert("refused: protocol version")
        assert node.echo()


def test_a_stray_OPENSSL_CONF_changes_nothing(home: Path) -> None:
    conf = home.parent / "openssl.cnf"
    conf.write_text(
        "openssl_conf = init\n[init]\nssl_conf = ssl\n[ssl]\nsystem_default = all\n[all]\n"
        "MinProtocol = TLSv1\nCipherString = ALL:@SECLEVEL=0\n"
    )
    with Node(home, env={"OPENSSL_CONF": str(conf)}) as node:
        argv = ["openssl", "s_client", "-connect", f"127.0.0.1:{node.port}", "-tls1_1"]
        assert parts.run([*argv, "-cipher", "ALL:@SECLEVEL=0"]).returncode != 0
        node.wait_for_alert("refused: protocol version")
        assert node.echo()


def test_a_stray_OPENSSL_CONF_that_cannot_be_overruled_is_named(home: Path) -> None:
    conf = home.parent / "openssl.cnf"
    conf.write_text(
        "openssl_conf = init\n[init]\nssl_conf = ssl\n[ssl]\nsystem_default = all\n[all]\n"
        "Options = UnsafeLegacyRenegotiation\n"
    )
    done = cli("serve", "--home", home, "--port", "0", env={"OPENSSL_CONF": str(conf)})
    assert done.returncode == 2
    assert "OPENSSL_CONF" in done.stderr


def test_a_broken_OPENSSL_CONF_changes_nothing(home: Path) -> None:
    conf = home.parent / "openssl.cnf"
    conf.write_text("openssl_conf = [[[\n\0garbage")
    with Node(home, env={"OPENSSL_CONF": str(conf)}) as node:
        assert node.echo()


# -- what changes while the node runs ------------------------------------------------------


def _session(node: Node) -> tuple[ssl.SSLContext, ssl.SSLSession | None]:
    """Shake hands as the home's client and return what one would resume with."""
    pki = node.home / "pki"
    context = node.tls_client(pki / "client.crt", pki / "client.key")
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # its session is there with the handshake
    with node.connect(context=context) as sock:
        return context, sock.session


def _resume(node: Node, context: ssl.SSLContext, session: ssl.SSLSession | None) -> bool:
    """Tell whether the node takes a client that comes back with its session."""
    try:
        with context.wrap_socket(
            tcp(node.port), server_hostname="127.0.0.1", session=session
        ) as sock:
            sock.sendall(request_pdu())
            return sock.recv(1) == b"\x02"
    except (ssl.SSLError, ConnectionError):
        return False


def test_a_session_from_before_the_revocation_does_not_come_back(home: Path) -> None:
    with Node(home) as node:
        context, session = _session(node)
        assert _resume(node, context, session)
        assert cli("pki", "revoke", "--home", home, "client").returncode == 0
        assert not _resume(node, context, session)
        assert not node.echo()
        node.wait_for_alert("refused: revoked")


def test_a_session_from_before_a_change_of_trust_does_not_come_back(home: Path) -> None:
    with Node(home) as node:
        context, session = _session(node)
        assert _resume(node, context, session)
        new = Ca("New CA")
        new.anchor(home / "pki" / "new.crt")
        new.crl(home / "pki" / "new.crl")
        # Rename, as the documentation says: no reader sees half a file.
        own = home / "pki" / "own-ca.crt"
        shutil.copy(home / "pki" / "ca.crt", own)
        (home / "pki" / "new.crt").replace(home / "pki" / "ca.crt")
        (home / "pki" / "new.crl").replace(home / "pki" / "ca.crl")
        context.load_verify_locations(own)
        assert not _resume(node, context, session)
        node.wait_for_alert("refused: unknown issuer")


def test_a_renewed_certificate_of_the_node_counts_from_the_next_connection(home: Path) -> None:
    with Node(home) as node:
        with node.connect() as sock:
            before = sock.getpeercert(binary_form=True)
        for name in ("node", "node-ec"):
            kind = "ec" if name == "node-ec" else "rsa"
            done = cli("pki", "issue", "--home", home, name, "--renew", "--key", kind)
            assert done.returncode == 0, done.stderr
        with node.connect() as sock:
            assert sock.getpeercert(binary_form=True) != before
        assert node.echo()


def test_a_crl_out_of_date_refuses_everybody_and_says_so(home: Path) -> None:
    site = Site(home)
    site.ca.crl(home / "pki" / "site.crl", expired=True)
    with site.node as node:
        options = dcmtk_tls(site.good.key, site.good.crt, home / "pki" / "ca.crt")
        done = parts.run(["echoscu", *options, "-ta", "10", "127.0.0.1", str(node.port)])
        assert done.returncode != 0
        node.wait_for_alert("refused: crl expired")
        assert node.echo(), "the other authority's list is good"


def test_an_authority_without_a_crl_where_lists_are_configured(home: Path) -> None:
    site = Site(home)
    change = {'crl = ["pki/ca.crl", "pki/site.crl"]': 'crl = ["pki/ca.crl"]'}
    with Node(home, change=change) as node:
        options = dcmtk_tls(site.good.key, site.good.crt, home / "pki" / "ca.crt")
        done = parts.run(["echoscu", *options, "-ta", "10", "127.0.0.1", str(node.port)])
        assert done.returncode != 0
        node.wait_for_alert("refused: crl missing")


@pytest.mark.parametrize("content", [None, b"", b"no list at all"])
def test_a_crl_file_that_goes_bad_keeps_the_last_good_one(
    content: bytes | None, home: Path
) -> None:
    with Node(home) as node:
        assert cli("pki", "revoke", "--home", home, "client").returncode == 0
        assert not node.echo()
        crl = home / "pki" / "ca.crl"
        crl.unlink()
        if content is not None:
            crl.write_bytes(content)
        assert not node.echo(), "revoked in the last good list"
        node.wait_for_log("ERROR", "ca.crl")
        node.wait_for_alert("ca.crl", kind=CONFIGURATION)


def test_a_silent_close_is_no_crash(home: Path) -> None:
    with Node(home) as node:
        with node.connect() as sock:
            sock.close()
        node.wait_for_alert("closed by peer")
        with node.connect() as sock:
            sock.sendall(b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00")  # A-ABORT, at once
            assert closed_by_peer(sock)
        assert node.echo()
