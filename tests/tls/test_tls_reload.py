"""Changed files: the next connection sees them, bad ones change nothing."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from dicom_secure_node.errors import ConfigurationError, InvalidCertificate
from dicom_secure_node.pki.credential import load_credential_base
from dicom_secure_node.pki.trust import load_trust
from dicom_secure_node.tls.context import ClientContext, ServerContext
from dicom_secure_node.tls.profiles import profile_named
from dicom_secure_node.tls.reload import Reloading
from dicom_secure_node.tls.socket import TLSSocket
from tests.certs import Leaf
from tests.tls.conftest import Pki
from tests.tls.listener import WAIT, Listener


class Number:
    """A file with a number, read by `Reloading`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "number"
        self.reads = 0
        self.problems: list[Exception] = []
        self.news: list[int] = []
        self.write("1")

    def write(self, text: str) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.path)

    def read(self) -> int:
        self.reads += 1
        return int(self.path.read_text())

    def reloading(self) -> Reloading[int]:
        return Reloading(self.read, [self.path], self.problems.append, self.news.append)


def test_nothing_is_read_again_while_nothing_changes(tmp_path: Path) -> None:
    number = Number(tmp_path)
    reloading = number.reloading()
    assert [reloading.current for _ in range(5)] == [1] * 5
    assert number.reads == 1
    assert number.news == []


def test_a_change_is_seen_at_the_next_look(tmp_path: Path) -> None:
    number = Number(tmp_path)
    reloading = number.reloading()
    number.write("2")
    assert reloading.current == 2
    assert number.news == [2]


def test_a_bad_change_keeps_the_last_good_one_and_is_told_once(tmp_path: Path) -> None:
    number = Number(tmp_path)
    reloading = number.reloading()
    number.write("rubbish")
    assert [reloading.current for _ in range(5)] == [1] * 5
    assert (number.reads, len(number.problems)) == (2, 1)
    number.write("rubbish")  # another file, the same words
    assert reloading.current == 1
    assert len(number.problems) == 1
    number.write("other rubbish")
    assert reloading.current == 1
    assert len(number.problems) == 2
    number.write("3")
    assert reloading.current == 3
    number.write("rubbish")
    assert reloading.current == 3
    assert len(number.problems) == 3


def test_a_file_that_vanishes_keeps_the_last_good_one(tmp_path: Path) -> None:
    number = Number(tmp_path)
    reloading = number.reloading()
    number.path.unlink()
    assert reloading.current == 1
    assert isinstance(number.problems[0], FileNotFoundError)
    number.write("1")
    assert reloading.current == 1
    assert number.news == [1]


def test_the_first_failure_is_raised(tmp_path: Path) -> None:
    number = Number(tmp_path)
    number.write("rubbish")
    with pytest.raises(ValueError, match="rubbish"):
        number.reloading()


def test_one_change_is_read_once_by_many_threads(tmp_path: Path) -> None:
    number = Number(tmp_path)
    reloading = number.reloading()
    number.write("2")
    barrier = threading.Barrier(8)

    def look() -> None:
        barrier.wait()
        for _ in range(50):
            assert reloading.current in (1, 2)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert reloading.current == 2
    assert number.reads == 2


# -- with contexts


class Node:
    """A server whose credential, trust and revocation list are files."""

    def __init__(self, pki: Pki, folder: Path) -> None:
        self.pki, self.folder = pki, folder
        self.problems: list[Exception] = []
        pki.ca.write(folder, "node")
        self.crl = pki.ca.crl(folder / "ca.crl")
        paths = [folder / "node.crt", folder / "node.key", pki.anchor, self.crl]
        self.contexts = Reloading(self._build, paths, self.problems.append)

    def _build(self) -> ServerContext:
        credential = load_credential_base(self.folder / "node")
        trust = load_trust([self.pki.anchor], [self.crl])
        return ServerContext(profile_named("8996"), [credential], trust)

    def call(self, listener: Listener, leaf: Leaf) -> TLSSocket:
        listener.context = self.contexts.current
        context = ClientContext(profile_named("8996"), self.pki.credential(leaf), self.pki.trust)
        client = context.wrap_socket(listener.connect(), server_hostname="localhost")
        client.handshake(WAIT)
        client.settimeout(WAIT)
        return client


def test_a_renewed_certificate_serves_the_next_connection(pki: Pki, tmp_path: Path) -> None:
    node = Node(pki, tmp_path)
    with Listener(node.contexts.current) as listener, node.call(listener, pki.client) as before:
        pki.ca.write(tmp_path, "node")
        with node.call(listener, pki.client) as after:
            assert before.facts
            assert after.facts
            assert before.facts.fingerprint != after.facts.fingerprint
        before.sendall(b"still here")
        assert before.recv(100) == b"still here"
    assert node.problems == []


BAD = {
    "an empty certificate": ("node.crt", b"", InvalidCertificate),
    "a key that is no key": ("node.key", b"rubbish", InvalidCertificate),
    "a revocation list cut short": ("ca.crl", b"-----BEGIN X509 CRL-----\nMII", InvalidCertificate),
}


@pytest.mark.parametrize(("name", "content", "error"), BAD.values(), ids=BAD)
def test_a_bad_file_keeps_the_node_up(
    name: str, content: bytes, error: type[Exception], pki: Pki, tmp_path: Path
) -> None:
    node = Node(pki, tmp_path)
    with Listener(node.contexts.current) as listener:
        (tmp_path / name).write_bytes(content)
        for _ in range(2):
            with node.call(listener, pki.client) as client:
                assert client.facts
    assert [type(p) for p in node.problems] == [error]


def test_a_weak_certificate_is_not_taken_up(pki: Pki, tmp_path: Path) -> None:
    node = Node(pki, tmp_path)
    good = node.contexts.current
    pki.ca.write(tmp_path, "node", key="rsa1024")
    assert node.contexts.current is good
    assert isinstance(node.problems[0], ConfigurationError)


def test_a_client_revoked_while_the_node_runs_is_out(pki: Pki, tmp_path: Path) -> None:
    node = Node(pki, tmp_path)
    thief = pki.ca.write(tmp_path, "thief")
    with Listener(node.contexts.current) as listener:
        with node.call(listener, thief):
            listener.facts()
        pki.ca.crl(node.crl, [thief], number=2)
        with node.call(listener, thief):
            assert listener.refusal().kind == "revoked"
        with node.call(listener, pki.client):
            listener.facts()
