"""dcmsign, the other implementation of Annex C: the same bytes, and each accepts the other's."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from dicom_secure_node.elements.explicit import Element
from dicom_secure_node.errors import InvalidDataSet
from dicom_secure_node.signatures.items import mac_parameters, signature_items
from dicom_secure_node.signatures.mac import Mac, feed, may_be_signed, signable_tags
from dicom_secure_node.signatures.profiles import (
    AUTHORIZATION,
    BASE,
    CREATOR,
    SR,
    SR_VERIFICATION,
    Profile,
)
from dicom_secure_node.signatures.sign import Order
from dicom_secure_node.signatures.source import Source, open_file
from dicom_secure_node.spec.signatures import ASTM_SIGPURPOSE, PURPOSES, Purpose
from tests.certs import RSA_BITS, KeyKind, key_pem
from tests.parts import run
from tests.signatures.making import FILES, authority, credential, signed_file, signer, verifier
from tests.signatures.test_mac_vectors import Tape

BY_FIVE = Purpose("5", ASTM_SIGPURPOSE)
MACS = {
    "RIPEMD160": "+mr",
    "SHA1": "+ms",
    "MD5": "+mm",
    "SHA256": "+m2",
    "SHA384": "+m3",
    "SHA512": "+m5",
}

# File of pydicom: why dcmsign does not sign it.
NOT_BY_DCMSIGN = {
    "MR_truncated.dcm": "breaks off in the pixel data",
    "rtplan_truncated.dcm": "breaks off in a sequence",
    "SC_rgb_jpeg.dcm": "says explicit VR and is implicit",
    "no_meta.dcm": "neither header nor anything else to recognise its encoding by",
}
# File of pydicom: what we say to it.
NOT_BY_US = {
    **dict.fromkeys(
        ("ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "no_meta.dcm", "rtstruct.dcm"),
        "no DICM",  # dcmsign takes bare data sets and guesses their encoding
    ),
    "MR_truncated.dcm": "at most the 8130 bytes left",
    "rtplan_truncated.dcm": "at most the 711 bytes left",
    "SC_rgb_jpeg.dcm": "wanted one of PS3.5",
    "meta_missing_tsyntax.dcm": "wanted one of PS3.5",  # no transfer syntax, and not explicit
    "UN_sequence.dcm": "nothing that is present is signed",  # all of it is UN
}
# File of pydicom: why the two disagree on a signature of ours.
NOT_TAKEN_BY_DCMSIGN: dict[str, str] = {}


@dataclass(frozen=True)
class Keys:
    """Files of one signer, for dcmsign."""

    key: Path
    crt: Path

    def options(self) -> list[str]:
        return [str(self.key), str(self.crt)]


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Keys]:
    """Return how to get the files of a signer of `making.credential`."""
    folder = tmp_path_factory.mktemp("dcmsign")
    authority().anchor(folder / "ca.crt")

    def files(name: str = "ada", kind: KeyKind = "rsa") -> Keys:
        found = Keys(folder / f"{name}-{kind}.key", folder / f"{name}-{kind}.crt")
        if not found.key.exists():
            one = credential(name, kind)
            found.key.write_bytes(key_pem(one.key))
            found.crt.write_bytes(one.certificate.public_bytes(Encoding.PEM))
        return found

    return files


@pytest.fixture(scope="session")
def anchor(keys: Callable[..., Keys]) -> Path:
    return keys().crt.parent / "ca.crt"


def by_dcmsign(keys: Keys, path: Path, out: Path, *options: str, item: str = "") -> str:
    """Sign with dcmsign; return what it said where it refused."""
    how = ["+si", *keys.options(), item] if item else ["+s", *keys.options()]
    done = run(["dcmsign", *how, *(options or ("+m2",)), path, out])
    return "" if done.returncode == 0 else (done.stdout + done.stderr).strip()


def accepted(anchor: Path, path: Path, *options: str) -> None:
    """Fail unless dcmsign finds every signature in a file good and its signer trusted."""
    done = run(["dcmsign", "-v", "--verify", "+cf", anchor, *options, path])
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    verdicts = re.findall(r"Signature Verification +: (.*)", said)
    assert verdicts, said
    assert set(verdicts) == {"OK"}, said


def streams(source: Source, elements: list[Element]) -> Iterator[bytes]:
    """Yield the stream of each signature of a level, as we compute it."""
    reader = source.reader
    macs = {one.mac_id: one for one in mac_parameters(reader, elements, 100)}
    for item in signature_items(reader, elements, 100)[0]:
        assert not item.problem
        tape = Tape()
        mac = Mac(frozenset(macs[item.mac_id].tags), tape)
        feed(reader, elements, [mac], signable_tags(reader, elements))
        yield tape.stream + item.stream


def pydicom_files(without: Collection[str]) -> list[Path]:
    return [path for path in sorted(FILES.glob("*.dcm")) if path.name not in without]


def name_of(path: Path) -> str:
    return path.name


# -- dcmsign makes, we look ----------------------------------------------------------------


@pytest.mark.parametrize("path", pydicom_files(NOT_BY_DCMSIGN), ids=name_of)
def test_our_stream_is_the_one_dcmsign_hashes(
    path: Path, keys: Callable[..., Keys], tmp_path: Path
) -> None:
    out, dump = tmp_path / "signed.dcm", tmp_path / "dump"
    assert not by_dcmsign(keys(), path, out, "+m2", "+d", str(dump))
    with open_file(out) as source:
        (ours,) = streams(source, source.elements)
    assert ours == dump.read_bytes()
    (one,) = verifier().verify_file(out).signatures
    assert one.valid, one.reasons
    assert not any("holds only" in remark for remark in one.remarks)


@pytest.mark.parametrize("name", NOT_BY_DCMSIGN)
def test_what_dcmsign_refuses_it_still_refuses(
    name: str, keys: Callable[..., Keys], tmp_path: Path
) -> None:
    assert by_dcmsign(keys(), FILES / name, tmp_path / "signed.dcm")


STYLES = {
    "defined lengths": ("+e",),
    "undefined lengths": ("-e",),
    "big endian": ("+tb",),
    "implicit VR": ("+ti",),
}


@pytest.mark.parametrize("options", STYLES.values(), ids=STYLES)
@pytest.mark.parametrize("name", ["rtplan.dcm", "test-SR.dcm", "CT_small.dcm", "MR_small.dcm"])
def test_our_stream_is_the_one_dcmsign_hashes_whatever_it_writes(
    name: str, options: tuple[str, ...], keys: Callable[..., Keys], tmp_path: Path
) -> None:
    out, dump = tmp_path / "signed.dcm", tmp_path / "dump"
    path = FILES / name
    listed = tmp_path / "tags"
    with open_file(path) as source:
        # A private element would come back from implicit VR as UN.
        tags = [
            one.tag
            for one in source.elements
            if not one.tag >> 16 & 1 and may_be_signed(source.reader, one)
        ]
    listed.write_text("".join(f"({tag >> 16:04x},{tag & 0xFFFF:04x})\n" for tag in tags))
    more = ("+m2", "+d", str(dump), "-tf", str(listed), *options)
    assert not by_dcmsign(keys(), path, out, *more)
    with open_file(out) as source:
        (ours,) = streams(source, source.elements)
    assert ours == dump.read_bytes()
    (one,) = verifier().verify_file(out).signatures
    assert one.valid, one.reasons


# -- we make, dcmsign looks ----------------------------------------------------------------


@pytest.mark.parametrize("path", pydicom_files(NOT_BY_US), ids=name_of)
def test_dcmsign_accepts_our_signature(path: Path, anchor: Path, tmp_path: Path) -> None:
    out = tmp_path / "signed.dcm"
    out.write_bytes(signed_file(path))
    assert verifier().verify_file(out).signatures[0].valid
    accepted(anchor, out)


@pytest.mark.parametrize(("name", "why"), NOT_BY_US.items(), ids=NOT_BY_US)
def test_what_we_do_not_sign_we_refuse_with_a_reason(name: str, why: str) -> None:
    with pytest.raises(InvalidDataSet, match=why):
        signed_file(FILES / name)


@pytest.mark.parametrize("algorithm", MACS)
@pytest.mark.parametrize("kind", ["rsa", "rsa3072", "rsa4096"])
def test_every_mac_and_key_size_both_ways(
    algorithm: str, kind: KeyKind, keys: Callable[..., Keys], anchor: Path, tmp_path: Path
) -> None:
    ours, theirs = tmp_path / "ours.dcm", tmp_path / "theirs.dcm"
    path = FILES / "CT_small.dcm"
    ours.write_bytes(signed_file(path, Order(BASE, algorithm), by=signer("ada", kind)))
    accepted(anchor, ours)
    assert not by_dcmsign(keys("ada", kind), path, theirs, MACS[algorithm])
    (one,) = verifier().verify_file(theirs).signatures
    assert one.valid, one.reasons
    assert (one.algorithm, one.key) == (algorithm, f"RSA {RSA_BITS[kind]}")


@dataclass(frozen=True)
class Wanted:
    """A profile, dcmsign's name for enforcing it and for demanding it, and a file that suits."""

    profile: Profile
    enforce: str
    require: str
    file: str
    purpose: Purpose | None = None


PROFILE_CASES = {
    "C.1": Wanted(BASE, "+pb", "+rg", "CT_small.dcm"),
    "C.2, an image": Wanted(CREATOR, "+pc", "+rc", "CT_small.dcm"),
    "C.2, a compressed one": Wanted(CREATOR, "+pc", "+rc", "JPEG2000.dcm"),
    "C.2, a waveform": Wanted(CREATOR, "+pc", "+rc", "waveform_ecg.dcm"),
    "C.3, an image": Wanted(AUTHORIZATION, "+pa", "+ru", "MR_small.dcm"),
    "C.3, an overlay": Wanted(AUTHORIZATION, "+pa", "+ru", "examples_overlay.dcm"),
    "C.4": Wanted(SR, "+pr", "+rs", "reportsi.dcm", Purpose("1", ASTM_SIGPURPOSE)),
    "C.4, verified": Wanted(SR_VERIFICATION, "+pv", "+rs", "test-SR.dcm", BY_FIVE),
}


@pytest.mark.parametrize("case", PROFILE_CASES.values(), ids=PROFILE_CASES)
def test_every_profile_both_ways(
    case: Wanted, keys: Callable[..., Keys], anchor: Path, tmp_path: Path
) -> None:
    path = one_observer(FILES / case.file, tmp_path)
    ours, theirs = tmp_path / "ours.dcm", tmp_path / "theirs.dcm"
    ours.write_bytes(signed_file(path, Order(case.profile, purpose=case.purpose)))
    accepted(anchor, ours, case.require)
    assert case.profile.name in verifier().verify_file(ours).signatures[0].profiles
    code = ("+sp", case.purpose.code) if case.purpose else ()
    assert not by_dcmsign(keys(), path, theirs, "+m2", case.enforce, *code)
    (one,) = verifier().verify_file(theirs).signatures
    assert one.valid, one.reasons
    assert one.purpose == case.purpose
    assert case.profile.name in one.profiles


def one_observer(path: Path, folder: Path) -> Path:
    """Return the file; pydicom's verified report has two Verifying Observers, C.4 allows one."""
    if path.name != "test-SR.dcm":
        return path
    ds = pydicom.dcmread(path)
    del ds.VerifyingObserverSequence[1:]
    ds.save_as(folder / "one-observer.dcm")
    return folder / "one-observer.dcm"


@pytest.mark.parametrize("code", PURPOSES)
def test_every_purpose_both_ways(
    code: str, keys: Callable[..., Keys], anchor: Path, tmp_path: Path
) -> None:
    ours, theirs = tmp_path / "ours.dcm", tmp_path / "theirs.dcm"
    purpose = Purpose(code, ASTM_SIGPURPOSE)
    ours.write_bytes(signed_file(FILES / "rtplan.dcm", Order(BASE, purpose=purpose)))
    accepted(anchor, ours)
    assert not by_dcmsign(keys(), FILES / "rtplan.dcm", theirs, "+m2", "+sp", code)
    (one,) = verifier().verify_file(theirs).signatures
    assert one.valid
    assert one.purpose == purpose


NESTED = {  # location of ours: dcmsign's
    "(300A,00B0)[1]": "BeamSequence[0]",
    "(300A,00B0)[1]/(300A,0111)[2]": "BeamSequence[0].ControlPointSequence[1]",
    "(300A,0010)[2]": "DoseReferenceSequence[1]",
}


@pytest.mark.parametrize("length", ["+e", "-e"], ids=["with lengths", "without lengths"])
@pytest.mark.parametrize(("ours", "theirs"), NESTED.items(), ids=NESTED)
def test_items_both_ways(
    ours: str, theirs: str, length: str, keys: Callable[..., Keys], anchor: Path, tmp_path: Path
) -> None:
    explicit, made = tmp_path / "explicit.dcm", tmp_path / "made.dcm"
    run(["dcmconv", "+te", length, FILES / "rtplan.dcm", explicit], check=True)
    made.write_bytes(signed_file(explicit, Order(BASE, location=ours)))
    (one,) = verifier().verify_file(made).signatures
    assert one.valid
    assert one.location == ours
    accepted(anchor, made)
    dump = tmp_path / "dump"
    assert not by_dcmsign(keys(), explicit, made, "+m2", length, "+d", str(dump), item=theirs)
    report = verifier().verify_file(made)
    assert [(one.location, one.valid) for one in report.signatures] == [(ours, True)]
    # In an item as in the main data set, and a signature around it does not mind.
    made.write_bytes(signed_file(made, Order(BASE)))
    report = verifier().verify_file(made)
    assert [(one.location, one.valid) for one in report.signatures] == [("", True), (ours, True)]
    accepted(anchor, made)


def test_several_signers_take_turns_with_dcmsign(
    keys: Callable[..., Keys], anchor: Path, tmp_path: Path
) -> None:
    first, second, third = (tmp_path / f"{n}.dcm" for n in range(3))
    first.write_bytes(signed_file(FILES / "CT_small.dcm", Order(CREATOR), by=signer("ada")))
    assert not by_dcmsign(keys("bob"), first, second, "+m5", "-t", "PatientName")
    third.write_bytes(signed_file(second, Order(AUTHORIZATION, "SHA384"), by=signer("eve")))
    report = verifier().verify_file(third)
    assert [one.valid for one in report.signatures] == [True] * 3
    assert [one.signer.partition(",")[0] for one in report.signatures] == [
        "CN=ada", "CN=bob", "CN=eve",
    ]  # fmt: skip
    assert report.signatures[1].coverage.signed == (0x00100010,)
    accepted(anchor, third)


# -- what one finds broken, so does the other ----------------------------------------------


@pytest.mark.parametrize("name", ["CT_small.dcm", "JPEG2000.dcm", "rtplan.dcm", "test-SR.dcm"])
def test_a_changed_value_breaks_it_for_both(name: str, anchor: Path, tmp_path: Path) -> None:
    data = bytearray(signed_file(FILES / name))
    at = data.index(b"1.2.840.10008.5.1.4", data.index(b"\x08\0\x16\0UI"))
    data[at + 20] ^= 1
    path = tmp_path / "changed.dcm"
    path.write_bytes(data)
    (one,) = verifier().verify_file(path).signatures
    assert (one.genuine, one.intact) == (True, False)
    done = run(["dcmsign", "--verify", "+cf", anchor, path])
    assert done.returncode != 0
