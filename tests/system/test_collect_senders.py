"""Real senders and a repository of ours: what each sent is there, octet by octet, and found."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections import Counter
from pathlib import Path

import pytest

from dicom_secure_node.audit.collecting.records import Filter
from dicom_secure_node.audit.collecting.store import RecordStore
from dicom_secure_node.audit.syslog import Header
from dicom_secure_node.audit.trail import AuditTrail
from dicom_secure_node.audit.transport import Repository as Target
from dicom_secure_node.pki.credential import load_credential_base
from dicom_secure_node.pki.trust import load_trust
from dicom_secure_node.tls.context import ClientContext
from dicom_secure_node.tls.profiles import profile_named
from tests import parts
from tests.audit.collected import every_message
from tests.audit.samples import SOURCE, every_kind
from tests.certs import Ca
from tests.system.collecting import Repository, frame
from tests.system.running import COMMAND

BOM = b"\xef\xbb\xbf"


def xml_of(messages: list[bytes]) -> Counter[bytes]:
    return Counter(one.partition(BOM)[2] for one in messages)


def client_context(home: Path) -> ClientContext:
    pki = home / "pki"
    credential = load_credential_base(pki / "client")
    return ClientContext(profile_named("8996"), credential, load_trust([pki / "ca.crt"]))


@pytest.mark.parametrize("transport", ["tls", "udp"])
def test_our_own_trail(transport: str, home: Path, tmp_path: Path) -> None:
    with Repository(home, udp=True) as repository:
        tls = transport == "tls"
        target = Target(
            "site",
            "127.0.0.1",
            repository.port if tls else repository.udp_port,
            transport,
            context=client_context(home) if tls else None,
        )
        trail = AuditTrail(tmp_path / "trail", SOURCE, [target], hostname="node.example.org")
        trail.start()
        sent = list(every_kind("M\u00fcller & <Co>").values())
        for message in sent:
            trail.emit(message)
        repository.wait_for(lambda stored: len(xml_of(stored)) == len(sent), "every message")
        trail.stop()
        found = repository.indexed(len(sent))
        assert all(one.valid and one.intact for one in found)
        assert {one.transport for one in found} == {transport}
        assert {bool(one.sender) for one in found} == {tls}
        with RecordStore(repository.folder) as store:
            assert list(store.query(Filter(user="m\u00fcller & <co>", failures=True)))
        assert repository.verify().returncode == 0
    assert (
        Header("node.example.org", "dicom-secure-node", "1").fields()[:16].encode()
        in (repository.stored()[0])
    )


def test_rsyslog_forwards_to_it(home: Path, tmp_path: Path) -> None:
    """omfwd with the openssl driver, octet-counted, its own client certificate."""
    pki = home / "pki"
    relay = tmp_path / "rsyslog"
    relay.mkdir()
    with Repository(home) as repository:
        port = parts.free_port()
        (relay / "rsyslog.conf").write_text(
            f"""global(workDirectory="{relay}" maxMessageSize="256k"
  defaultNetstreamDriverCAFile="{pki / "ca.crt"}"
  defaultNetstreamDriverCertFile="{pki / "client.crt"}"
  defaultNetstreamDriverKeyFile="{pki / "client.key"}")
module(load="imudp")
template(name="raw" type="list") {{ property(name="rawmsg") }}
ruleset(name="forward") {{ action(type="omfwd" target="127.0.0.1" port="{repository.port}"
  protocol="tcp" TCP_Framing="octet-counted" StreamDriver="ossl" StreamDriverMode="1"
  StreamDriverAuthMode="x509/certvalid" template="raw" action.resumeRetryCount="-1") }}
input(type="imudp" address="127.0.0.1" port="{port}" ruleset="forward")
"""
        )
        argv = ["rsyslogd", "-n", "-f", relay / "rsyslog.conf", "-i", relay / "rsyslog.pid"]
        ready = lambda: parts.listening(port, udp=True)  # noqa: E731
        with parts.Part(argv, log=relay / "log", ready=ready):
            wanted = every_message()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for one in wanted:
                    sender.sendto(one, ("127.0.0.1", port))
            repository.wait_for(lambda stored: len(stored) >= len(wanted), "every message")
        assert Counter(repository.stored()) == Counter(wanted)
        assert all(one.valid for one in repository.indexed(len(wanted)))


@pytest.mark.parametrize("counted", [True, False], ids=["octets counted", "a line"])
def test_logger(counted: bool, home: Path) -> None:
    """util-linux's ``logger`` does not speak TLS: openssl's client does for it."""
    with Repository(home) as repository, socket.create_server(("127.0.0.1", 0)) as listener:
        argv = ["/usr/bin/logger", "--tcp", "--server", "127.0.0.1", "--rfc5424"]
        argv += ["--port", str(listener.getsockname()[1]), "-p", "authpriv.notice"]
        parts.run([*argv, *(["--octet-count"] if counted else []), "hello"], check=True)
        plain, _ = listener.accept()
        with plain, plain.makefile("rb") as said:
            octets = said.read()
        pki = home / "pki"
        words = ["openssl", "s_client", "-quiet", "-connect", f"127.0.0.1:{repository.port}"]
        words += ["-cert", str(pki / "client.crt"), "-key", str(pki / "client.key")]
        parts.run([*words, "-CAfile", str(pki / "ca.crt"), "-no_ign_eof"], stdin=octets)
        repository.wait_for(lambda stored: len(stored) == 1, "the message")
        (message,) = repository.stored()
        assert message.startswith(b"<85>1 ")
        assert message.endswith(b"hello")


def test_logger_over_udp(home: Path) -> None:
    with Repository(home, udp=True) as repository:
        argv = ["/usr/bin/logger", "--server", "127.0.0.1", "--port", str(repository.udp_port)]
        parts.run([*argv, "--udp", "--rfc5424", "h\u00e9llo"], check=True)
        repository.wait_for(lambda stored: len(stored) == 1, "the message")
        assert repository.stored()[0].endswith("h\u00e9llo".encode())
        (record,) = repository.indexed(1)
        assert (record.transport, record.sender, record.valid) == ("udp", "", False)


def test_close_notify_is_answered(home: Path) -> None:
    with Repository(home) as repository, repository.connected() as secure:
        secure.sendall(frame(b"<85>1 last"))
        secure.unwrap().close()  # raises without the other side's close_notify
        repository.wait_for_log("closed by the sender, 1 messages")
        assert repository.stored() == [b"<85>1 last"]


REFUSED = {
    "no certificate": "no certificate",
    "a certificate of another CA": "unknown issuer",
}


@pytest.mark.parametrize(("which", "why"), REFUSED.items(), ids=REFUSED)
def test_who_may_not_send(which: str, why: str, home: Path, tmp_path: Path) -> None:
    with Repository(home) as repository:
        context = ssl.create_default_context(cafile=str(home / "pki" / "ca.crt"))
        if why == "unknown issuer":
            leaf = Ca("Other CA").write(tmp_path, "other")
            context.load_cert_chain(leaf.crt, leaf.key)
        answer = b"?"
        # An alert, or a reset that overtakes it.
        with contextlib.suppress(OSError), repository.dial(context) as secure:
            secure.sendall(frame(b"<85>1 not to be kept"))
            answer = secure.recv(1)
        assert answer in (b"?", b"")
        assert why in repository.wait_for_log("handshake refused")
        assert repository.stored() == []


def test_a_busy_port_is_code_3(home: Path) -> None:
    with Repository(home) as repository:
        argv = ["audit", "collect", "--config", str(home / "collect.toml")]
        other = home / "other"
        done = parts.run([*COMMAND, *argv, "--port", str(repository.port), "--folder", str(other)])
        assert done.returncode == 3
        assert f"127.0.0.1:{repository.port}" in done.stderr
        same = parts.run([*COMMAND, *argv])
        assert same.returncode == 3
        assert "in use by another process" in same.stderr
