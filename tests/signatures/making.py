"""Made-up instances, signers and signatures, byte by byte where a test wants them wrong.

Keys and certificates are made once in a process. Everything is Explicit VR Little Endian unless
it says otherwise.
"""

from __future__ import annotations

import hashlib
import io
import struct
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import pydicom.data
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from dicom_secure_node.elements.walk import SHORT_VRS
from dicom_secure_node.pki.credential import Credential
from dicom_secure_node.pki.paths import PathValidator
from dicom_secure_node.pki.signers import FileSigner
from dicom_secure_node.pki.trust import TrustStore
from dicom_secure_node.signatures.profiles import BASE
from dicom_secure_node.signatures.report import InstanceReport, SignatureReport
from dicom_secure_node.signatures.sign import Order, sign_file
from dicom_secure_node.signatures.verify import Verifier
from dicom_secure_node.spec.signatures import MAC_ALGORITHMS
from tests.certs import Ca, KeyKind, make_key

FILES = Path(pydicom.data.__file__).parent / "test_files"
EXPLICIT = "1.2.840.10008.1.2.1"
UNDEFINED = 0xFFFFFFFF
ITEM_END = struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
SEQUENCE_END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


# -- who signs -----------------------------------------------------------------------------


@lru_cache(maxsize=1)
def authority() -> Ca:
    """Return the only authority a `verifier` trusts."""
    return Ca("Signers of the tests")


@lru_cache(maxsize=16)
def credential(name: str = "ada", kind: KeyKind = "rsa") -> Credential:
    """Return the credential of one signer."""
    key = make_key(kind, name)
    assert isinstance(key, rsa.RSAPrivateKey)
    return Credential(authority().certify(name, key, usage="none", hosts=()), (), key)


@lru_cache(maxsize=16)
def signer(name: str = "ada", kind: KeyKind = "rsa") -> FileSigner:
    """Return a signer; the same name is the same key."""
    return FileSigner(credential(name, kind))


@lru_cache(maxsize=1)
def verifier() -> Verifier:
    """Return a verifier that trusts `authority`."""
    return Verifier(PathValidator(TrustStore((authority().certificate,))))


# -- data sets -----------------------------------------------------------------------------


def element(tag: int, vr: str, value: bytes = b"", length: int | None = None) -> bytes:
    """Return an element as it is told, wrong ones too; `length` says another one than it has."""
    size = len(value) if length is None else length
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    if vr.encode() in SHORT_VRS:
        return head + struct.pack("<H", size) + value
    return head + struct.pack("<HL", 0, size) + value


def item(*elements: bytes, undefined: bool = False) -> bytes:
    """Return an item."""
    content = b"".join(elements)
    if undefined:
        return struct.pack("<HHL", 0xFFFE, 0xE000, UNDEFINED) + content + ITEM_END
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content


def sequence(tag: int, *items: bytes, undefined: bool = False) -> bytes:
    """Return a sequence of encoded items."""
    content = b"".join(items)
    if undefined:
        return element(tag, "SQ", length=UNDEFINED) + content + SEQUENCE_END
    return element(tag, "SQ", content)


def encapsulated(*fragments: bytes, vr: str = "OB") -> bytes:
    """Return Pixel Data of fragments, the first of which is the offset table."""
    content = b"".join(map(item, fragments))
    return element(0x7FE00010, vr, length=UNDEFINED) + content + SEQUENCE_END


def meta(syntax: str = EXPLICIT) -> bytes:
    """Return preamble, prefix and the least File Meta Information."""
    uid = element(0x00020010, "UI", syntax.encode() + b"\0" * (len(syntax) % 2))
    return bytes(128) + b"DICM" + element(0x00020000, "UL", struct.pack("<L", len(uid))) + uid


SOP_CLASS = element(0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.7\0")
SOP_INSTANCE = element(0x00080018, "UI", b"1.2.3.4\0")
NAME = element(0x00100010, "PN", b"A^B ")
PATIENT_ID = element(0x00100020, "LO", b"A1")
STUDY = element(0x0020000D, "UI", b"1.2.3.5\0")
SERIES = element(0x0020000E, "UI", b"1.2.3.6\0")


def code(value: str, meaning: str = "Some") -> bytes:
    """Return an item of the Code Sequence Macro."""
    text = meaning.encode() + b" " * (len(meaning) % 2)
    return item(element(0x00080100, "SH", value.encode()), element(0x00080104, "LO", text))


CODES = sequence(0x00082218, code("A1"), code("B2", "Other"))
PIXELS = element(0x7FE00010, "OW", bytes(range(32)))
ALL = (SOP_CLASS, SOP_INSTANCE, CODES, NAME, PATIENT_ID, STUDY, SERIES, PIXELS)


# -- signatures ----------------------------------------------------------------------------


def signed(
    data: bytes,
    order: Order | None = None,
    *,
    by: FileSigner | None = None,
    syntax: str = EXPLICIT,
    moment: datetime | None = None,
) -> bytes:
    """Return a data set signed by our own signer, without its header; C.1 where not told."""
    with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
        file.write(meta(syntax) + data)
        file.flush()
        return body(signed_file(Path(file.name), order, by=by, moment=moment))


def signed_file(
    path: Path,
    order: Order | None = None,
    *,
    by: FileSigner | None = None,
    moment: datetime | None = None,
) -> bytes:
    """Return a file signed by our own signer; C.1 where not told."""
    out = io.BytesIO()
    at = moment or datetime.now(UTC)
    sign_file(path, out, by or signer(), order or Order(BASE), clock=lambda: at)
    return out.getvalue()


def body(file: bytes) -> bytes:
    """Return the data set of a file made with `meta`."""
    length = int.from_bytes(file[140:144], "little")
    return file[144 + length :]


def report_of(data: bytes, syntax: str = EXPLICIT) -> InstanceReport:
    """Return what our verifier says of a data set."""
    return verifier().verify_data_set(io.BytesIO(data), syntax)


def only(report: InstanceReport) -> SignatureReport:
    """Return the only signature of a report."""
    assert not report.problem
    (one,) = report.signatures
    return one


def assert_valid(data: bytes, syntax: str = EXPLICIT) -> SignatureReport:
    """Return the report on the only signature, which is valid."""
    one = only(report_of(data, syntax))
    assert one.valid, one.reasons
    return one


def refused(report: InstanceReport) -> str:
    """Return why not one signature of an instance is valid; fail where one is."""
    assert not any(one.valid for one in report.signatures)
    why = [report.problem, *(why for one in report.signatures for why in one.reasons)]
    assert any(why), "no signature was found"
    return "; ".join(filter(None, why))


def mac_item(
    tags: Iterable[int],
    *,
    mac_id: int = 0,
    algorithm: str = "SHA256",
    syntax: str = EXPLICIT,
) -> bytes:
    """Return an item of MAC Parameters Sequence."""
    listed = b"".join(struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in tags)
    return item(
        element(0x04000005, "US", struct.pack("<H", mac_id)),
        element(0x04000010, "UI", syntax.encode() + b"\0" * (len(syntax) % 2)),
        element(0x04000015, "CS", algorithm.encode() + b" " * (len(algorithm) % 2)),
        element(0x04000020, "AT", listed),
    )


def signature_head(mac_id: int = 0, made: bytes | None = None) -> bytes:
    """Return what stands in a signature's item before the certificate."""
    when = datetime.now(UTC).strftime("%Y%m%d%H%M%S.000000+0000").encode() if made is None else made
    return (
        element(0x04000005, "US", struct.pack("<H", mac_id))
        + element(0x04000100, "UI", b"1.2.3.9\0")
        + element(0x04000105, "DT", when)
        + element(0x04000110, "CS", b"X509_1993_SIG ")
    )


def even(value: bytes) -> bytes:
    """Return a binary value with its pad byte."""
    return value + b"\0" * (len(value) % 2)


def der(certificate: x509.Certificate) -> bytes:
    """Return a certificate as the macro has it."""
    return even(certificate.public_bytes(Encoding.DER))


def digest_info(stream: bytes, algorithm: str = "SHA256") -> bytes:
    """Return what a signature of a stream encrypts."""
    row = MAC_ALGORITHMS[algorithm]
    return row.digest_info + hashlib.new(row.hashlib, stream, usedforsecurity=False).digest()
