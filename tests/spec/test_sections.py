"""What we say we support: complete, in agreement with the code, and printed in the docs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dicom_secure_node.spec.sections import ANNEXES, SECTIONS, Section
from dicom_secure_node.tls.profiles import PROFILES, TLSProfile

ROOT = Path(__file__).parents[2]
BY_NUMBER = {section.number: section for section in SECTIONS}

# PS3.15 2024e: table of contents, at the level of profiles and options.
EXPECTED = [
    *(f"A.{n}" for n in range(1, 8)),
    *(f"B.{n}" for n in range(1, 14)),
    *(f"C.{n}" for n in range(1, 5)),
    "D.1",
    "E.2",
    *(f"E.3.{n}" for n in range(1, 12)),
    "F.1",
    "G.1",
    "H.1",
    "H.2",
]


def test_every_profile_stands_once_and_in_order() -> None:
    assert [section.number for section in SECTIONS] == EXPECTED
    assert {section.annex for section in SECTIONS} == set(ANNEXES)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.number)
def test_a_claim_names_its_roles_or_limits(section: Section) -> None:
    assert section.title
    assert section.note
    assert "|" not in section.title + section.note, "would break the printed table"


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.section)
def test_TLS_profiles_are_described_as_they_are_built(profile: TLSProfile) -> None:
    section = BY_NUMBER[profile.section]
    assert section.title == profile.title
    assert (section.status == "current") == (profile.status == "current")
    assert (section.support == "no") == (profile.status == "unspeakable")


def test_the_printed_page_is_up_to_date() -> None:
    command = [sys.executable, ROOT / ".ci" / "make_support.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
