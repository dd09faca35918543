"""The download of an issuer's keys: whom it trusts, and what it does not wait for."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dicom_secure_node.errors import ConfigurationError, ServiceUnavailable
from dicom_secure_node.identity.jwks import MAX_SET_BYTES
from dicom_secure_node.identity.key_download import Download
from dicom_secure_node.identity.key_sources import open_source
from tests.certs import Ca
from tests.identity.oidc import jwks, private_key, public_jwk
from tests.parts import free_port

RSA = public_jwk("k1", "RS256")


@contextmanager
def web(answer: Callable[[BaseHTTPRequestHandler], None], tls: Any = None) -> Iterator[str]:
    """Serve GET by `answer`, under TLS with the leaf `tls`; yields the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = False

        def handle_error(self, *args: Any) -> None:
            pass  # a client that hangs up is what some of the tests are about

    with Server(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.crt, tls.key)
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        scheme = "http" if tls is None else "https"
        try:
            yield f"{scheme}://localhost:{server.server_address[1]}/jwks?v=1"
        finally:
            server.shutdown()
            thread.join(20)


def keys_answer(handler: BaseHTTPRequestHandler) -> None:
    assert handler.path == "/jwks?v=1"
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(jwks(RSA))


def test_download_over_TLS(tmp_path: Path) -> None:
    ca = Ca()
    anchor = ca.anchor(tmp_path / "ca.crt")
    with web(keys_answer, ca.write(tmp_path, "issuer")) as url:
        source = open_source(url, trust=[anchor])
        assert source.find("k1", "RS256") == private_key("k1", "RS256").public_key()


UNTRUSTED = {
    "of an unknown CA": ({}, True, "unable to get local issuer"),
    "for another name": ({"hosts": ("other.example",)}, False, "Hostname mismatch"),
    "that expired": ({"expired": True}, False, "expired"),
    "signed by itself": ({"self_signed": True}, False, "self-signed"),
}


@pytest.mark.parametrize(("leaf", "stranger", "why"), UNTRUSTED.values(), ids=UNTRUSTED)
def test_download_from_a_certificate(
    leaf: dict[str, Any], stranger: bool, why: str, tmp_path: Path
) -> None:
    ca = Ca()
    anchor = ca.anchor(tmp_path / "ca.crt")
    signer = Ca("Another CA") if stranger else ca
    with web(keys_answer, signer.write(tmp_path, "issuer", **leaf)) as url:
        with pytest.raises(ServiceUnavailable, match="certificate refused") as refused:
            Download(url, trust=[anchor])()
        assert why.replace("-", " ") in refused.value.reason.replace("-", " ")


def test_download_from_a_CA_the_system_does_not_know(tmp_path: Path) -> None:
    with (
        web(keys_answer, Ca().write(tmp_path, "issuer")) as url,
        pytest.raises(ServiceUnavailable, match="certificate refused"),
    ):
        Download(url)()


def redirect(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(302)
    handler.send_header("Location", "http://127.0.0.1:9/jwks")
    handler.end_headers()


def not_found(handler: BaseHTTPRequestHandler) -> None:
    handler.send_error(404)


def garbage(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"not HTTP at all\r\n\r\n")


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def cut_short(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"{")


def drip(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b" ")
            handler.connection.settimeout(0.05)
            try:
                if not handler.connection.recv(1):
                    return
            except TimeoutError:
                continue
    except OSError:
        return


def drip_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    drip(handler)


ANSWERS = {
    "a redirection": (redirect, "HTTP status 302"),
    "an error": (not_found, "HTTP status 404"),
    "garbage": (garbage, "no HTTP answer"),
    "nothing": (hang_up, "no HTTP answer|reset|EOF|closed"),
    "half of it": (cut_short, "cut short"),
    "a byte now and then": (drip, "no whole answer within 0.5 s"),
    "a header without end": (drip_headers, "within 0.5 s"),
}


@pytest.mark.parametrize("under_tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize(("answer", "why"), ANSWERS.values(), ids=ANSWERS)
def test_download_answered_with(
    answer: Callable[[BaseHTTPRequestHandler], None], why: str, under_tls: bool, tmp_path: Path
) -> None:
    ca = Ca()
    leaf = ca.write(tmp_path, "issuer") if under_tls else None
    with web(answer, leaf) as url:
        download = Download(url, trust=[ca.anchor(tmp_path / "ca.crt")], seconds=0.5)
        with pytest.raises(ServiceUnavailable, match=why):
            download()


def test_download_without_end_is_read_to_the_limit_only() -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b" " * 65_536)
        except OSError:
            return

    with web(endless) as url, pytest.raises(ServiceUnavailable) as found:
        Download(url)()
    assert str(found.value).endswith(f"an answer of more than {MAX_SET_BYTES} bytes")


def test_download_from_who_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for scheme in ("http", "https"):
            with pytest.raises(ServiceUnavailable, match=r"within|time-out"):
                Download(f"{scheme}://localhost:{port}/", seconds=0.2)()


def test_download_from_nobody() -> None:
    with pytest.raises(ServiceUnavailable, match="Connection refused"):
        Download(f"http://127.0.0.1:{free_port()}/jwks")()


URLS = {
    "http elsewhere": "http://issuer.example/jwks",
    "http to an address elsewhere": "http://192.0.2.1/jwks",
    "a file": "file:///etc/passwd",
    "another scheme": "ftp://issuer.example/jwks",
    "no host": "https:///jwks",
    "a user": "https://me:secret@issuer.example/jwks",
    "a fragment": "https://issuer.example/jwks#k1",
    "a space": "https://issuer.example/jw ks",
    "a line break": "https://issuer.example/jwks\r\nX: y",
    "a port of letters": "https://issuer.example:port/jwks",
    "a port too high": "https://issuer.example:65536/jwks",
    "half an address": "https://[::1/jwks",
    "no ASCII": "https://issuer.example/schlüssel",
}


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_URLs_we_would_not_ask(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        open_source(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("content", [None, b"no PEM"])
def test_CA_file_unusable_at_the_start(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "ca.crt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"ca\.crt"):
        open_source("https://issuer.example/jwks", trust=[path])
