"""An element twice in an item of the macro is said of that item, and of no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_secure_node.signatures.copying import write_file
from dicom_secure_node.signatures.items import MAC_ALGORITHM, SIGNATURE_DATETIME
from dicom_secure_node.signatures.mac import DIGITAL_SIGNATURES, MAC_PARAMETERS
from dicom_secure_node.signatures.nested import enclosed, inside, outermost
from dicom_secure_node.signatures.source import open_file
from dicom_secure_node.signatures.writing import Edit
from tests.signatures.signing_parts import CT, Site


@pytest.mark.parametrize(
    ("sequence", "element", "problem"),
    [
        (DIGITAL_SIGNATURES, SIGNATURE_DATETIME, "an element twice in one item"),
        (MAC_PARAMETERS, MAC_ALGORITHM, "0 MAC Parameters items for MAC ID 1"),
    ],
    ids=["a second date and time", "a second algorithm"],
)
def test_the_other_signature_of_the_level_is_read(
    sequence: int, element: int, problem: str, tmp_path: Path
) -> None:
    site = Site(tmp_path / "site")
    site.sign(CT, tmp_path / "one.dcm")
    site.sign(tmp_path / "one.dcm", tmp_path / "two.dcm")
    with open_file(tmp_path / "two.dcm") as source, (tmp_path / "twice.dcm").open("wb") as out:
        document = outermost(source.elements)
        holder = document.element(sequence)
        assert holder is not None
        item = list(inside(source.reader, document, holder))[1]
        found = item.element(element)
        assert found is not None
        again = bytes(source.reader.buffer[found.start : found.end])
        edits = enclosed([(Edit(found.start, found.start, again), item.around)])
        write_file(tmp_path / "two.dcm", source, edits, out)
    first, second = site.verifier.verify_file(tmp_path / "twice.dcm").signatures
    assert first.valid
    assert problem in second.problem
