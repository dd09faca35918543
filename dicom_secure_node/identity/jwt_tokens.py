"""JSON Web Token, user identity type 5 (PS3.7 D.3.3.7).

PS3.15 has no profile for type 5, so the rules are those of RFC 7519, RFC 8725 (best current
practice) and RFC 9068 (access tokens). `JwtBackend.verify` takes these steps, in order:

1. The token is a signed one in compact form, of at most 16 KiB (RFC 7515 3.1).
2. Its header names an algorithm of the list, all of them with public keys, and brings no key
   of its own: no jwk, jku, x5u, x5c, crit (RFC 8725 3.1, 3.10).
3. The issuer has the key it names; the header chooses among *its* keys only.
4. The signature verifies, and exp, iat, aud, iss and sub are there.
5. Issuer and audience are the configured ones; of several audiences ours has to be one.
   Whom the token was issued to (azp) is no matter of ours, but an attribute of the identity.
6. It is valid now, and not for longer than `max_lifetime`.
7. A token bound to a TLS certificate (cnf, RFC 8705 3.1) comes from its holder.
8. User and groups are taken from the configured claims.
9. Where asked for, the token (jti) was not used before.

What the standard leaves open: a positive response, where one is asked for, is an empty
sub-item 59H, as for types 1 and 2. A white-space character or NUL after the token is not part
of it: files end in line feeds, and some requestors send files as they are.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from dicom_secure_node.errors import ConfigurationError, IdentityRefused, MissingExtra
from dicom_secure_node.identity.claims import (
    MAX_USER_LENGTH,
    Claim,
    Identity,
    IdentityType,
    PeerFacts,
    checked_user,
)
from dicom_secure_node.identity.jwks import ALGORITHMS, MAX_KID_LENGTH, PublicKey
from dicom_secure_node.identity.key_sources import KeySource
from dicom_secure_node.identity.replay import Uses, utc_now

try:
    import jwt
except ImportError:  # `JwtBackend` says so; sending a token needs no library
    jwt = None  # type: ignore[assignment]

MAX_TOKEN_BYTES = 16 * 1024
MAX_SENT_BYTES = 65_000  # a User Information item of 65 535 bytes holds the rest as well
MAX_GROUPS = 256
DEFAULT_ALGORITHMS = ("RS256", "PS256", "ES256")

_COMPACT = re.compile(rb"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]*)+")
_OWN_KEYS = ("jwk", "jku", "x5u", "x5c")
_REQUIRED = ("exp", "iat", "aud", "iss", "sub")
_LATEST = 1e11  # seconds since 1970: the year 5138, and well inside a float


class JwtBackend:
    """Verifies type 5 against the keys of one issuer.

    Parameters
    ----------
    issuer : str
        The ``iss`` claim, character by character.
    audience : str
        Our own name, which the ``aud`` claim has to hold.
    keys : KeySource
        The issuer's keys.
    algorithms : sequence of str
        Signature algorithms taken, of `jwks.ALGORITHMS`.
    user_claim : str
        The claim that becomes the user name.
    groups_claim : str
        The claim with the groups: a list of names, or one name (``scope``: names between
        spaces). ``realm_access.roles`` is looked for inside ``realm_access`` as well.
    attribute_claims : sequence of str
        Claims kept as attributes of the identity, where they are texts.
    leeway : float
        Seconds the issuer's clock may be off.
    max_lifetime : float or None
        Seconds from ``iat`` to ``exp`` at most; None takes any.
    once : Uses or None
        Remembers each token (``jti``, then required): it serves for one association only.
    clock : callable
        The present time, aware.

    Raises
    ------
    ConfigurationError
        An algorithm is none with public keys, or a name is empty.
    MissingExtra
        PyJWT is not installed.
    """

    kinds = frozenset({IdentityType.JWT})

    def __init__(
        self,
        issuer: str,
        audience: str,
        keys: KeySource,
        *,
        algorithms: Sequence[str] = DEFAULT_ALGORITHMS,
        user_claim: str = "sub",
        groups_claim: str = "groups",
        attribute_claims: Sequence[str] = ("iss", "client_id", "azp"),
        leeway: float = 60,
        max_lifetime: float | None = 86_400,
        once: Uses | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        if jwt is None:
            raise MissingExtra("verifying a JWT (user identity type 5)", "jwt")
        for name, value in (("issuer", issuer), ("audience", audience), ("user", user_claim)):
            if not value:
                raise ConfigurationError(f"the {name} of JWT is empty")
        if not algorithms or (wrong := sorted(set(algorithms) - set(ALGORITHMS))):
            found = ", ".join(map(repr, wrong)) if algorithms else "no algorithm"
            raise ConfigurationError(
                f"found {found} for JWT, wanted signatures with public keys: "
                f"{', '.join(ALGORITHMS)}"
            )
        if leeway < 0 or (max_lifetime is not None and max_lifetime <= 0):
            raise ConfigurationError("leeway or max_lifetime of JWT is negative")
        self._issuer, self._audience, self._keys = issuer, audience, keys
        self._algorithms = tuple(algorithms)
        self._user_claim, self._groups_claim = user_claim, groups_claim
        self._attribute_claims = tuple(attribute_claims)
        self._leeway, self._max_lifetime = leeway, max_lifetime
        self._once, self._clock = once, clock

    def verify(self, claim: Claim, peer: PeerFacts) -> Identity:
        """Return whom the token in `claim` is about; see `Backend` and the module."""
        # (1)
        token = _compact(claim.primary)
        # (2)
        algorithm, kid = self._chosen(_header(token))
        # (3)
        key = self._keys.find(kid, algorithm)
        if key is None:
            which = f"key {_shown(kid)}" if kid is not None else "one key only, as none is named,"
            raise IdentityRefused(f"token: the issuer has not {which} for {algorithm}")
        # (4), (5)
        claims = self._verified(token, key, algorithm)
        # (6)
        expiry = self._check_times(claims)
        # (7)
        _check_holder(claims, peer)
        # (8)
        identity = Identity(
            self._user(claims),
            claim.kind,
            groups=_groups(claims, self._groups_claim),
            attributes=_attributes(claims, self._attribute_claims),
            how=f"JWT of {self._issuer}",
        )
        # (9) Last, so that only a token which would have served is used up.
        self._use(claims, expiry)
        return identity

    def _chosen(self, header: Mapping[str, Any]) -> tuple[str, str | None]:
        """Return algorithm and key ID from a header that may be trusted no further."""
        for name in _OWN_KEYS:
            if name in header:
                raise IdentityRefused(f"token: it brings a key of its own ({name})")
        for name in ("crit", "zip", "b64"):
            if name in header:
                raise IdentityRefused(f"token: header {name} is not supported")
        if str(header.get("cty", "")).upper() == "JWT":
            raise IdentityRefused("token: it holds another token (cty)")
        algorithm = header.get("alg")
        if algorithm not in self._algorithms:
            wanted = " or ".join(self._algorithms)
            raise IdentityRefused(f"token: it is {_signed_how(algorithm)}, wanted {wanted}")
        kid = header.get("kid")
        if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_KID_LENGTH):
            raise IdentityRefused("token: the key ID is no text of at most 256 characters")
        return str(algorithm), kid

    def _verified(self, token: bytes, key: PublicKey, algorithm: str) -> Mapping[str, Any]:
        """Return the claims of `token`, which `key` has signed for us."""
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                options={
                    "require": list(_REQUIRED),
                    # Ours: issuer, to say which was found; times, by the clock we are given.
                    "verify_iss": False,
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.MissingRequiredClaimError as exc:
            raise IdentityRefused(f"token: claim {exc.claim} is missing") from None
        except jwt.PyJWTError as exc:
            # Neither its text nor its cause is passed on: both may quote the token.
            raise IdentityRefused(f"token: {_why(exc)}") from None
        if claims["iss"] != self._issuer:
            raise IdentityRefused(
                f"token: issued by {_shown(claims['iss'])}, wanted {self._issuer!r}"
            )
        return claims

    def _check_times(self, claims: Mapping[str, Any]) -> float:
        """Return when the token expires, seconds since 1970."""
        now = self._clock().timestamp()
        expiry, issued = _seconds(claims, "exp"), _seconds(claims, "iat")
        if expiry <= now - self._leeway:
            raise IdentityRefused(f"token: expired {now - expiry:.0f} s ago")
        if issued > now + self._leeway:
            raise IdentityRefused(f"token: issued {issued - now:.0f} s in the future (iat)")
        if claims.get("nbf") is not None and _seconds(claims, "nbf") > now + self._leeway:
            raise IdentityRefused("token: not valid yet (nbf)")
        if self._max_lifetime is not None and expiry - issued > self._max_lifetime:
            raise IdentityRefused(
                f"token: valid for {expiry - issued:.0f} s, wanted at most {self._max_lifetime:.0f}"
            )
        return expiry

    def _user(self, claims: Mapping[str, Any]) -> str:
        found = claims.get(self._user_claim)
        if not isinstance(found, str):
            raise IdentityRefused(f"token: claim {self._user_claim} names no user")
        # A lone surrogate, which JSON can write, is no UTF-8 and refused as such.
        return checked_user(found.encode("utf-8", "surrogatepass"))

    def _use(self, claims: Mapping[str, Any], expiry: float) -> None:
        if self._once is None:
            return
        name = claims.get("jti")
        if not name:  # PyJWT has seen to it that it is a text
            raise IdentityRefused("token: claim jti is missing, so it cannot be used once only")
        until = datetime.fromtimestamp(expiry + self._leeway, UTC)
        if not self._once.use(ascii(("jwt", self._issuer, name)), until):
            raise IdentityRefused("token: it was used before")


def outgoing_claim(token: bytes, *, ask_response: bool = False) -> Claim:
    """Return the claim that sends `token`, what a file or an issuer gave.

    Raises
    ------
    ConfigurationError
        It is no JWT in compact form, or longer than an A-ASSOCIATE-RQ can hold.
    """
    stripped = token.strip()
    if not _COMPACT.fullmatch(stripped):
        raise ConfigurationError("found no JWT, wanted its compact form (base64url and dots)")
    if len(stripped) > MAX_SENT_BYTES:
        raise ConfigurationError(
            f"found a JWT of {len(stripped)} bytes, wanted at most {MAX_SENT_BYTES}"
        )
    return Claim(IdentityType.JWT, stripped, response_requested=ask_response)


def _compact(primary: bytes) -> bytes:
    """Return the token alone: three parts of base64url between dots (RFC 7515 3.1)."""
    if len(primary) > MAX_TOKEN_BYTES:
        raise IdentityRefused(f"token: {len(primary)} bytes, wanted at most {MAX_TOKEN_BYTES}")
    token = primary.rstrip(b" \t\r\n\0")
    if not _COMPACT.fullmatch(token):
        raise IdentityRefused("token: no JWT in compact form (base64url and dots)")
    parts = token.split(b".")
    if len(parts) == 5:
        raise IdentityRefused("token: encrypted (JWE), wanted a signed one")
    if len(parts) != 3:
        raise IdentityRefused(f"token: {len(parts)} parts, wanted 3")
    return token


def _header(token: bytes) -> Mapping[str, Any]:
    encoded = token.partition(b".")[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4)))
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise IdentityRefused("token: the header is no JSON object")
    return header


def _signed_how(algorithm: object) -> str:
    if not isinstance(algorithm, str) or not re.fullmatch(r"[A-Za-z0-9-]{1,16}", algorithm):
        return "signed by an unknown algorithm"
    if algorithm.lower() == "none":
        return "not signed (none)"
    secret = "with a shared secret " if algorithm.upper().startswith("HS") else ""
    return f"signed {secret}({algorithm})"


def _why(exc: Exception) -> str:
    if isinstance(exc, jwt.InvalidSignatureError):
        return "the signature does not verify"
    if isinstance(exc, jwt.InvalidAudienceError):
        return "meant for another audience"
    return f"malformed ({type(exc).__name__})"


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    """Return a NumericDate (RFC 7519 section 2)."""
    found = claims[name]
    # The comparison also turns away NaN, infinity and numbers no float can hold.
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < _LATEST:
        raise IdentityRefused(f"token: claim {name} is no number of seconds")
    return float(found)


def _check_holder(claims: Mapping[str, Any], peer: PeerFacts) -> None:
    if claims.get("cnf") is None:
        return
    bound = claims["cnf"]
    wanted = bound.get("x5t#S256") if isinstance(bound, dict) and len(bound) == 1 else None
    if not isinstance(wanted, str):
        raise IdentityRefused("token: bound to a key in a way we cannot check (cnf)")
    if peer.certificate is None:
        raise IdentityRefused("token: bound to a TLS certificate, and the peer has none")
    digest = hashlib.sha256(peer.certificate.public_bytes(Encoding.DER)).digest()
    held = base64.urlsafe_b64encode(digest).rstrip(b"=")
    if not hmac.compare_digest(held, wanted.encode("utf-8", "replace")):
        raise IdentityRefused("token: bound to another TLS certificate (RFC 8705)")


def _groups(claims: Mapping[str, Any], name: str) -> frozenset[str]:
    """Return the groups; refuse what cannot be read, lest a rule that denies be missed."""
    elsewhere = claims.get("_claim_names")
    if isinstance(elsewhere, dict) and name in elsewhere:
        raise IdentityRefused(f"token: claim {name} is left out, the groups are too many")
    found: Any = claims.get(name)
    if found is None:
        found = claims
        for step in name.split("."):
            found = found.get(step) if isinstance(found, dict) else None
    if found is None:
        return frozenset()
    if isinstance(found, str):
        found = found.split() if name == "scope" else [found]
    if not isinstance(found, list) or len(found) > MAX_GROUPS:
        raise IdentityRefused(f"token: claim {name} is no list of at most {MAX_GROUPS} groups")
    if not all(isinstance(group, str) and _is_plain(group) for group in found):
        raise IdentityRefused(f"token: claim {name} holds what is no group name")
    return frozenset(found)


def _attributes(claims: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, str]:
    found = {name: claims.get(name) for name in names}
    return MappingProxyType(
        {name: v for name, v in found.items() if isinstance(v, str) and _is_plain(v)}
    )


def _is_plain(text: str) -> bool:
    return 0 < len(text) <= MAX_USER_LENGTH and text.isprintable()


def _shown(found: object) -> str:
    """Return text of a peer, fit for a log."""
    text = ascii(found) if isinstance(found, str) else f"a {type(found).__name__}"
    return text if len(text) <= 100 else text[:97] + "..."
