"""What was signed, and nothing else: so that nobody goes on with unsigned data by mistake.

A signature is silent about every element it does not list, and about everything that was added
since. Who verifies a file and then reads it uses all of it. Here the elements that a good
signature covers come out, and the others do not.

Between looking and using, a file may change. So it is copied first, into a file without a name
that no other process can open; the copy is verified, and the elements are cut out of the copy, at
the very places the digests ran over. The file itself is never looked at again.

Only signatures of the main data set count: what a signature in an item covers lies in a sequence
that nobody vouches for, unless a signature of the main data set does. Memory: the covered elements.
"""

from __future__ import annotations

import io
import shutil
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID

from dicom_secure_node.elements.explicit import Element, Reader
from dicom_secure_node.elements.part10 import TRANSFER_SYNTAX, read_header
from dicom_secure_node.elements.syntax import EXPLICIT_VR_LITTLE_ENDIAN
from dicom_secure_node.elements.walk import ITEM, ITEM_DELIMITER, SEQUENCE_DELIMITER, UNDEFINED
from dicom_secure_node.errors import ConfigurationError, InvalidInput, SignatureRejected
from dicom_secure_node.signatures.mac import may_be_listed
from dicom_secure_node.signatures.policy import SignaturePolicy
from dicom_secure_node.signatures.report import InstanceReport
from dicom_secure_node.signatures.source import Source, open_data_set
from dicom_secure_node.signatures.verify import Verifier

_ITEM = struct.pack("<HHL", ITEM >> 16, ITEM & 0xFFFF, UNDEFINED)
_ITEM_END = struct.pack("<HHL", ITEM_DELIMITER >> 16, ITEM_DELIMITER & 0xFFFF, 0)
_SEQUENCE_END = struct.pack("<HHL", SEQUENCE_DELIMITER >> 16, SEQUENCE_DELIMITER & 0xFFFF, 0)


@dataclass(frozen=True)
class SignedContent:
    """What the good signatures of one instance cover.

    Attributes
    ----------
    report : InstanceReport
        On all its signatures.
    covered : tuple of int
        Tags of the main data set that are in `dataset`, ascending.
    left_out : tuple of int
        Tags of those that are there and not covered: anybody may have put them there.
    transfer_syntax : str
        UID, for who decodes pixel data. It comes from the file's header, which no signature
        covers.
    """

    report: InstanceReport
    covered: tuple[int, ...]
    left_out: tuple[int, ...]
    transfer_syntax: str
    _encoded: bytes = field(default=b"", repr=False)

    def dataset(self) -> Dataset:
        """Return the covered elements, as a data set of the caller's own.

        A covered sequence is whole but for what is never signed: signatures and group lengths in
        its items. Where (0008,0005) Specific Character Set is not covered it is not there, and
        text beyond ASCII is not what was written. Nor is it covered where one fragment of
        compressed pixel data ends and the next one begins.
        """
        found: Dataset = read_dataset(
            io.BytesIO(self._encoded), is_implicit_VR=False, is_little_endian=True
        )
        found.file_meta = FileMetaDataset()
        found.file_meta.TransferSyntaxUID = UID(self.transfer_syntax)
        return found


def signed_content(path: Path, verifier: Verifier, policy: SignaturePolicy) -> SignedContent:
    """Return what was signed in a Part 10 file, if its signatures satisfy a policy.

    Parameters
    ----------
    path : Path
    verifier : Verifier
        Says which signatures are valid.
    policy : SignaturePolicy
        The instance has to satisfy it, and only what a signature covers that satisfies it by
        itself comes out. With `verify-if-present` an instance without signatures is empty.

    Raises
    ------
    SignatureRejected
        It does not satisfy the policy, or is no DICOM file: the text says why.
    ConfigurationError
        The policy is to look at no signature.
    OSError
        The file cannot be read.
    """
    if not policy.looks:
        raise ConfigurationError(f"found policy {str(policy)!r}, wanted one that looks")
    with tempfile.TemporaryFile() as copy:
        with path.open("rb") as file:
            shutil.copyfileobj(file, copy, 1 << 20)
        copy.flush()
        copy.seek(0)
        try:
            header = read_header(copy)
            with open_data_set(copy, header.text(TRANSFER_SYNTAX), header) as source:
                return _covered(source, verifier.verify_source(source), policy)
        except InvalidInput as exc:
            raise SignatureRejected(str(exc)) from exc


def _covered(source: Source, report: InstanceReport, policy: SignaturePolicy) -> SignedContent:
    reasons = policy.failures(report)
    if reasons:
        raise SignatureRejected("; ".join(reasons))
    tags = {
        tag
        for one in report.signatures
        # The policy asks of one signature what it asks of an instance that has no other.
        if one.valid
        and not one.location
        and not policy.failures(replace(report, signatures=(one,)))
        for tag in one.coverage.signed
    }
    elements = [element for element in source.elements if element.tag in tags]
    encoded = b"".join(_encoded(source.reader, elements, 0))
    left_out = {e.tag for e in source.elements if may_be_listed(e.tag)} - tags
    syntax = EXPLICIT_VR_LITTLE_ENDIAN if source.converted else source.transfer_syntax
    return SignedContent(report, tuple(sorted(tags)), tuple(sorted(left_out)), syntax, encoded)


def _encoded(reader: Reader, elements: list[Element], depth: int) -> Iterator[bytes | memoryview]:
    """Yield covered elements again, in Explicit VR Little Endian."""
    view = memoryview(reader.buffer)
    for element in elements:
        if not may_be_listed(element.tag):
            continue  # in an item; no signature covers it
        if element.vr != b"SQ":
            yield view[element.start : element.end]
            continue
        # Lengths are not covered, and would be wrong now.
        yield view[element.start : element.start + 6]
        yield b"\0\0\xff\xff\xff\xff"
        for item in reader.items(element, depth + 1):
            yield _ITEM
            yield from _encoded(reader, item.elements, depth + 1)
            yield _ITEM_END
        yield _SEQUENCE_END
