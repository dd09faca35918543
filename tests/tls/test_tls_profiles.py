"""Profiles by name, and what their data has to hold to be the standard's."""

from __future__ import annotations

import ssl

import pytest

from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.tls.profiles import PROFILES, TLSProfile, profile_named

NAMES = {
    "B.3": "B.3",
    "aes": "B.3",
    "B.9": "B.9",
    "bcp195": "B.9",
    "b.10": "B.10",
    "BCP195-ND": "B.10",
    "bcp195-ex": "B.11",
    "8996": "B.12",
    " b.12 ": "B.12",
    "8996-MOD": "B.13",
    "B.13": "B.13",
}
REFUSED = {
    "a name nobody gave": ("8997", r"'8997'.*B\.12 \(8996\)"),
    "nothing": ("", "wanted one like"),
    "plain is no TLS profile": ("plain", "wanted one like"),
    "B.1 cannot be spoken": ("B.1", "Triple-DES.*B.12"),
    "basic neither": ("basic", "Triple-DES"),
    "B.2 is no TLS": ("iscl", "ISCL.*no library"),
    "B.3 is retired": ("aes", "allow_retired = true.*B.12"),
    "B.9 is retired": ("B.9", "TLS 1.0"),
    "B.10 is retired": ("B.10", "allow_retired"),
    "B.11 is retired": ("B.11", "allow_retired"),
}


@pytest.mark.parametrize(("name", "section"), NAMES.items())
def test_a_profile_is_found_by_section_and_short_name(name: str, section: str) -> None:
    assert profile_named(name, allow_retired=True).section == section


@pytest.mark.parametrize(("name", "words"), REFUSED.values(), ids=REFUSED)
def test_a_profile_is_refused_by_default(name: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        profile_named(name)


@pytest.mark.parametrize("name", ["B.1", "B.2"])
def test_unspeakable_stays_so_with_retired_ones_allowed(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be spoken"):
        profile_named(name, allow_retired=True)


def test_every_section_of_annex_B_about_TLS_is_there_once() -> None:
    sections = [p.section for p in PROFILES]
    assert sections == ["B.1", "B.2", "B.3", "B.9", "B.10", "B.11", "B.12", "B.13"]
    assert [p.section for p in PROFILES if p.status == "current"] == ["B.12", "B.13"]
    assert len({p.short for p in PROFILES}) == len(PROFILES)


@pytest.mark.parametrize("profile", PROFILES[-2:], ids=["B.12", "B.13"])
def test_B12_B13_versions_and_alpn(profile: TLSProfile) -> None:
    assert profile.minimum == ssl.TLSVersion.TLSv1_2
    assert profile.maximum == ssl.TLSVersion.TLSv1_3
    assert profile.alpn == b"dicom"
    assert not profile.sha1_allowed


def test_B12_first_proposal_is_the_one_RFC9325_names() -> None:
    first = profile_named("8996").tls12_suites[0]
    assert first.name == "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"


def test_B13_offers_nothing_outside_its_closed_lists() -> None:
    profile = profile_named("8996-mod")
    assert not any("x25519" in g.lower() or "mlkem" in g.lower() for g in profile.groups)
    hashes = {name.rpartition("_")[2] for name in profile.signature_algorithms}
    assert hashes == {"sha256", "sha384"}
    assert (profile.min_rsa_bits, profile.min_ec_bits, profile.min_dh_bits) == (2048, 256, 2048)


def test_only_what_needs_it_runs_at_security_level_0() -> None:
    levels = {p.section: p.security_level for p in PROFILES if p.suites and p.section != "B.1"}
    assert levels == {"B.3": 0, "B.9": 0, "B.10": 2, "B.11": 2, "B.12": 2, "B.13": 0}
