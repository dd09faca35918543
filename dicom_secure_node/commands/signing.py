"""What ``sign`` and ``send --sign-key`` share: the key, and which signature a file gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dicom_secure_node.errors import ConfigurationError, InvalidCertificate
from dicom_secure_node.pki.files import passphrase_source
from dicom_secure_node.pki.signers import Signer, load_signer
from dicom_secure_node.pki.token_uri import is_token_uri
from dicom_secure_node.signatures.facts import instance_facts
from dicom_secure_node.signatures.profiles import PROFILES, SR, SR_VERIFICATION
from dicom_secure_node.signatures.sign import Authority, Order
from dicom_secure_node.signatures.source import open_file
from dicom_secure_node.spec.signatures import ASTM_SIGPURPOSE, VERIFICATION, Purpose

# Nobody has to ask for the variety of C.4 that goes with a verified document.
SIGNING_PROFILES = tuple(name for name in PROFILES if name != SR_VERIFICATION.name)

_AUTHOR = Purpose("1", ASTM_SIGPURPOSE)


@dataclass(frozen=True)
class SigningKey:
    """Where a key is; the key itself is not held.

    Attributes
    ----------
    key : str
        PEM, DER or PKCS#12 file, or ``pkcs11:`` URI.
    certificate, passphrase_file : Path or None
    """

    key: str
    certificate: Path | None = None
    passphrase_file: Path | None = None

    @property
    def in_token(self) -> bool:
        """Whether it stays in a PKCS#11 token."""
        return is_token_uri(self.key)

    def load(self, ask: Callable[[], bytes]) -> Signer:
        """Return the signer; `ask` gives the passphrase where no file has it.

        Raises
        ------
        ConfigurationError
            Key or certificate cannot be used.
        ServiceUnavailable
            The token is not there.
        """
        passphrase = passphrase_source(self.passphrase_file, ask)
        try:
            return load_signer(self.key, self.certificate, passphrase)
        except InvalidCertificate as exc:
            raise ConfigurationError(str(exc)) from exc  # an option is wrong, no file to sign


@dataclass(frozen=True)
class Wish:
    """Which signature is wanted; for C.4 the document decides on the rest. See `Order`."""

    profile: str
    algorithm: str = "SHA256"
    purpose: Purpose | None = None
    extra: tuple[int, ...] = ()
    without: tuple[int, ...] = ()
    location: str = ""

    def order(self, path: Path, authority: Authority | None = None) -> Order:
        """Return the order for one file.

        Raises
        ------
        InvalidDataSet, OSError
            C.4 is wanted, and the file cannot be read.
        """
        profile, purpose = PROFILES[self.profile], self.purpose
        if profile is SR:
            verified = _is_verified(path)
            purpose = purpose or (VERIFICATION if verified else _AUTHOR)
            # A verified document needs one signature that verifies it, and may have others.
            profile = SR_VERIFICATION if verified and purpose == VERIFICATION else SR
        return Order(
            profile, self.algorithm, purpose, self.extra, self.without, self.location, authority
        )


def _is_verified(path: Path) -> bool:
    with open_file(path) as source:
        facts = instance_facts(source.reader, source.elements, source.transfer_syntax)
    return facts.verification_flag == "VERIFIED"
