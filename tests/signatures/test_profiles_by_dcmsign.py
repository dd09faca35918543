"""The other implementation: dcmsign what it adds, refuses and misses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataelem import DataElement

from dicom_secure_node.signatures.conformity import (
    SignedFacts,
    missing_for,
    missing_for_document,
)
from dicom_secure_node.signatures.profiles import PROFILES, named, tags_to_sign
from dicom_secure_node.spec.signatures import ASTM_SIGPURPOSE, VERIFICATION, Purpose
from tests.certs import Ca, Leaf
from tests.parts import run

VERIFIED = "test-SR.dcm"
MANUFACTURER, ROWS = 0x00080070, 0x00280010
OBSERVERS, CONTENT, WAVEFORM, PIXELS = 0x0040A073, 0x0040A730, 0x54000100, 0x7FE00010

ALL_IMAGE = ("base", "creator", "authorization")
ALL_SR = (*ALL_IMAGE, "sr", "sr-verification")

OPTIONS = {
    "base": "+pb",
    "creator": "+pc",
    "authorization": "+pa",
    "sr": "+pr",
    "sr-verification": "+pv",
}
FILES: dict[str, tuple[str, ...]] = {
    # file of pydicom: the profiles a signature of it can meet
    "CT_small.dcm": ALL_IMAGE,
    "MR_small.dcm": ALL_IMAGE,
    "JPEG2000.dcm": ALL_IMAGE,
    "examples_overlay.dcm": ALL_IMAGE,
    "rtplan.dcm": ALL_IMAGE,
    "waveform_ecg.dcm": ALL_IMAGE,
    "JPEGLSNearLossless_08.dcm": ("base",),  # no Study and no Series Instance UID
    "reportsi.dcm": ALL_SR[:4],
    VERIFIED: ALL_SR,
}


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Leaf:
    """Return an RSA credential; ``ca.crt`` beside it is the authority."""
    ca, folder = Ca(), tmp_path_factory.mktemp("signer")
    ca.anchor(folder / "ca.crt")
    return ca.write(folder, "signer", key="rsa", usage="none")


def may_be_signed(element: DataElement) -> bool:
    if element.VR == "SQ":
        return all(may_be_signed(inner) for item in element.value for inner in item)
    return str(element.VR) != "UN"


def described(path: Path) -> SignedFacts:
    """Return the facts of a signature that covers all of a file and has purpose 5."""
    ds = pydicom.dcmread(path)
    present = frozenset(int(element.tag) for element in ds)
    unsignable = frozenset(int(element.tag) for element in ds if not may_be_signed(element))
    return SignedFacts(
        signed=present - unsignable,
        present=present,
        unsignable=unsignable,
        at_top_level=True,
        algorithm="SHA256",
        transfer_syntax="1.2.840.10008.1.2.1",
        certificate_type="X509_1993_SIG",
        key_is_rsa=True,
        purpose=VERIFICATION,
        sop_class=str(ds.SOPClassUID),
        verification_flag=ds.get("VerificationFlag", ""),
        verifying_observers=len(ds.get("VerifyingObserverSequence", ())),
        reference_algorithms=frozenset(),
    )


@pytest.fixture
def sample(tmp_path: Path) -> Callable[[str], Path]:
    """Return where a file of pydicom is; the verified report loses its second observer."""

    def path_of(file: str) -> Path:
        path = Path(str(get_testdata_file(file)))
        if file != VERIFIED:
            return path
        ds = pydicom.dcmread(path)
        del ds.VerifyingObserverSequence[1:]
        ds.save_as(tmp_path / file)
        return tmp_path / file

    return path_of


def selection(facts: SignedFacts, name: str) -> tuple[int, ...]:
    """Return what we would sign of a file under the profile called `name`."""
    return tags_to_sign(PROFILES[name], facts.signed, sop_class=facts.sop_class)


def signed_by_dcmsign(
    signer: Leaf, path: Path, out: Path, option: str, tags: Sequence[int], code: str = "5"
) -> tuple[int, ...] | None:
    """Return what dcmsign signed when it was told to sign `tags`; None when it refused.

    Told to enforce a profile it adds what it finds wanting, and refuses (exit code 85) an instance
    that cannot meet it.
    """
    listed = out.with_suffix(".tags")
    listed.write_text("".join(f"({tag >> 16:04x},{tag & 0xFFFF:04x})\n" for tag in tags))
    words = ["dcmsign", "+s", signer.key, signer.crt, option, "+m2", "+sp", code, "-tf", listed]
    done = run([*words, path, out])
    if done.returncode == 85:
        return None
    assert done.returncode == 0, done.stderr
    (parameters,) = pydicom.dcmread(out).MACParametersSequence
    return tuple(parameters.DataElementsSigned)


CASES = [
    pytest.param(file, name, name in met, id=f"{file} {name}")
    for file, met in FILES.items()
    for name in PROFILES
]


@pytest.mark.parametrize(("file", "name", "want"), CASES)
def test_dcmsign_has_nothing_to_add(
    file: str, name: str, want: bool, signer: Leaf, sample: Callable[[str], Path], tmp_path: Path
) -> None:
    path = sample(file)
    facts = described(path)
    tags = selection(facts, name)
    facts = dataclasses.replace(facts, signed=frozenset(tags))
    assert (missing_for(PROFILES[name], facts) == ()) is want
    found = signed_by_dcmsign(signer, path, tmp_path / "out.dcm", OPTIONS[name], tags)
    assert found == (tags if want else None)


SHORTER = {
    # file, profile, what is left out
    "an image without its rows": ("CT_small.dcm", "creator", ROWS),
    "an image without its pixels": ("MR_small.dcm", "authorization", PIXELS),
    "an image without its maker": ("CT_small.dcm", "creator", MANUFACTURER),
    "a waveform without its samples": ("waveform_ecg.dcm", "creator", WAVEFORM),
    "a report without its content": ("reportsi.dcm", "sr", CONTENT),
    "a verified report without who did it": (VERIFIED, "sr-verification", OBSERVERS),
}


@pytest.mark.parametrize(("file", "name", "tag"), SHORTER.values(), ids=SHORTER)
def test_dcmsign_adds_what_we_call_missing(
    file: str, name: str, tag: int, signer: Leaf, sample: Callable[[str], Path], tmp_path: Path
) -> None:
    path = sample(file)
    facts = described(path)
    whole = selection(facts, name)
    tags = [one for one in whole if one != tag]
    facts = dataclasses.replace(facts, signed=frozenset(tags))
    (reason,) = missing_for(PROFILES[name], facts)
    assert reason.startswith(f"{named(tag)} is present and not signed (")
    found = signed_by_dcmsign(signer, path, tmp_path / "out.dcm", OPTIONS[name], tags)
    assert found == whole


VERIFYING: dict[str, tuple[str, str, str, int | None, str]] = {
    # what dcmsign is to require, file, profile of the list, what is left out, purpose
    "an image by its creator": ("+rc", "CT_small.dcm", "creator", None, "14"),
    "the same without its rows": ("+rc", "CT_small.dcm", "creator", ROWS, "14"),
    "an image by who approves": ("+ru", "CT_small.dcm", "authorization", None, "13"),
    "the same without its pixels": ("+ru", "CT_small.dcm", "authorization", PIXELS, "13"),
    "a report": ("+rs", "reportsi.dcm", "sr", None, "1"),
    "the same without its content": ("+rs", "reportsi.dcm", "sr", CONTENT, "1"),
    "a verified report": ("+rs", VERIFIED, "sr-verification", None, "5"),
    "the same without who verified": ("+rs", VERIFIED, "sr-verification", OBSERVERS, "5"),
    "a verified report signed as if it were none": ("+rs", VERIFIED, "sr", None, "5"),
}


@pytest.mark.parametrize(
    ("option", "file", "name", "without", "code"), VERIFYING.values(), ids=VERIFYING
)
def test_dcmsign_verifies_as_we_judge(
    option: str,
    file: str,
    name: str,
    without: int | None,
    code: str,
    signer: Leaf,
    sample: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    path, out = sample(file), tmp_path / "out.dcm"
    facts = described(path)
    tags = [tag for tag in selection(facts, name) if tag != without]
    assert signed_by_dcmsign(signer, path, out, "+pb", tags, code) == tuple(tags)
    facts = dataclasses.replace(
        facts, signed=frozenset(tags), purpose=Purpose(code, ASTM_SIGPURPOSE)
    )
    document = PROFILES[name].documents_only
    missing = missing_for_document([facts]) if document else missing_for(PROFILES[name], facts)
    done = run(["dcmsign", "--verify", option, "+cf", signer.crt.with_name("ca.crt"), out])
    assert done.returncode == (102 if missing else 0), done.stderr  # 102: a policy is not met


def test_C_4_wants_a_purpose_and_dcmsign_does_not_look(
    signer: Leaf, sample: Callable[[str], Path], tmp_path: Path
) -> None:
    path, out = sample(VERIFIED), tmp_path / "out.dcm"
    facts = described(path)
    tags = selection(facts, "sr-verification")
    assert signed_by_dcmsign(signer, path, out, "+pb", tags, "1") == tags
    facts = dataclasses.replace(
        facts, signed=frozenset(tags), purpose=Purpose("1", ASTM_SIGPURPOSE)
    )
    assert missing_for_document([facts]) == (
        "the signature's purpose is ('1', 'ASTM-sigpurpose'), want ('5', 'ASTM-sigpurpose') "
        "(PS3.15 C.4)",
    )
    done = run(["dcmsign", "--verify", "+rs", "+cf", signer.crt.with_name("ca.crt"), out])
    assert done.returncode == 0, done.stderr
