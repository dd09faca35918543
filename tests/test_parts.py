"""The real parts start, are ready when they say so, and end when asked."""

from __future__ import annotations

import socket
import ssl
import sys
from pathlib import Path

import pytest

from tests import parts
from tests.certs import Ca


def test_a_port_is_given_once() -> None:
    ports = [parts.free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    assert not any(parts.listening(port) for port in ports)


def test_a_listener_is_seen_without_a_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        parts.wait_for_port(port)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert not parts.listening(port)


def test_a_datagram_listener_is_seen() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        assert parts.listening(server.getsockname()[1], udp=True)


def test_a_missing_program_fails_and_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(parts.PROGRAMS, "nosuch", ("/usr/bin/nosuch", "nosuch-utils"))
    with pytest.raises(pytest.fail.Exception, match="nosuch is missing: apt-get install nosuch-u"):
        parts.run(["nosuch"])


def test_a_program_that_ends_at_once_fails_with_what_it_said(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "import sys; sys.exit('no such luck')"]
    part = parts.Part(argv, log=tmp_path / "log", port=parts.free_port())
    with pytest.raises(pytest.fail.Exception, match=r"ended with 1 before (.|\n)*no such luck"):
        part.start()


def test_a_program_that_fails_is_shown(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="ended with 3"):
        parts.run([sys.executable, "-c", "raise SystemExit(3)"], check=True)
    assert parts.run(["cat"], stdin="ä\n").stdout == "ä\n"
    assert parts.run(["pwd"], cwd=tmp_path).stdout == f"{tmp_path}\n"


def test_storescp_and_orthanc_answer(tmp_path: Path) -> None:
    for part in (parts.storescp(tmp_path), parts.orthanc(tmp_path / "orthanc")):
        with part:
            parts.run(["echoscu", "-aec", "ANY", "127.0.0.1", str(part.port)], check=True)
        assert not parts.listening(part.port)


def test_a_killed_part_starts_again_on_its_port(tmp_path: Path) -> None:
    part = parts.storescp(tmp_path)
    with part:
        part.kill()
        part.start()
        parts.run(["echoscu", "127.0.0.1", str(part.port)], check=True)


def test_rsyslog_takes_frames_over_tls_from_a_known_client(tmp_path: Path) -> None:
    ca = Ca()
    server, client = ca.write(tmp_path, "server"), ca.write(tmp_path, "client")
    anchor = ca.anchor(tmp_path / "ca.crt")
    context = ssl.create_default_context(cafile=str(anchor))
    context.load_cert_chain(client.crt, client.key)
    repository = parts.rsyslog(tmp_path / "sl", ca=anchor, crt=server.crt, key=server.key)
    with repository as part:
        address = ("127.0.0.1", part.port)
        with (
            socket.create_connection(address) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as tls,
        ):
            tls.sendall(b"13 <85>1 message")
        arrived = tmp_path / "sl" / "arrived.log"
        parts.wait_until(lambda: arrived.exists() and arrived.read_bytes(), "a message")
        assert arrived.read_bytes() == b"<85>1 message\n"


def test_rsyslog_takes_datagrams(tmp_path: Path) -> None:
    with parts.rsyslog(tmp_path, udp=True) as part:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"<85>1 message", ("127.0.0.1", part.port))
        arrived = tmp_path / "arrived.log"
        parts.wait_until(lambda: arrived.exists() and arrived.read_bytes(), "a message")
        assert arrived.read_bytes() == b"<85>1 message\n"
