"""Instances nobody should send: for each a report that says what is wrong, and nothing else."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dicom_secure_node.signatures.verify import Verifier
from dicom_secure_node.spec.signatures import MAC_ALGORITHMS
from tests.signatures.forging import (
    COVERED,
    TAGS,
    bleichenbacher,
    by_ada,
    cubic_certificate,
    cubic_key,
    encrypted,
    garbage_in_parameters,
    instance,
    make_ec_certificate,
    own_body,
    padded,
    signed_with,
    tlv,
    with_body,
    with_key,
    with_key_info,
)
from tests.signatures.making import (
    ALL,
    EXPLICIT,
    ITEM_END,
    PATIENT_ID,
    SEQUENCE_END,
    UNDEFINED,
    credential,
    der,
    element,
    item,
    mac_item,
    meta,
    refused,
    report_of,
    sequence,
    signature_head,
    signed,
    verifier,
)

NOT_BY_KEY = "not made with the key"
PLAIN = b"".join(ALL)


def test_the_instance_the_others_are_made_of_is_valid() -> None:
    (one,) = report_of(instance()).signatures
    assert one.valid, one.reasons
    (one,) = report_of(cubic()).signatures
    assert one.valid, one.reasons


def cubic(sign: Callable[[bytes], bytes] | None = None) -> bytes:
    sign = sign or (lambda info: signed_with(cubic_key(), info))
    return instance(sign=sign, certificate=der(cubic_certificate()))


def with_signature_item(*elements: bytes) -> bytes:
    return COVERED + sequence(0x4FFE0001, mac_item(TAGS)) + sequence(0xFFFAFFFA, item(*elements))


def without_null(info: bytes) -> bytes:
    """Return a DigestInfo whose algorithm has no parameters."""
    return bytes([0x30, info[1] - 2, 0x30, info[3] - 2]) + info[4:17] + info[19:]


def ed25519_key() -> bytes:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def dsa_key() -> bytes:
    """Return a DSA key that is none, mathematically; it has the form of one."""
    numbers = dsa.DSAParameterNumbers(p=(1 << 1023) + 1155, q=(1 << 159) + 75, g=2)
    key = tlv(2, b"\5")
    parameters = b"".join(
        tlv(2, n.to_bytes(n.bit_length() // 8 + 1, "big")) for n in (numbers.p, numbers.q, 2)
    )
    oid = bytes.fromhex("06072a8648ce380401")
    return tlv(0x30, tlv(0x30, oid + tlv(0x30, parameters)) + tlv(3, b"\0" + key))


MODULUS = credential().certificate.public_key().public_numbers().n  # type: ignore[union-attr]
HEAD = signature_head()
CERTIFICATE = element(0x04000115, "OB", der(credential().certificate))
VALUE = element(0x04000120, "OB", bytes(256))

CERTIFICATES: dict[str, tuple[Callable[[], bytes], str]] = {
    "no certificate at all": (lambda: b"hello, I am ada", "bytes that are no certificate"),
    "nothing but a SEQUENCE": (lambda: b"\x30\x00", "bytes that are no certificate"),
    "a SEQUENCE of absurd length": (lambda: b"\x30\xff" + bytes(300), "are no certificate"),
    "garbage behind it": (lambda: der(credential().certificate) + b"12", "are no certificate"),
    "two pad bytes": (lambda: der(credential().certificate) + b"\0\0", "are no certificate"),
    "a megabyte": (lambda: bytes(1 << 20), "found 1048576 bytes, wanted 1 to 65536"),
    "a version of the future": (
        lambda: with_body(own_body().replace(b"\xa0\3\2\1\2", b"\xa0\3\2\1\5", 1)),
        "are no certificate",
    ),
    "an EC key": (make_ec_certificate, "a key of kind"),
    "an Ed25519 key": (lambda: with_key_info(ed25519_key()), "a key of kind Ed25519"),
    "a DSA key": (lambda: with_key_info(dsa_key()), "key"),
    "a key of unknown kind": (
        lambda: with_key_info(tlv(0x30, tlv(0x30, b"\6\3\x2a\3\4") + tlv(3, b"\0\1"))),
        "a key of unknown kind",
    ),
    "an RSA key of 512 bits": (lambda: with_key((1 << 511) | 0x10001, 65537), "key"),
    "an RSA key of 16384 bits": (
        lambda: with_key((1 << 16383) | 1, 65537),
        "an RSA key of 16384 bits",
    ),
    "the exponent 1": (lambda: with_key(MODULUS, 1), "key"),
    "an even exponent": (lambda: with_key(MODULUS, 65536), "key"),
    "an exponent as long as the modulus": (lambda: with_key(MODULUS, MODULUS - 2), "key"),
    "an even modulus": (lambda: with_key(MODULUS - 1, 65537), NOT_BY_KEY),
    "the modulus 0": (lambda: with_key(0, 65537), "key"),
    "somebody else's": (lambda: der(cubic_certificate()), NOT_BY_KEY),
}


@pytest.mark.parametrize(("make", "words"), CERTIFICATES.values(), ids=CERTIFICATES)
def test_a_certificate_is(make: Callable[[], bytes], words: str) -> None:
    assert words in refused(report_of(instance(certificate=make())))


VALUES: dict[str, tuple[Callable[[], bytes], str]] = {
    "zeros": (lambda: instance(sign=lambda _: bytes(256)), NOT_BY_KEY),
    "one byte short": (lambda: instance(sign=lambda i: by_ada(i)[:-2]), NOT_BY_KEY),
    "two bytes long": (lambda: instance(sign=lambda i: by_ada(i) + b"\0\0"), NOT_BY_KEY),
    "with zeros before it": (lambda: instance(sign=lambda i: b"\0\0" + by_ada(i)), NOT_BY_KEY),
    "empty": (lambda: instance(sign=lambda _: b""), "found 0 bytes, wanted 1 to 1024"),
    "a megabyte": (lambda: instance(sign=lambda _: bytes(1 << 20)), "wanted 1 to 1024"),
    "as large as the modulus": (
        lambda: instance(sign=lambda _: MODULUS.to_bytes(256, "big")),
        NOT_BY_KEY,
    ),
    "the same number plus the modulus": (
        lambda: instance(
            sign=lambda i: (int.from_bytes(by_ada(i), "big") + MODULUS).to_bytes(258, "big")
        ),
        NOT_BY_KEY,
    ),
    "a DigestInfo without NULL": (
        lambda: instance(sign=lambda i: by_ada(without_null(i))),
        NOT_BY_KEY,
    ),
    "a DigestInfo and garbage": (lambda: instance(sign=lambda i: by_ada(i + b"\0")), NOT_BY_KEY),
    "garbage and a DigestInfo": (lambda: instance(sign=lambda i: by_ada(b"\0" + i)), NOT_BY_KEY),
    "a bare digest": (lambda: instance(sign=lambda i: by_ada(i[-32:])), NOT_BY_KEY),
    "nothing padded": (lambda: instance(sign=lambda _: by_ada(b"")), NOT_BY_KEY),
    "a DigestInfo of another algorithm": (
        lambda: instance(sign=lambda i: by_ada(MAC_ALGORITHMS["SHA512_256"].digest_info + i[-32:])),
        NOT_BY_KEY,
    ),
    "a block of type 2": (
        lambda: instance(sign=lambda i: encrypted(padded(i, kind=2, fill=b"\1"))),
        NOT_BY_KEY,
    ),
    "a block padded with something else": (
        lambda: instance(sign=lambda i: encrypted(padded(i, fill=b"\xfe"))),
        NOT_BY_KEY,
    ),
    "a block with garbage at its end": (
        lambda: instance(sign=lambda i: encrypted(padded(i, tail=b"garbage"))),
        NOT_BY_KEY,
    ),
    "Bleichenbacher's forgery of 2006": (lambda: cubic(bleichenbacher), NOT_BY_KEY),
    "the same, hidden in the parameters": (lambda: cubic(garbage_in_parameters), NOT_BY_KEY),
    "of another stream": (
        lambda: instance().replace(PATIENT_ID, element(0x00100020, "LO", b"B2")),
        "signed elements were changed",
    ),
}


@pytest.mark.parametrize(("make", "words"), VALUES.values(), ids=VALUES)
def test_a_signature_value_is(make: Callable[[], bytes], words: str) -> None:
    assert words in refused(report_of(make()))


def mac_of(**values: bytes) -> bytes:
    """Return an instance whose MAC item has other elements, by hexadecimal tag."""
    made = {
        0x04000005: element(0x04000005, "US", b"\0\0"),
        0x04000010: element(0x04000010, "UI", EXPLICIT.encode() + b"\0"),
        0x04000015: element(0x04000015, "CS", b"SHA256"),
        0x04000020: element(0x04000020, "AT", b"\x10\0\x10\0"),
    }
    made |= {int(key[1:], 16): value for key, value in values.items()}
    return instance(mac_items=[item(*made.values())])


TWICE = "an element twice"
MACRO: dict[str, tuple[Callable[[], bytes], str]] = {
    "no MAC parameters": (
        lambda: COVERED + sequence(0xFFFAFFFA, item(HEAD, CERTIFICATE, VALUE)),
        "0 MAC Parameters items for MAC ID 0",
    ),
    "empty MAC parameters": (lambda: instance(mac_items=[]), "0 MAC Parameters items"),
    "another MAC ID": (lambda: instance(mac_items=[mac_item(TAGS, mac_id=7)]), "for MAC ID 0"),
    "the MAC ID twice": (
        lambda: instance(mac_items=[mac_item(TAGS), mac_item(TAGS)]),
        "2 MAC Parameters items for MAC ID 0",
    ),
    "a MAC ID of VR UL": (lambda: mac_of(x04000005=element(0x04000005, "UL", bytes(4))), "0 MAC"),
    "no MAC ID": (lambda: mac_of(x04000005=b""), "0 MAC Parameters items"),
    "MAC parameters of VR OB": (
        lambda: (
            COVERED
            + element(0x4FFE0001, "OB", bytes(8))
            + sequence(0xFFFAFFFA, item(HEAD, CERTIFICATE, VALUE))
        ),
        "found VR OB, wanted SQ",
    ),
    "MAC parameters of VR UN": (
        lambda: (
            COVERED
            + element(0x4FFE0001, "UN", mac_item(TAGS))
            + sequence(0xFFFAFFFA, item(HEAD, CERTIFICATE, VALUE))
        ),
        "found VR UN, wanted SQ",
    ),
    "signatures of VR UN": (
        lambda: COVERED + element(0xFFFAFFFA, "UN", item(HEAD, CERTIFICATE, VALUE)),
        "found VR UN, wanted SQ",
    ),
    "two sequences of MAC parameters": (
        lambda: instance(more=sequence(0x4FFE0001, mac_item(TAGS))),
        TWICE,
    ),
    "two sequences of signatures": (
        lambda: instance() + sequence(0xFFFAFFFA, item(HEAD)),
        TWICE,
    ),
    "an algorithm nobody knows": (
        lambda: mac_of(x04000015=element(0x04000015, "CS", b"SHA257")),
        "MAC Algorithm 'SHA257'",
    ),
    "an algorithm of VR LO": (
        lambda: mac_of(x04000015=element(0x04000015, "LO", b"SHA256")),
        "found VR LO, wanted CS",
    ),
    "two algorithms": (
        lambda: mac_of(x04000015=element(0x04000015, "CS", b"SHA256\\MD5 ")),
        "MAC Algorithm",
    ),
    "an algorithm of strange bytes": (
        lambda: mac_of(x04000015=element(0x04000015, "CS", b"\x1b[2J\xff\xff")),
        "bytes that are no text",
    ),
    "the implicit transfer syntax": (
        lambda: mac_of(x04000010=element(0x04000010, "UI", b"1.2.840.10008.1.2\0")),
        "wanted explicit VR little endian",
    ),
    "the big-endian transfer syntax": (
        lambda: mac_of(x04000010=element(0x04000010, "UI", b"1.2.840.10008.1.2.2\0")),
        "wanted explicit VR little endian",
    ),
    "no transfer syntax": (lambda: mac_of(x04000010=b""), "found nothing, wanted a value"),
    "no list": (lambda: mac_of(x04000020=b""), "found nothing, wanted a value"),
    "an empty list": (lambda: mac_of(x04000020=element(0x04000020, "AT")), "found 0 bytes"),
    "half a tag": (
        lambda: mac_of(x04000020=element(0x04000020, "AT", bytes(6))),
        "found 6 bytes, wanted 4 for each tag",
    ),
    "a list of VR UL": (
        lambda: mac_of(x04000020=element(0x04000020, "UL", bytes(4))),
        "found VR UL, wanted AT",
    ),
    "a list of what is never signed": (
        lambda: mac_of(x04000020=element(0x04000020, "AT", b"\xfa\xff\xfa\xff")),
        "changed",
    ),
    "a signature's item that is empty": (lambda: with_signature_item(), "found nothing"),
    "no certificate": (lambda: with_signature_item(HEAD, VALUE), "found nothing"),
    "no signature value": (lambda: with_signature_item(HEAD, CERTIFICATE), "found nothing"),
    "a certificate of VR UN": (
        lambda: with_signature_item(
            HEAD, element(0x04000115, "UN", der(credential().certificate)), VALUE
        ),
        "found VR UN, wanted OB",
    ),
    "a certificate in fragments": (
        lambda: with_signature_item(
            HEAD,
            element(0x04000115, "OB", length=UNDEFINED) + item() + SEQUENCE_END,
            VALUE,
        ),
        "are no certificate",
    ),
    "a certificate type nobody knows": (
        lambda: with_signature_item(HEAD.replace(b"X509_1993", b"PGP__2000"), CERTIFICATE, VALUE),
        "wanted X509_1993_SIG",
    ),
    "one element of the item twice": (lambda: with_signature_item(HEAD, HEAD), TWICE),
    "an unknown in the signature's item": (
        lambda: with_signature_item(HEAD, CERTIFICATE, VALUE, element(0x04010010, "UN", b"ab")),
        "what cannot be signed",
    ),
    "a megabyte of something in the signature's item": (
        lambda: instance(tail=element(0x04010010, "OB", bytes(1 << 20))),
        "wanted at most 65536",
    ),
    "two purposes": (
        lambda: instance(tail=sequence(0x04000401, item(), item())),
        "found 2 items, wanted one",
    ),
    "a purpose of VR LO": (
        lambda: instance(tail=element(0x04000401, "LO", b"5 ")),
        "found VR LO, wanted SQ",
    ),
    "a moment that is none": (
        lambda: instance(head=signature_head(made=b"20261399999999.000000+0000")),
        "nobody knows when it was made",
    ),
    "a moment in the year 0": (
        lambda: instance(head=signature_head(made=b"00000101000000+0000 ")),
        "nobody knows when it was made",
    ),
    "a moment far in the future": (
        lambda: instance(head=signature_head(made=b"99991231235959.999999-1400")),
        "made",
    ),
}


@pytest.mark.parametrize(("make", "words"), MACRO.values(), ids=MACRO)
def test_the_macro_has(make: Callable[[], bytes], words: str) -> None:
    assert words in refused(report_of(make()))


def nested(depth: int, *, undefined: bool) -> bytes:
    if undefined:
        opening = element(0x00081140, "SQ", length=UNDEFINED) + item(undefined=True)[:8]
        return opening * depth + (ITEM_END + SEQUENCE_END) * depth
    return b"".join(
        element(0x00081140, "SQ", length=left + 8) + struct.pack("<HHL", 0xFFFE, 0xE000, left)
        for left in range((depth - 1) * 20, -1, -20)
    )


SHAPES: dict[str, tuple[Callable[[], bytes], str]] = {
    "half of it": (lambda: signed(PLAIN)[: len(PLAIN) // 2], "at most"),
    "all but the last byte": (lambda: instance()[:-1], "at most"),
    "a sequence that never ends": (
        lambda: element(0x00081140, "SQ", length=UNDEFINED) + instance(),
        "found an element, wanted an item",
    ),
    "an item that never ends": (
        lambda: COVERED + element(0xFFFAFFFA, "SQ", length=UNDEFINED) + item(undefined=True)[:8],
        "found the end",
    ),
    "four GiB announced": (
        lambda: COVERED + sequence(0xFFFAFFFA, struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFE)),
        "found length 4294967294",
    ),
    "four GiB of a value announced": (
        lambda: instance() + element(0xFFFCFFFC, "OB", length=0xFFFFFFFE),
        "found length 4294967294",
    ),
    "100,000 levels without length": (
        lambda: nested(100_000, undefined=True) + instance(),
        "more than 128 nested sequences",
    ),
    "100,000 levels with lengths": (
        lambda: nested(100_000, undefined=False) + instance()[len(COVERED) :],
        "more than 128 nested sequences",
    ),
    "an unknown of undefined length, with garbage in it": (
        lambda: (
            element(0x00091001, "UN", length=UNDEFINED)
            + item(undefined=True)[:8]
            + b"garbage!" * 3
            + SEQUENCE_END
            + instance()
        ),
        "found",
    ),
    "levels in an unknown of undefined length": (
        lambda: (
            element(0x00091001, "UN", length=UNDEFINED)
            + (item(undefined=True)[:8] + struct.pack("<HHL", 8, 0x1140, UNDEFINED)) * 100_000
            + instance()
        ),
        "more than 128 nested sequences",
    ),
}


@pytest.mark.parametrize(("make", "words"), SHAPES.values(), ids=SHAPES)
def test_the_structure_is(make: Callable[[], bytes], words: str) -> None:
    assert words in refused(report_of(make()))


def test_128_levels_are_none_too_many() -> None:
    for undefined in (True, False):
        data = COVERED + nested(128, undefined=undefined).replace(
            b"\x08\0\x40\x11", b"\x10\0\1\x11"
        )
        (one,) = report_of(signed(data)).signatures
        assert one.valid, one.reasons


def test_signatures_beyond_the_bound_are_counted() -> None:
    one = instance()
    at = one.index(b"\xfa\xff\xfa\xffSQ")
    many = one[:at] + sequence(0xFFFAFFFA, one[at + 12 :] * 10_000)
    report = report_of(many)
    assert len(report.signatures) == 100
    assert all(one.valid for one in report.signatures)
    assert report.not_looked_at == 9_900


def test_macs_beyond_the_bound_are_refused() -> None:
    macs = [mac_item(TAGS, mac_id=number) for number in range(1, 10_000)]
    assert "0 MAC Parameters items" in refused(report_of(instance(mac_items=macs)))
    (one,) = report_of(instance(mac_items=[mac_item(TAGS), *macs])).signatures
    assert one.valid


def test_elements_beyond_the_bound_are_refused() -> None:
    many = b"".join(element(0x00110000 + number, "CS") for number in range(0x1001, 0x6000))
    words = "found 20485 elements, wanted at most 20000"
    assert words in refused(report_of(instance(covered=COVERED + many)))


def test_a_listed_element_that_is_absent_is_a_remark() -> None:
    """It adds nothing to the stream, and dcmsign takes it, too (C.12.1.1.3.1.1 is silent)."""
    (one,) = report_of(instance(mac_items=[mac_item((*TAGS, 0x00101010))])).signatures
    assert one.valid
    assert one.coverage.missing == (0x00101010,)
    assert any("not there: (0010,1010) PatientAge" in remark for remark in one.remarks)


def test_a_list_out_of_order_is_a_remark() -> None:
    (one,) = report_of(instance(mac_items=[mac_item(TAGS[::-1])])).signatures
    assert one.valid
    assert any("not in ascending order" in remark for remark in one.remarks)


def test_a_signature_in_original_attributes_is_of_another_time() -> None:
    data = COVERED + sequence(
        0x04000561, item(sequence(0x04000550, item(instance())), undefined=True)
    )
    assert report_of(data).signatures == ()
    assert not report_of(data).problem


@pytest.mark.parametrize("path", ["/dev/null", "/", "/proc/self/mem"])
def test_what_is_no_file_is_a_report(path: str) -> None:
    assert refused(verifier().verify_file(Path(path)))


def test_a_pipe_that_nobody_writes_to_is_a_report(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in refused(verifier().verify_file(tmp_path / "pipe"))


def test_an_empty_file_is_a_report(tmp_path: Path) -> None:
    path = tmp_path / "empty.dcm"
    path.touch()
    assert "no DICM" in refused(verifier().verify_file(path))
    assert "No such file" in refused(verifier().verify_file(tmp_path / "absent.dcm"))
    (tmp_path / "forbidden").symlink_to(tmp_path / "forbidden")
    assert refused(verifier().verify_file(tmp_path / "forbidden"))


HEADERS = {
    "nothing after it": (meta(), ""),
    "an undefined length": (
        bytes(128) + b"DICM" + element(0x00020001, "OB", length=UNDEFINED) + SEQUENCE_END,
        "an undefined length",
    ),
    "two transfer syntaxes": (
        meta() + element(0x00020010, "UI", b"1.2.840.10008.1.2\0") + instance(),
        "an element twice",
    ),
    "a transfer syntax of strange bytes": (
        bytes(128) + b"DICM" + element(0x00020010, "UI", b"\xff" * 40) + instance()[:-2],
        "at most",
    ),
    "nothing but half an element": (bytes(128) + b"DICM\2\0\0", "found"),
}


@pytest.mark.parametrize(("data", "words"), HEADERS.values(), ids=HEADERS)
def test_a_header_has(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "one.dcm"
    path.write_bytes(data)
    report = verifier().verify_file(path)
    assert words in report.problem
    assert not report.signatures


def test_every_cut_of_an_instance_is_a_report() -> None:
    whole = signed(PLAIN)
    judge: Verifier = verifier()
    for size in range(len(whole)):
        report = judge.verify_data_set(io.BytesIO(whole[:size]), EXPLICIT)
        assert not any(one.valid for one in report.signatures), size
