"""Signatures nobody should believe: made byte by byte, with keys and certificates to match."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.certs import make_key
from tests.signatures.making import (
    NAME,
    PATIENT_ID,
    SOP_CLASS,
    SOP_INSTANCE,
    authority,
    credential,
    der,
    digest_info,
    element,
    even,
    item,
    mac_item,
    sequence,
    signature_head,
)

COVERED = SOP_CLASS + SOP_INSTANCE + NAME + PATIENT_ID
TAGS = (0x00080016, 0x00080018, 0x00100010, 0x00100020)

# How a DigestInfo becomes a signature value.
Sign = Callable[[bytes], bytes]


def by_ada(info: bytes) -> bytes:
    """Sign as the standard says, with the key of `making.signer`."""
    return signed_with(credential().key, info)


def signed_with(key: object, info: bytes) -> bytes:
    assert isinstance(key, rsa.RSAPrivateKey)
    return key.sign(info, padding.PKCS1v15(), utils.NoDigestInfo())


def instance(
    *,
    sign: Sign = by_ada,
    certificate: bytes | None = None,
    mac_items: Sequence[bytes] | None = None,
    head: bytes | None = None,
    tail: bytes = b"",
    algorithm: str = "SHA256",
    covered: bytes = COVERED,
    more: bytes = b"",
) -> bytes:
    """Return a signed data set of which any part can be told to be wrong."""
    top = signature_head() if head is None else head
    value = sign(digest_info(covered + top, algorithm))
    macs = [mac_item(TAGS, algorithm=algorithm)] if mac_items is None else mac_items
    signature = item(
        top,
        element(0x04000115, "OB", der(credential().certificate) if certificate is None
                else even(certificate)),
        element(0x04000120, "OB", value),
        tail,
    )  # fmt: skip
    return covered + sequence(0x4FFE0001, *macs) + more + sequence(0xFFFAFFFA, signature)


# -- DER -----------------------------------------------------------------------------------


def tlv(tag: int, content: bytes) -> bytes:
    """Return one DER value."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content


def integer(value: int) -> bytes:
    return tlv(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def content_of(value: bytes) -> bytes:
    """Return what is inside a DER value."""
    return value[2:] if value[1] < 0x80 else value[2 + (value[1] & 0x7F) :]


def with_key(modulus: int, exponent: int) -> bytes:
    """Return ada's certificate with another RSA key; its own signature is wrong then."""
    algorithm = bytes.fromhex("300d06092a864886f70d0101010500")
    key = tlv(0x30, integer(modulus) + integer(exponent))
    return with_key_info(tlv(0x30, algorithm + tlv(3, b"\0" + key)))


def with_key_info(info: bytes) -> bytes:
    """Return ada's certificate with another SubjectPublicKeyInfo."""
    certificate = credential().certificate
    old = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return with_body(content_of(certificate.tbs_certificate_bytes).replace(old, info))


def with_body(body: bytes) -> bytes:
    """Return ada's certificate with another content."""
    whole = credential().certificate.public_bytes(Encoding.DER)
    old = credential().certificate.tbs_certificate_bytes
    return tlv(0x30, content_of(whole).replace(old, tlv(0x30, body)))


def own_body() -> bytes:
    return content_of(credential().certificate.tbs_certificate_bytes)


# -- keys ----------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def cubic_key() -> rsa.RSAPrivateKey:
    """Return a key with exponent 3, whose signatures are easy to forge where padding is lax."""
    return rsa.generate_private_key(3, 2048)


@lru_cache(maxsize=1)
def cubic_certificate() -> x509.Certificate:
    return authority().certify("cubic", cubic_key(), usage="none", hosts=())


def cube_root(value: int) -> int:
    """Return the least number whose cube is `value` or more."""
    low, high = 0, 1 << (value.bit_length() // 3 + 1)
    while low < high:
        middle = (low + high) // 2
        if middle**3 < value:
            low = middle + 1
        else:
            high = middle
    return low


def bleichenbacher(info: bytes) -> bytes:
    """Return a "signature" made without the key: the garbage stands after the DigestInfo."""
    head = b"\0\1" + b"\xff" * 8 + b"\0" + info
    return _rooted(head)


def garbage_in_parameters(info: bytes) -> bytes:
    """Return the same with the garbage inside the algorithm's parameters, as some parsers skip."""
    algorithm, digest = info[2:21], info[21:]
    size = 256 - 11 - 4 - 4 - len(algorithm) - len(digest) - 4
    oid = algorithm[2:-2]
    inner = oid + bytes([0x04, 0x82]) + size.to_bytes(2, "big")
    sequence_of = bytes([0x30, 0x82]) + (len(inner) + size).to_bytes(2, "big") + inner
    whole = bytes([0x30, 0x82]) + (len(sequence_of) + size + len(digest)).to_bytes(2, "big")
    return _rooted(b"\0\1" + b"\xff" * 8 + b"\0" + whole + sequence_of)


def _rooted(head: bytes) -> bytes:
    rest = 256 - len(head)
    root = cube_root(int.from_bytes(head + bytes(rest), "big"))
    forged = (root**3).to_bytes(256, "big")
    assert forged[: len(head)] == head  # the forgery is one
    return root.to_bytes(256, "big")


def encrypted(block: bytes) -> bytes:
    """Return a block put through ada's private key as it is, whatever its padding."""
    numbers = credential().key.private_numbers()  # type: ignore[union-attr]
    value = pow(int.from_bytes(block, "big"), numbers.d, numbers.public_numbers.n)
    return value.to_bytes(256, "big")


def padded(info: bytes, *, kind: int = 1, fill: bytes = b"\xff", tail: bytes = b"") -> bytes:
    """Return an encryption block (RFC 8017 9.2), possibly a wrong one."""
    size = 256 - 3 - len(info) - len(tail)
    return b"\0" + bytes([kind]) + fill * size + b"\0" + info + tail


def make_ec_certificate() -> bytes:
    return der(authority().certify("ec", make_key("ec"), usage="none", hosts=()))
