"""The public keys of a token issuer: JSON Web Key Sets (RFC 7517, RFC 7518 section 6).

Of a set we keep the keys that can verify a signature and are strong enough. What is left out
is logged with its reason: keys for other uses, shared secrets, keys published with their
private part, RSA below 2048 bits, curves other than P-256, P-384 and P-521. A set with no key
left is an error.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dicom_secure_node.errors import InvalidInput

logger = logging.getLogger(__name__)

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
# crv (RFC 7518 6.2.1.1) to the curve, and the one algorithm a key on it is for (3.4).
_CURVES: Mapping[str, tuple[ec.EllipticCurve, str]] = MappingProxyType(
    {
        "P-256": (ec.SECP256R1(), "ES256"),
        "P-384": (ec.SECP384R1(), "ES384"),
        "P-521": (ec.SECP521R1(), "ES512"),
    }
)
ALGORITHMS = (*RSA_ALGORITHMS, *(name for _, name in _CURVES.values()))

MIN_RSA_BITS = 2048
MAX_SET_BYTES = 256 * 1024
MAX_KEYS = 100
MAX_KID_LENGTH = 256  # characters
_CLAUSE = "RFC 7517"


@dataclass(frozen=True)
class IssuerKey:
    """One key of an issuer.

    Attributes
    ----------
    kid : str or None
        Key ID, None where the set gives none.
    key : RSAPublicKey or EllipticCurvePublicKey
    algorithms : frozenset of str
        The algorithms (``alg`` of a token) it may verify.
    """

    kid: str | None
    key: PublicKey
    algorithms: frozenset[str]


class _Unusable(Exception):
    """A key is left out; the text says why."""


def parse_jwks(data: bytes, where: str) -> tuple[IssuerKey, ...]:
    """Return the usable keys of the JSON Web Key Set `data`.

    Parameters
    ----------
    data : bytes
        JSON in UTF-8.
    where : str
        File or URL, for errors and the log.

    Raises
    ------
    InvalidInput
        It is no key set, is too large, or holds no key we could use.

    References
    ----------
    RFC 7517 section 5
    """
    if len(data) > MAX_SET_BYTES:
        raise InvalidInput("too large a key set", f"at most {MAX_SET_BYTES} bytes", where)
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        # The cause would carry the document.
        raise InvalidInput("no JSON", "a JSON Web Key Set", where, _CLAUSE) from None
    rows = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(rows, list):
        raise InvalidInput("no list 'keys'", "a JSON Web Key Set", where, _CLAUSE)
    if len(rows) > MAX_KEYS:
        raise InvalidInput(f"{len(rows)} keys", f"at most {MAX_KEYS}", where)
    keys = []
    for number, row in enumerate(rows):
        try:
            keys.append(_key(row))
        except _Unusable as exc:
            logger.warning("%s: key %d of %d left out: %s", where, number + 1, len(rows), exc)
    if not keys:
        raise InvalidInput("no usable key", "a public key that verifies signatures", where)
    return tuple(keys)


def select(keys: Iterable[IssuerKey], kid: str | None, algorithm: str) -> PublicKey | None:
    """Return the one key named `kid` for `algorithm`, None where there is not exactly one.

    A token that names no key gets one only where there is no choice (RFC 7515 4.1.4).
    """
    found = [one.key for one in keys if algorithm in one.algorithms and kid in (None, one.kid)]
    return found[0] if len(found) == 1 else None


def _key(row: Any) -> IssuerKey:
    if not isinstance(row, dict):
        raise _Unusable("it is no JSON object")
    kid = row.get("kid")
    if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_KID_LENGTH):
        raise _Unusable(f"its kid is no text of at most {MAX_KID_LENGTH} characters")
    # RFC 7517 4.2, 4.3: a key marked for something else is not ours to use.
    if row.get("use", "sig") != "sig":
        raise _Unusable("it is not for signatures (use)")
    uses = row.get("key_ops", ["verify"])
    if not isinstance(uses, list) or "verify" not in uses:
        raise _Unusable("it is not for verifying (key_ops)")
    if row.get("kty") == "oct":
        raise _Unusable("it is a shared secret")
    if "d" in row:
        raise _Unusable("it is published with its private part: anybody may have it")
    key, algorithms = _public_key(row)
    alg = row.get("alg")
    if alg is not None:
        if alg not in algorithms:
            raise _Unusable("its alg does not fit its type")
        algorithms = (alg,)
    return IssuerKey(kid, key, frozenset(algorithms))


def _public_key(row: Mapping[str, Any]) -> tuple[PublicKey, tuple[str, ...]]:
    try:
        if row.get("kty") == "RSA":
            key = rsa.RSAPublicNumbers(_number(row, "e"), _number(row, "n")).public_key()
            if key.key_size < MIN_RSA_BITS:
                raise _Unusable(f"RSA of {key.key_size} bits, wanted at least {MIN_RSA_BITS}")
            return key, RSA_ALGORITHMS
        if row.get("kty") == "EC" and str(row.get("crv")) in _CURVES:
            curve, algorithm = _CURVES[str(row["crv"])]
            point = ec.EllipticCurvePublicNumbers(_number(row, "x"), _number(row, "y"), curve)
            return point.public_key(), (algorithm,)
    except ValueError:
        raise _Unusable("its numbers are no valid key") from None
    raise _Unusable("wanted RSA, or EC on P-256, P-384 or P-521")


def _number(row: Mapping[str, Any], name: str) -> int:
    """Return a Base64urlUInt (RFC 7518 section 2)."""
    text = row.get(name)
    if not isinstance(text, str):
        raise _Unusable(f"{name} is missing")
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise _Unusable(f"{name} is no base64url") from None
    return int.from_bytes(raw, "big")
