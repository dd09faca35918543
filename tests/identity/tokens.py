"""JSON Web Tokens as an issuer makes them, and as nobody should."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dicom_secure_node.identity.claims import Backend, Claim, Identity, IdentityType, PeerFacts
from dicom_secure_node.identity.jwt_tokens import JwtBackend
from dicom_secure_node.identity.key_sources import JwksFile
from tests.identity.oidc import jwks, private_key, public_jwk

ISSUER, AUDIENCE = "https://issuer.example", "dicom:PACS1"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
PEER = PeerFacts(address="192.0.2.7", calling_ae="CT1", protected=True)

CLAIMS: Mapping[str, Any] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "ada",
    "iat": SECONDS - 10,
    "exp": SECONDS + 300,
    "jti": "token-1",
    "groups": ["radiology", "ct operators"],
    "client_id": "ct-console",
}
KEYS = dict.fromkeys(("rsa", "other"), "RS256") | {
    "p256": "ES256",
    "p384": "ES384",
    "p521": "ES512",
}


def b64(data: bytes) -> bytes:
    """Return base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def signed(
    claims: Any = CLAIMS, key: str = "rsa", algorithm: str = "RS256", **header: Any
) -> bytes:
    """Return a token as an issuer makes it; a header member that is None is left out."""
    given = {"alg": algorithm, "typ": "at+jwt", "kid": key, **header}
    head = json.dumps({k: v for k, v in given.items() if v is not None}).encode()
    body = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    message = b64(head) + b"." + b64(body)
    signer = jwt.get_algorithm_by_name(algorithm)
    return message + b"." + b64(signer.sign(message, private_key(key, KEYS[key])))


def but(**changes: Any) -> dict[str, Any]:
    """Return good claims but for `changes`; None leaves one out."""
    return {k: v for k, v in {**CLAIMS, **changes}.items() if v is not None}


def unsigned(algorithm: str, signature: bytes = b"") -> bytes:
    """Return a token with the given algorithm in its header, and any signature."""
    head = json.dumps({"alg": algorithm, "kid": "rsa"}).encode()
    return b64(head) + b"." + b64(json.dumps(CLAIMS).encode()) + b"." + b64(signature)


def mac_with_public_key(encoding: Encoding, form: PublicFormat) -> bytes:
    """Return the token of the classic confusion: HS256 keyed with what everybody knows."""
    known = private_key("rsa", "RS256").public_key().public_bytes(encoding, form)
    message = unsigned("HS256").rstrip(b".")
    return message + b"." + b64(hmac.digest(known, message, "sha256"))


def respelt(token: bytes, part: int, change: Any) -> bytes:
    """Return `token` with the content of one part changed, the signature left as it was."""
    pieces = token.split(b".")
    raw = base64.urlsafe_b64decode(pieces[part] + b"=" * (-len(pieces[part]) % 4))
    pieces[part] = b64(change(raw))
    return b".".join(pieces)


def secrets_of(token: bytes) -> Iterator[str]:
    """Yield what nobody may learn of a token: itself, and each part that is long enough."""
    for piece in (token, *token.split(b".")):
        if len(piece) > 20:
            yield piece.decode("utf-8", "replace")


def write_keys(path: Path) -> Path:
    """Write the key set of the issuer, all of `KEYS` but ``other``, and return the path."""
    rows = [public_jwk(name, algorithm, alg=None) for name, algorithm in KEYS.items()]
    path.write_bytes(jwks(*(row for row in rows if row["kid"] != "other")))
    return path


def backend_of(key_file: Path, **options: Any) -> JwtBackend:
    """Return a backend for `ISSUER` whose clock stands at `NOW`."""
    options = {"clock": lambda: NOW, **options}
    return JwtBackend(ISSUER, AUDIENCE, JwksFile(key_file), **options)


def verified(backend: Backend, token: bytes, peer: PeerFacts = PEER) -> Identity:
    """Return what `backend` makes of `token`."""
    return backend.verify(Claim(IdentityType.JWT, token), peer)
