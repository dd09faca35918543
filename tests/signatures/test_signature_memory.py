"""Memory stays flat, whatever is sent: each in a process of its own, by the kernel's count."""

from __future__ import annotations

import gc
import hashlib
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_secure_node.spec.signatures import MAC_ALGORITHMS
from tests.parts import run
from tests.signatures.forging import COVERED, TAGS, by_ada, instance
from tests.signatures.making import (
    ITEM_END,
    SEQUENCE_END,
    UNDEFINED,
    credential,
    der,
    element,
    item,
    mac_item,
    meta,
    sequence,
    signature_head,
    verifier,
)

ROOT = Path(__file__).parent.parent.parent
MIB = 1 << 20
DEFLATED = "1.2.840.10008.1.2.1.99"
PIXELS = 0x7FE00010

# What is measured is the growth over a small instance verified before. Files may have 64 MiB at
# most, so that a bomb that inflates is noticed.
PROGRAM = """
import json, resource, sys
from pathlib import Path
from dicom_secure_node.pki.paths import PathValidator
from dicom_secure_node.pki.trust import TrustStore
from dicom_secure_node.signatures.verify import Verifier

verifier = Verifier(PathValidator(TrustStore(())))
small, large = map(Path, sys.argv[1:])
assert verifier.verify_file(small).signatures
resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, 64 << 20))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
report = verifier.verify_file(large)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
json.dump([(after - before) >> 10, report.problem, len(report.signatures),
           [why for one in report.signatures[:3] for why in (*one.reasons, *one.remarks)],
           [one.genuine and one.intact for one in report.signatures[:3]]], sys.stdout)
"""


def sparse(path: Path, size: int, *, vr: str = "OB", changed: bool = False) -> None:
    """Write a signed instance with pixels that are one hole."""
    head = signature_head()
    covered = COVERED + element(PIXELS, vr, length=size)
    digest = hashlib.sha256(covered)
    for _ in range(size // MIB):
        digest.update(bytes(MIB))
    digest.update(head)
    value = by_ada(MAC_ALGORITHMS["SHA256"].digest_info + digest.digest())
    start = meta() + COVERED + sequence(0x4FFE0001, mac_item((*TAGS, PIXELS)))
    start += element(PIXELS, vr, length=size)
    certificate = element(0x04000115, "OB", der(credential().certificate))
    end = sequence(0xFFFAFFFA, item(head, certificate, element(0x04000120, "OB", value)))
    with path.open("wb") as file:
        file.write(start)
        if changed:
            file.write(b"x")
        file.seek(len(start) + size)
        file.write(end)


def written(path: Path, data: bytes, syntax: str | None = None) -> None:
    path.write_bytes((meta(syntax) if syntax else meta()) + data)


def bomb(path: Path, data: bytes, more: int) -> None:
    """Write a deflated data set that ends in zeros without end."""
    stream = zlib.compressobj(1, wbits=-15)
    with path.open("wb") as file:
        file.write(meta(DEFLATED))
        file.write(stream.compress(data))
        for _ in range(more // MIB):
            file.write(stream.compress(bytes(MIB)))
        file.write(stream.flush())


def many(one: bytes, count: int, *, tag: int = 0x00081140) -> bytes:
    return element(tag, "SQ", one * count)


def with_signatures(count: int) -> bytes:
    whole = instance()
    at = whole.index(b"\xfa\xff\xfa\xffSQ")
    return whole[:at] + many(whole[at + 12 :], count, tag=0xFFFAFFFA)


CASES: dict[str, tuple[Callable[[Path], None], int, str]] = {
    # what, MiB it may take, and words of the report
    "1 GiB of pixels": (lambda p: sparse(p, 1 << 30), 40, "true"),
    "256 MiB of pixels, one of them changed": (
        lambda p: sparse(p, 1 << 28, changed=True),
        40,
        "signed elements were changed",
    ),
    "256 MiB of text, one letter changed": (
        lambda p: sparse(p, 1 << 28, vr="UT", changed=True),
        40,
        "signed elements were changed",
    ),
    "5 million empty elements": (
        lambda p: written(p, instance(more=element(0x7FE10010, "CS") * 5_000_000)),
        400,
        "more than 1000000 elements",
    ),
    "1.2 million empty items": (
        lambda p: written(p, many(item(), 1_200_000) + instance()[len(COVERED) :]),
        450,
        "more than 1000000 elements",
    ),
    "200,000 fragments": (
        lambda p: written(
            p,
            instance(
                more=element(PIXELS, "OB", length=UNDEFINED) + item() * 200_000 + SEQUENCE_END,
                mac_items=[mac_item((*TAGS, PIXELS))],
            ),
        ),
        60,
        "signed elements were changed",
    ),
    "an unknown of undefined length with 1.5 million items": (
        lambda p: written(
            p,
            element(0x00091001, "UN", length=UNDEFINED)
            + item() * 1_500_000
            + SEQUENCE_END
            + instance(),
        ),
        40,
        "elements",
    ),
    "100,000 levels without length": (
        lambda p: written(
            p,
            (element(0x00081140, "SQ", length=UNDEFINED) + item(undefined=True)[:8]) * 100_000
            + (ITEM_END + SEQUENCE_END) * 100_000,
        ),
        20,
        "more than 128 nested sequences",
    ),
    "10,000 signatures": (lambda p: written(p, with_signatures(10_000)), 60, "true"),
    "3,000 MACs of 4,000 tags": (
        lambda p: written(
            p,
            instance(mac_items=[mac_item(TAGS * 1000, mac_id=n) for n in range(1, 3000)]),
        ),
        120,
        "0 MAC Parameters items",
    ),
    "a deflate bomb": (
        lambda p: bomb(p, COVERED + element(PIXELS, "OB", length=1 << 27), 1 << 27),
        40,
        "cannot be read: File too large",
    ),
    "50 MiB in a signature's item": (
        lambda p: written(p, instance(tail=element(0x04010010, "OB", bytes(50 * MIB)))),
        40,
        "wanted at most 65536",
    ),
    "a header without end": (
        lambda p: written(p, b"".join(struct.pack("<HHL", 2, 0x5155, 0) for _ in range(1 << 20))),
        40,
        "found",
    ),
}


@pytest.mark.parametrize(("make", "most", "words"), CASES.values(), ids=CASES)
def test_memory_stays_flat_with(
    make: Callable[[Path], None], most: int, words: str, tmp_path: Path
) -> None:
    small, large = tmp_path / "small.dcm", tmp_path / "large.dcm"
    small.write_bytes(meta() + instance())
    make(large)
    done = run([sys.executable, "-c", PROGRAM, small, large], cwd=ROOT, check=True)
    large.unlink()
    assert words in done.stdout
    grown = int(done.stdout[1:].partition(",")[0])
    assert grown <= most, f"{grown} MiB: {done.stdout}"


def test_an_instance_is_let_go_without_the_garbage_collector(tmp_path: Path) -> None:
    """A node that verifies one instance after the other must not hold a thousand of them."""
    path = tmp_path / "one.dcm"
    path.write_bytes(meta() + instance(more=element(0x7FE10010, "OB", bytes(2 * MIB))))
    gc.collect()
    gc.disable()
    try:
        tracemalloc.start()
        for _ in range(4):
            assert verifier().verify_file(path).signatures[0].valid
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert held < MIB
