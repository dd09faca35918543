"""Instances that carry a Creator RSA signature (PS3.15 C.2), each its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.instances import Load
from dicom_secure_node.pki.signers import Signer, load_signer
from dicom_secure_node.signatures.sign import sign_file
from tests.certs import Ca

SIGNATURES = """
[signatures]
on_store = ["require-creator"]
trust = ["signers/ca.crt"]
"""


@dataclass(frozen=True)
class SignedLoad(Load):
    """A load whose files are signed by RSA 2048 with SHA-256."""

    signer: Signer

    def write(self, folder: Path) -> list[Path]:
        """Write `count` signed files that nobody has seen before."""
        paths = super().write(folder)
        for path in paths:
            unsigned = path.rename(path.with_suffix(".unsigned"))
            with path.open("wb") as out:
                sign_file(unsigned, out, self.signer)
            unsigned.unlink()
        return paths


@dataclass(frozen=True)
class Signers:
    """An authority below the home of a node, and a signer of it."""

    home: Path

    @cached_property
    def signer(self) -> Signer:
        """The signer; made when first asked for."""
        folder = self.home / "signers"
        folder.mkdir(parents=True)
        authority = Ca("Benchmark signers")
        authority.anchor(folder / "ca.crt")
        leaf = authority.write(folder, "signer", key="rsa", usage="none")
        return load_signer(leaf.key, leaf.crt)

    def signed(self, load: Load) -> SignedLoad:
        """Return a load with its files signed."""
        return SignedLoad(
            f"{load.name}, signed", load.count, load.template, load.by_size, self.signer
        )
