"""Tokens of SoftHSM, a real PKCS#11 library without the hardware.

The library reads its configuration once a process, so all tokens of a process are in one folder,
made with the first and removed at exit::

    token = softhsm.token("lab")                       # PIN: softhsm.PIN
    public = token.generate("signing", b"\\x01")        # made in the token, not extractable
    token.put_certificate(certificate, "signing", b"\\x01")
    signer = load_signer(token.uri("signing"), None, lambda: token.pin.encode())
    with token.away(): ...                             # pulled out, and put back
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pkcs11
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from pkcs11 import Attribute, KeyType
from pkcs11.util.ec import encode_ec_public_key, encode_named_curve_parameters

from tests import parts

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "planted-4711"


@dataclass(frozen=True)
class Token:
    """One initialised token; `folder` is where SoftHSM keeps it."""

    label: str
    pin: str
    folder: Path

    def uri(self, label: str | None = None, key_id: bytes | None = None, query: str = "") -> str:
        """Return the ``pkcs11:`` URI of a key; `query` is added at its end."""
        named = [f"token={quote(self.label)}"]
        if label is not None:
            named.append(f"object={quote(label)}")
        if key_id is not None:
            named.append("id=" + "".join(f"%{octet:02x}" for octet in key_id))
        return f"pkcs11:{';'.join(named)}?module-path={MODULE}{query}"

    @contextmanager
    def session(self) -> Iterator[Any]:
        """Log in, to change what is in the token."""
        opened = pkcs11.lib(str(MODULE)).get_token(token_label=self.label)
        with opened.open(user_pin=self.pin, rw=True) as session:
            yield session

    def generate(
        self, label: str, key_id: bytes, bits: int = 2048, **private: Any
    ) -> rsa.RSAPublicKey:
        """Make an RSA key pair in the token; `private` are attributes such as ``SIGN=False``."""
        template = {Attribute[name]: value for name, value in private.items()}
        with self.session() as session:
            public, _ = session.generate_keypair(
                KeyType.RSA, bits, id=key_id, label=label, store=True, private_template=template
            )
            numbers = [
                int.from_bytes(public[name], "big")
                for name in (Attribute.PUBLIC_EXPONENT, Attribute.MODULUS)
            ]
        return rsa.RSAPublicNumbers(*numbers).public_key()

    def generate_ec(self, label: str, key_id: bytes) -> ec.EllipticCurvePublicKey:
        """Make a P-256 key pair in the token."""
        with self.session() as session:
            curve = {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
            parameters = session.create_domain_parameters(KeyType.EC, curve, local=True)
            public, _ = parameters.generate_keypair(id=key_id, label=label, store=True)
            found = load_der_public_key(encode_ec_public_key(public))
        assert isinstance(found, ec.EllipticCurvePublicKey)
        return found

    def put_certificate(self, certificate: x509.Certificate, label: str, key_id: bytes) -> None:
        """Store a certificate object."""
        with self.session() as session:
            session.create_object(
                {
                    Attribute.CLASS: pkcs11.ObjectClass.CERTIFICATE,
                    Attribute.CERTIFICATE_TYPE: pkcs11.CertificateType.X_509,
                    Attribute.TOKEN: True,
                    Attribute.LABEL: label,
                    Attribute.ID: key_id,
                    Attribute.SUBJECT: certificate.subject.public_bytes(),
                    Attribute.VALUE: certificate.public_bytes(Encoding.DER),
                }
            )

    @contextmanager
    def away(self) -> Iterator[None]:
        """Pull the token out; at the end it is back, and the library has noticed."""
        elsewhere = self.folder.parent.parent / self.folder.name
        self.folder.rename(elsewhere)
        try:
            yield
        finally:
            elsewhere.rename(self.folder)
            lose_sessions()


def token(label: str, pin: str = PIN) -> Token:
    """Return a new token."""
    folder = _tokens()
    before = set(folder.iterdir())
    words = ["--init-token", "--free", "--label", label, "--so-pin", "00000000", "--pin", pin]
    parts.run(["softhsm2-util", *words], check=True)
    (made,) = set(folder.iterdir()) - before
    lose_sessions()  # else a library that is loaded does not see it
    return Token(label, pin, made)


def lose_sessions() -> None:
    """Start the library again: every session of this process ends, as with a reader's restart."""
    pkcs11.lib(str(MODULE)).reinitialize()


@cache
def _tokens() -> Path:
    home = Path(tempfile.mkdtemp(prefix="softhsm-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    folder = home / "tokens"
    folder.mkdir()
    configuration = home / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {folder}\nobjectstore.backend = file\n")
    os.environ["SOFTHSM2_CONF"] = str(configuration)
    return folder
