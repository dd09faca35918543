"""The tables of suites, against their printed counts and against openssl."""

from __future__ import annotations

import pytest

from dicom_secure_node.spec import tls_suites as tables
from dicom_secure_node.spec.tls_suites import Suite
from tests.parts import run

COUNTS = {
    "B1_TLS12": 1,
    "B3_TLS12": 2,
    "B10_TLS12": 4,
    "B11_TLS12_OPTIONAL": 8,
    "B12_TLS12": 4,
    "B12_TLS13": 3,
    "B13_TLS13": 5,
    "B13_TLS12": 10,
    "B13_TLS12_OPTIONAL": 13,
}


def rows() -> set[Suite]:
    return {suite for name in COUNTS for suite in getattr(tables, name)}


@pytest.mark.parametrize("name", COUNTS)
def test_a_table_has_as_many_rows_as_the_printed_one(name: str) -> None:
    table = getattr(tables, name)
    assert len(table) == len(set(table)) == COUNTS[name]


def test_names_and_codes_are_one_to_one() -> None:
    assert len({s.name for s in rows()}) == len({s.code for s in rows()}) == len(rows())


def test_openssl_agrees_on_every_name_and_code() -> None:
    listed = run(["openssl", "ciphers", "-V", "-stdname", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"])
    more = run(["openssl", "ciphers", "-V", "-stdname", "-ciphersuites", _all_13(), "ALL"])
    known = set()
    for line in (listed.stdout + more.stdout).splitlines():
        code, _, name, _, openssl, *_ = line.split()
        known.add((name, code.replace("0x", ""), openssl))
    ours = {tuple(s) for s in rows() if s.openssl}
    assert ours - known == set()


def test_camellia_with_gcm_and_triple_des_are_the_only_ones_openssl_lacks() -> None:
    lacking = {s.name for s in rows() if s.openssl is None}
    camellia = {name for name in lacking if "CAMELLIA" in name and "GCM" in name}
    assert lacking - camellia == {"TLS_RSA_WITH_3DES_EDE_CBC_SHA"}
    assert len(camellia) == 6


def test_B13_key_kinds_of_the_ten_mandatory_suites() -> None:
    assert sorted(s.key or "" for s in tables.B13_TLS12) == ["EC"] * 7 + ["RSA"] * 3
    assert {s.key for s in tables.B13_TLS13} == {None}


def _all_13() -> str:
    return ":".join(s.openssl or "" for s in tables.B13_TLS13)
