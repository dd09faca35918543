"""The audit tables as data: counts, codes against pydicom's dictionary, a few rows by value."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree
from pydicom.sr.codedict import codes

from dicom_secure_node.spec import audit as spec
from tests import parts

FOLDER = Path(spec.__file__).parent


def test_counts_of_A5_and_its_groups() -> None:
    table = spec.tables()
    assert len(table["messages"]) == 15
    sizes = {cid: len(group["codes"]) for cid, group in table["context_groups"].items()}
    assert sizes == {
        "CID 400": 15,
        "CID 401": 28,
        "CID 402": 6,
        "CID 403": 28,
        "CID 404": 3,
        "CID 405": 10,
    }
    assert len(table["code_tables"]["participant_object_type_code_role"]) == 26
    assert len(table["elements"]) == 25


@pytest.mark.parametrize("cid", [400, 401, 402, 403, 404, 405])
def test_codes_are_those_of_pydicom(cid: int) -> None:
    theirs = {
        (code.value, code.meaning)
        for code in (
            getattr(getattr(codes, f"cid{cid}"), name) for name in getattr(codes, f"cid{cid}").dir()
        )
        if code.scheme_designator == "DCM"
    }
    ours = {(code.value, code.meaning) for code in spec.group(f"CID {cid}").values()}
    assert theirs <= ours
    assert {value for value, _ in ours - theirs} <= {
        "110144",
        "110143",
        "110145",
        "110146",
        "110147",
    }


def test_rows_by_value() -> None:
    transferred = spec.messages()["110104"]
    assert transferred["section"] == "A.5.3.7"
    assert transferred["event"]["EventActionCode"]["values"] == ["C", "R", "U"]
    assert [one["key"] for one in transferred["participants"]] == ["source", "destination", "other"]
    assert spec.messages()["110106"]["requestor"]["min_true"] == 1
    assert spec.tables()["edition"] == "2024e"


def test_the_schema_is_made_from_its_compact_source(tmp_path: Path) -> None:
    made = tmp_path / "made.rng"
    parts.run(["trang", FOLDER / "audit_message.rnc", made], check=True)
    assert made.read_bytes() == spec.schema()


def test_the_element_table_has_the_elements_of_the_schema() -> None:
    schema = etree.fromstring(spec.schema())
    names = {one.get("name") for one in schema.iter("{*}element")}
    assert names == set(spec.tables()["elements"])
