"""``openssl ts`` as a time stamping authority, by hand and behind a small HTTP server."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.certs import Leaf
from tests.pki.openssl import OPENSSL

CONFIGURATION = """
[tsa]
default_tsa = here
[here]
serial = serial
signer_digest = {signature}
default_policy = 1.2.3.4.1
other_policies = 1.2.3.4.2
digests = sha1, sha256, sha384, sha512
accuracy = secs:1
tsa_name = yes
ess_cert_id_alg = {identifier}
"""


@dataclass
class Stamper:
    """An authority with one certificate.

    Attributes
    ----------
    more : sequence of x509.Certificate
        Put into each token, in the order given, which is not DER's.
    """

    folder: Path
    leaf: Leaf
    more: Sequence[x509.Certificate] = ()
    signature: str = "sha256"
    identifier: str = "sha256"
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "serial").write_text("01\n")
        text = CONFIGURATION.format(signature=self.signature, identifier=self.identifier)
        (self.folder / "tsa.cnf").write_text(text)
        chain = b"".join(one.public_bytes(Encoding.PEM) for one in self.more)
        (self.folder / "more.pem").write_bytes(chain)

    def _openssl(self, *words: str) -> None:
        command = [OPENSSL, *words]
        subprocess.run(command, capture_output=True, timeout=60, check=True, cwd=self.folder)

    def answer(self, query: bytes) -> bytes:
        """Return the TimeStampResp to a TimeStampReq."""
        with self._lock:  # openssl counts in a file
            (self.folder / "query.tsq").write_bytes(query)
            more = ("-chain", "more.pem") if self.more else ()
            self._openssl(
                *("ts", "-reply", "-config", "tsa.cnf", "-queryfile", "query.tsq"),
                *("-signer", str(self.leaf.crt), "-inkey", str(self.leaf.key), *more),
                *("-out", "answer.tsr"),
            )
            return (self.folder / "answer.tsr").read_bytes()

    def token(self, data: bytes, digest: str = "sha256", *words: str) -> bytes:
        """Return a bare token."""
        (self.folder / "data").write_bytes(data)
        self._openssl(
            *("ts", "-query", "-data", "data", f"-{digest}", "-out", "query.tsq"),
            *(words or ("-cert",)),
        )
        answer = self.answer((self.folder / "query.tsq").read_bytes())
        (self.folder / "whole.tsr").write_bytes(answer)
        self._openssl("ts", "-reply", "-in", "whole.tsr", "-token_out", "-out", "token")
        return (self.folder / "token").read_bytes()


@contextmanager
def serving(answer: Callable[[bytes], bytes], status: int = 200) -> Iterator[str]:
    """Serve `answer` to each POST on loopback; yield the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/timestamp-query"
            query = self.rfile.read(int(self.headers["Content-Length"]))
            body = answer(query)
            self.send_response(status)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/tsa"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
