"""``sign``: put digital signatures into files (PS3.15 Annex C)."""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydicom.datadict import tag_for_keyword

from dicom_secure_node.commands import Subparsers
from dicom_secure_node.commands.inputs import ask_passphrase, given_files
from dicom_secure_node.commands.output import Progress, emit_json, one_line
from dicom_secure_node.commands.signing import SIGNING_PROFILES, SigningKey, Wish
from dicom_secure_node.commands.workers import Workers, cores
from dicom_secure_node.durable.files import make_folder
from dicom_secure_node.elements.part10 import MEDIA_STORAGE_SOP_CLASS, read_header
from dicom_secure_node.errors import ConfigurationError, InvalidInput
from dicom_secure_node.pki.signers import Signer
from dicom_secure_node.signatures.files import sign
from dicom_secure_node.signatures.profiles import SR
from dicom_secure_node.signatures.references import Find, found_in
from dicom_secure_node.signatures.sign import Authority, Made
from dicom_secure_node.spec.signatures import ASTM_SIGPURPOSE, MAC_ALGORITHMS, PURPOSES, Purpose

_EXAMPLES = """examples:
  dicom-secure-node sign --key ct1.key --cert ct1.crt --output signed/ study/
  dicom-secure-node sign --key ada.p12 --passphrase-file p.txt --profile sr --output signed/ report.dcm
  dicom-secure-node sign --key 'pkcs11:token=HSM;object=ct1?module-path=/usr/lib/hsm.so' \\
      --profile authorization --purpose 13 --tsa http://tsa.example.org --output signed/ *.dcm
"""  # noqa: E501 (one command a line)

_DIRECTORY = "1.2.840.10008.1.3.10"  # Media Storage Directory: a DICOMDIR, no instance
_MACS = {term.lower(): row for term, row in MAC_ALGORITHMS.items() if row.base}
_TAG = re.compile(r"\(?([0-9A-Fa-f]{4}),([0-9A-Fa-f]{4})\)?")


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``sign``."""
    parser = subparsers.add_parser(
        "sign",
        help="put digital signatures into files",
        description="Write signed copies of DICOM files (PS3.15 Annex C); the files themselves "
        "stay as they are. One bad file makes the exit code 1; the others are signed.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--key",
        required=True,
        help="private key (RSA): PEM or DER, .p12 or .pfx, or a pkcs11: URI",
    )
    parser.add_argument(
        "--cert",
        metavar="FILE",
        type=Path,
        help="certificate of the key, where --key does not hold it",
    )
    parser.add_argument(
        "--passphrase-file",
        metavar="FILE",
        type=Path,
        help="its first line is the passphrase of the key, or the PIN (asked on a terminal)",
    )
    parser.add_argument(
        "--profile",
        choices=SIGNING_PROFILES,
        default="creator",
        help="C.1, C.2 (default), C.3 or C.4: who signs, and so what",
    )
    parser.add_argument(
        "--mac", choices=_MACS, default="sha256", metavar="NAME",
        help=f"digest: {', '.join(_MACS)} (default sha256)",
    )  # fmt: skip
    parser.add_argument(
        "--purpose", type=int, choices=[int(code) for code in PURPOSES], metavar="1..18",
        help="why it is signed (PS3.16 CID 7007); sr: 1, for verified documents 5",
    )  # fmt: skip
    parser.add_argument(
        "--tag", metavar="TAG", type=tag, action="append", default=[],
        help="sign this element as well, GGGG,EEEE or keyword; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--without", metavar="TAG", type=tag, action="append", default=[],
        help="leave this element unsigned; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--at", metavar="ITEM", default="",
        help='sign an item instead of the data set, e.g. "(0040,A730)[2]"',
    )  # fmt: skip
    parser.add_argument(
        "--evidence", metavar="DIR", type=Path,
        help="sr: put a MAC of each instance the document refers to beside the reference; "
        "DIR is where they are (PS3.15 A.4)",
    )  # fmt: skip
    parser.add_argument("--tsa", metavar="URL", help="have this authority certify the time")
    parser.add_argument(
        "--output", metavar="DIR", type=Path, required=True,
        help="folder for the signed files, which keep their names",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("paths", metavar="PATH", nargs="+", help="file, folder to walk, or pattern")


def run(args: argparse.Namespace) -> int:
    """Sign the files and return the exit code."""
    if _MACS[args.mac].weak:
        sys.stderr.write(f"warning: {args.mac} can be forged: for receivers that know no better\n")
    paths = given_files(args.paths)
    check_names(paths, args.output)
    purpose = None if args.purpose is None else Purpose(str(args.purpose), ASTM_SIGPURPOSE)
    wish = Wish(
        args.profile, _MACS[args.mac].term, purpose, tuple(args.tag), tuple(args.without), args.at
    )
    if args.evidence is not None and args.profile != SR.name:
        raise ConfigurationError("found --evidence, wanted --profile sr too (PS3.15 A.4.a)")
    if args.evidence is not None and not args.evidence.is_dir():
        raise ConfigurationError("no such folder, wanted the instances", str(args.evidence))
    key = SigningKey(args.key, args.cert, args.passphrase_file)
    job = _Job(key, wish, args.tsa, args.output, args.evidence)
    try:
        # One login into a token, whose library may not like more; some count those that fail.
        return _sign_all(job, paths, 0 if key.in_token else cores(), args.json)
    except _PassphraseWanted:
        # Asked for once, here, and it stays here.
        return _sign_all(job, paths, 0, args.json, key.load(ask_passphrase))


def tag(text: str) -> int:
    """Return a tag given as ``GGGG,EEEE`` or as keyword (for argparse)."""
    match = _TAG.fullmatch(text)
    found = int(match[1] + match[2], 16) if match else tag_for_keyword(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"found {text!r}, wanted GGGG,EEEE or a keyword")
    return found


def check_names(paths: list[Path], folder: Path) -> None:
    """Refuse what would put two files under one name, or a signed file over an unsigned one.

    All or nothing: who signs a study of several folders wants to hear of it before the first.

    Raises
    ------
    ConfigurationError
    """
    by_name: dict[str, Path] = {}
    for path in paths:
        other = by_name.setdefault(path.name, path)
        if other is not path:
            raise ConfigurationError(
                f"found two files of one name, {other} and {path}, wanted names that differ: "
                "sign folder by folder",
                str(folder),
            )
        if path.parent.resolve() == folder.resolve():
            raise ConfigurationError(
                f"found {path} in it, which would be replaced, wanted another folder", str(folder)
            )


class _PassphraseWanted(ConfigurationError):
    """The key is encrypted; no worker asks, the first process does."""


def _not_here() -> bytes:
    raise _PassphraseWanted("the private key is encrypted, wanted --passphrase-file")


@dataclass(frozen=True)
class Signed:
    """What became of one file: ``signed``, ``failed``, or ``skipped`` (a DICOMDIR)."""

    path: Path
    outcome: str
    text: str = ""
    output: Path | None = None
    made: Made | None = None
    profile: str = ""

    def as_json(self) -> dict[str, object]:
        """Return what ``--json`` prints."""
        made = self.made
        return {
            "path": str(self.path),
            "outcome": self.outcome,
            "ok": self.outcome != "failed",
            "text": self.text,
            "output": None if self.output is None else str(self.output),
            "uid": made and made.uid,
            "profile": self.profile or None,
            "signed": made and [f"({one >> 16:04X},{one & 0xFFFF:04X})" for one in made.tags],
            "transfer_syntax": made and made.transfer_syntax,
            "converted": made and made.converted,
        }


@dataclass(frozen=True)
class _Job:
    """What is to be done to every file."""

    key: SigningKey
    wish: Wish
    tsa: str | None
    output: Path
    evidence: Path | None = None

    def begin(self, signer: Signer | None = None) -> Callable[[Path], Signed]:
        """Return what signs a file, once everything that is needed for it is there."""
        signer = signer or self.key.load(ask_passphrase if self.key.in_token else _not_here)
        authority = _authority(self.tsa)
        find = None if self.evidence is None else found_in(self.evidence)
        make_folder(self.output)
        return lambda path: self._sign(path, signer, authority, find)

    def _sign(
        self, path: Path, signer: Signer, authority: Authority | None, find: Find | None
    ) -> Signed:
        output = self.output / path.name
        try:
            with path.open("rb") as file:
                if read_header(file).text(MEDIA_STORAGE_SOP_CLASS) == _DIRECTORY:
                    return Signed(path, "skipped", "a DICOMDIR is no instance")
            order = self.wish.order(path, authority)
            made = sign(path, output, signer, order, find)
        except InvalidInput as exc:
            return Signed(path, "failed", str(exc))
        return Signed(path, "signed", "", output, made, order.profile.name)


def _authority(url: str | None) -> Authority | None:
    if url is None:
        return None
    from dicom_secure_node.pki.timestamps import TimestampAuthority  # needs an extra

    return TimestampAuthority(url)


def _sign_all(
    job: _Job, paths: list[Path], processes: int, as_json: bool, signer: Signer | None = None
) -> int:
    results: Counter[str] = Counter()
    converted = 0
    workers = Workers(
        paths, lambda: job.begin(signer), lambda path, why: Signed(path, "failed", why), processes
    )
    with workers, Progress("signing", len(paths)) as progress:
        for signed in workers.answers():
            results[signed.outcome] += 1
            converted += signed.made is not None and signed.made.converted
            if as_json:
                emit_json(signed.as_json())
            elif signed.text:
                sys.stdout.write(
                    f"{one_line(str(signed.path))}: {signed.outcome}: {one_line(signed.text)}\n"
                )
            progress.advance()
    if not as_json:
        words = [f"{results['signed']} of {len(paths)} files signed"]
        words += [f"{results[what]} {what}" for what in ("failed", "skipped") if results[what]]
        words += [f"{converted} converted to explicit VR little endian"] if converted else []
        sys.stdout.write(", ".join(words) + "\n")
    return 1 if results["failed"] else 0
