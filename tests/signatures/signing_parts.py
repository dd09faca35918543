"""A signer with an authority of its own, and instances signed by it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydicom.data import get_testdata_file

from dicom_secure_node.pki.paths import PathValidator
from dicom_secure_node.pki.signers import Signer, load_signer
from dicom_secure_node.pki.trust import load_trust
from dicom_secure_node.signatures.sign import Made, Order, sign_file
from dicom_secure_node.signatures.verify import Verifier
from tests.certs import Ca, Leaf

CT = Path(str(get_testdata_file("CT_small.dcm")))


@dataclass
class Site:
    """An authority, a signer it certified, and a verifier that trusts it.

    Parameters
    ----------
    folder : Path
        For its files.
    name : str
        Of authority and signer.
    """

    folder: Path
    name: str = "device"
    authority: Ca = field(init=False)
    leaf: Leaf = field(init=False)
    anchor: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.authority = Ca(f"{self.name} CA")
        self.leaf = self.authority.write(self.folder, self.name, key="rsa", usage="none")
        self.anchor = self.authority.anchor(self.folder / f"{self.name}-ca.crt")

    @property
    def signer(self) -> Signer:
        """The signer."""
        return load_signer(self.leaf.key, self.leaf.crt)

    @property
    def verifier(self) -> Verifier:
        """Trusts the authority, and nobody else."""
        return Verifier(PathValidator(load_trust([self.anchor])))

    def sign(self, source: Path, target: Path, order: Order | None = None) -> Made:
        """Sign a file."""
        with target.open("wb") as out:
            return sign_file(source, out, self.signer, order)


def tamper(path: Path, old: bytes, new: bytes) -> Path:
    """Return a copy of a file with some bytes exchanged."""
    content = path.read_bytes()
    assert content.count(old) == 1, f"{old!r} is {content.count(old)} times in {path}"
    copy = path.with_name(f"tampered-{path.name}")
    copy.write_bytes(content.replace(old, new))
    return copy
