"""A hospital's certification authority with everything around it, by certomancer.

One root; lists, an OCSP responder with a certificate of its own, and a time stamping authority.
Answers can be had at any moment in time, and over loopback::

    hospital = Hospital(folder)
    hospital.certificate("signer")
    hospital.crl(at); hospital.ocsp("signer", at)
    with hospital.serve() as url: ...

The certificates name ``http://127.0.0.1:PORT/...`` as the place of lists and answers.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from asn1crypto import ocsp, tsp
from certomancer.integrations.animator import Animator, AnimatorArchStore
from certomancer.registry import (
    ArchLabel,
    CertLabel,
    CertomancerConfig,
    ServiceLabel,
)
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.ocsp import OCSPRequestBuilder, load_der_ocsp_response

from tests.certs import key_pem, make_key

START = datetime(2020, 1, 1, tzinfo=UTC)
END = datetime(2040, 1, 1, tzinfo=UTC)
REVOKED = datetime(2025, 6, 1, 12, tzinfo=UTC)

_SIGNING = {
    "id": "key_usage",
    "critical": True,
    "smart-value": {"schema": "key-usage", "params": ["digital_signature", "non_repudiation"]},
}
_STAMPING = {"id": "extended_key_usage", "critical": True, "value": ["time_stamping"]}
_ANSWERING = {"id": "extended_key_usage", "value": ["ocsp_signing"]}
_NO_CHECK = {"id": "ocsp_no_check"}
_LISTED = {
    "id": "crl_distribution_points",
    "smart-value": {"schema": "crl-dist-url", "params": {"crl-repo-names": ["list"]}},
}
_ANSWERED = {
    "id": "authority_information_access",
    "smart-value": {"schema": "aia-urls", "params": {"ocsp-responder-names": ["answers"]}},
}


def _revoked(reason: str) -> dict[str, str]:
    return {"revoked-since": REVOKED.isoformat(), "reason": reason}


LEAVES: dict[str, dict[str, Any]] = {
    "signer": {"extensions": [_SIGNING, _LISTED, _ANSWERED]},
    "replaced": {
        "extensions": [_SIGNING, _LISTED, _ANSWERED],
        "revocation": _revoked("superseded"),
    },
    "stolen": {
        "extensions": [_SIGNING, _LISTED, _ANSWERED],
        "revocation": _revoked("key_compromise"),
    },
    "short-lived": {
        "extensions": [_SIGNING, _LISTED, _ANSWERED],
        "validity": {"valid-from": START.isoformat(), "valid-to": "2021-01-01T00:00:00+00:00"},
    },
    "ocsp": {"extensions": [_ANSWERING, _NO_CHECK]},
    "tsa": {"extensions": [_SIGNING, _STAMPING, _LISTED]},
    "tsa-short-lived": {
        "extensions": [_SIGNING, _STAMPING, _LISTED],
        "validity": {"valid-from": START.isoformat(), "valid-to": "2021-01-01T00:00:00+00:00"},
    },
    "tsa-replaced": {
        "extensions": [_SIGNING, _STAMPING, _LISTED],
        "revocation": _revoked("superseded"),
    },
    "tsa-stolen": {
        "extensions": [_SIGNING, _STAMPING, _LISTED],
        "revocation": _revoked("key_compromise"),
    },
}
# One of them stamps without being allowed to.
STAMPERS = ("signer", *(name for name in LEAVES if name.startswith("tsa")))


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *words: object) -> None:
        pass


class Hospital:
    """The authority, its certificates and services.

    Parameters
    ----------
    folder : Path
        Takes the keys.
    port : int
        Where `serve` listens, as the certificates say.
    """

    def __init__(self, folder: Path, port: int = 19000) -> None:
        self.port = port
        names = ("root", *LEAVES)
        for name in names:
            key = make_key("rsa", f"hospital {name}")
            (folder / f"{name}.pem").write_bytes(key_pem(key))
        validity = {"valid-from": START.isoformat(), "valid-to": END.isoformat()}
        certificates: dict[str, Any] = {
            "root": {
                "subject": "root",
                "issuer": "root",
                "validity": validity,
                "profiles": [{"id": "simple-ca"}],
            }
        }
        for name, leaf in LEAVES.items():
            certificates[name] = {"subject": name, "issuer": "root", "validity": validity} | leaf
        architecture = {
            "keyset": "keys",
            "entity-defaults": {"country-name": "NL", "organization-name": "Test Hospital"},
            "entities": {name: {"common-name": name} for name in names},
            "certs": certificates,
            "services": {
                "ocsp": {
                    "answers": {
                        "for-issuer": "root",
                        "responder-cert": "ocsp",
                        "signing-key": "ocsp",
                    }
                },
                "crl-repo": {
                    "list": {
                        "for-issuer": "root",
                        "signing-key": "root",
                        "simulated-update-schedule": "P30D",
                    }
                },
                "time-stamping": {
                    name: {"signing-key": name, "signing-cert": name} for name in STAMPERS
                },
            },
        }
        keys = {"keys": {name: {"path": f"{name}.pem"} for name in names}}
        config = {
            "external-url-prefix": f"http://127.0.0.1:{port}",
            "keysets": {"keys": keys},
            "pki-architectures": {"hospital": architecture},
        }
        made = CertomancerConfig(config, key_search_dir=str(folder))
        self.architecture = made.get_pki_arch(ArchLabel("hospital"))
        self.services = self.architecture.service_registry

    def certificate(self, name: str) -> x509.Certificate:
        """Return one of the certificates."""
        found = self.architecture.get_cert(CertLabel(name))
        return x509.load_der_x509_certificate(found.dump())

    def crl(self, at: datetime) -> x509.CertificateRevocationList:
        """Return the list that was current at a moment."""
        return x509.load_der_x509_crl(self.services.get_crl(ServiceLabel("list"), at).dump())

    def ocsp(self, name: str, at: datetime) -> bytes:
        """Return what the responder answered about a certificate at a moment, DER."""
        question = ocsp.OCSPRequest.load(self._question(name))
        responder = self.services.summon_responder(ServiceLabel("answers"), at)
        answer: bytes = responder.build_ocsp_response(question).dump()
        return answer

    def ocsp_signature(self, name: str, at: datetime) -> bytes:
        """Return the signature of that answer."""
        return load_der_ocsp_response(self.ocsp(name, at)).signature

    def _question(self, name: str) -> bytes:
        issuer = self.certificate("root")
        certificate = self.certificate(name)
        sha1 = SHA1()  # noqa: S303 - it names the issuer, as responders expect
        builder = OCSPRequestBuilder().add_certificate(certificate, issuer, sha1)
        return builder.build().public_bytes(Encoding.DER)

    def token(self, name: str, data: bytes, at: datetime) -> bytes:
        """Return a time stamp token for `data`, made at a moment with the key of a certificate."""
        imprint = {
            "hash_algorithm": {"algorithm": "sha256"},
            "hashed_message": hashlib.sha256(data).digest(),
        }
        request = tsp.TimeStampReq({"version": "v1", "message_imprint": imprint, "cert_req": True})
        stamper = self.services.summon_timestamper(ServiceLabel(name), at)
        made: bytes = stamper.request_tsa_response(request)["time_stamp_token"].dump()
        return made

    @contextmanager
    def serve(self, at: datetime | None = None) -> Iterator[list[str]]:
        """Serve lists, answers and time stamps on loopback; yield the paths asked for."""
        asked: list[str] = []

        animator = Animator(
            AnimatorArchStore({ArchLabel("hospital"): self.architecture}),
            at_time=at,
            with_web_ui=False,
        )

        def application(environ: Any, start_response: Any) -> Any:
            asked.append(environ["PATH_INFO"])
            return animator(environ, start_response)

        server = make_server("127.0.0.1", self.port, application, _Server, _Quiet)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
