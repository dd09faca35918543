"""Sign and verify files, in one call each."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from dicom_secure_node.durable.files import replacing
from dicom_secure_node.pki.paths import PathValidator
from dicom_secure_node.pki.signers import Signer
from dicom_secure_node.pki.trust import load_trust
from dicom_secure_node.signatures.references import Find, sign_document
from dicom_secure_node.signatures.report import InstanceReport
from dicom_secure_node.signatures.sign import Made, Order, sign_file
from dicom_secure_node.signatures.verify import Verifier

PathLike = str | os.PathLike[str]


def sign(
    source: PathLike,
    target: PathLike,
    signer: Signer,
    order: Order | None = None,
    evidence: Find | None = None,
) -> Made:
    """Write a signed copy of the Part 10 file `source` to `target`, whole or not at all.

    Parameters
    ----------
    source, target : path
        What stands at `target` is replaced. It gets the permissions of `source`.
    signer : Signer
        From `load_signer`. Threads may share one.
    order : Order, optional
        What kind of signature; PS3.15 C.2, Creator, with SHA-256 where left out.
    evidence : callable, optional
        Finds the instances an SR document or Key Object Selection refers to (`found_in`): a MAC of
        each is put beside the reference before the document is signed (PS3.15 A.4). The profile
        has to be one of C.4.

    Raises
    ------
    InvalidDataSet
        `source` is no DICOM file, or the profile cannot be met: the text says what is missing.
    ConfigurationError
        The order makes no sense, or the certificate is not valid at this time.
    ServiceUnavailable
        Token or timestamp authority are away.
    OSError
    """
    path = Path(source)
    mode = stat.S_IMODE(path.stat().st_mode) & 0o777
    with replacing(Path(target), mode) as file:
        if evidence is not None:
            return sign_document(path, file, signer, order or Order(), evidence)
        return sign_file(path, file, signer, order)


def verify(
    path: PathLike, trust: Sequence[PathLike], crls: Sequence[PathLike] = ()
) -> InstanceReport:
    """Return the report on the signatures of a Part 10 file.

    For many files, make one `Verifier` and call its `verify_file`: it remembers whom it trusts.

    Parameters
    ----------
    path : path
    trust : sequence of path
        Certificates of the authorities whose signers are believed, PEM or DER.
    crls : sequence of path
        Their revocation lists. With one, every signer has to be covered by a current list.

    Returns
    -------
    InstanceReport
        It answers, and decides nothing: whether that is good enough is for a `SignaturePolicy`.
        What is no DICOM file is a report, too.

    Raises
    ------
    ConfigurationError, InvalidCertificate
        `trust` or `crls` cannot be used.
    """
    store = load_trust([Path(file) for file in trust], [Path(file) for file in crls])
    return Verifier(PathValidator(store)).verify_file(Path(path))
