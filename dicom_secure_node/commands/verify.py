"""``verify``: say whether the digital signatures in files are good (PS3.15 Annex C)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from dicom_secure_node.commands import Subparsers
from dicom_secure_node.commands.inputs import given_files
from dicom_secure_node.commands.output import Progress, json_line, one_line
from dicom_secure_node.commands.signature_report import report_text
from dicom_secure_node.commands.workers import Workers
from dicom_secure_node.errors import ConfigurationError, InvalidCertificate
from dicom_secure_node.pki.files import read_certificates
from dicom_secure_node.pki.paths import PathValidator
from dicom_secure_node.pki.trust import load_trust
from dicom_secure_node.signatures.policy import Requirement, SignaturePolicy
from dicom_secure_node.signatures.reference_check import check_file
from dicom_secure_node.signatures.references import Find, found_in
from dicom_secure_node.signatures.report import InstanceReport, SignatureReport
from dicom_secure_node.signatures.verify import Verifier
from dicom_secure_node.spec.signatures import SR_CLASSES

_EXAMPLES = """examples:
  dicom-secure-node verify --trust ca.crt study/
  dicom-secure-node verify --trust ca.crt --crl ca.crl --policy require-creator --json study/
  dicom-secure-node verify --trust ca.crt --report report.dcm      every question and its answer
"""

_MAX_OCSP = 1 << 20  # bytes; an answer has some thousand

_Render = Callable[[Path, InstanceReport, tuple[str, ...]], str]


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``verify``."""
    parser = subparsers.add_parser(
        "verify",
        help="say whether the digital signatures in files are good",
        description="Verify the digital signatures in DICOM files (PS3.15 Annex C). A folder "
        "answers for every file in it, also for what is no DICOM. Exit code 0: every file "
        "satisfies the policy; 1: one does not.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_files(parser, "--trust", "certificates of authorities whose signers are believed")
    _add_files(parser, "--crl", "their revocation lists; every signer has to be covered then")
    _add_files(parser, "--intermediate", "certificates of authorities below those of --trust")
    _add_files(parser, "--tsa-trust", "the same for certified timestamps (default: --trust)")
    _add_files(parser, "--ocsp", "OCSP answers about signers, DER")
    parser.add_argument(
        "--fetch", action="store_true", help="get revocation lists and OCSP answers over HTTP"
    )
    parser.add_argument(
        "--policy", action="append", metavar="NAME",
        choices=[name for name in get_args(Requirement) if name != "ignore"],
        help="verify-if-present, require-signature (default), require-creator, "
        "require-authorization, require-sr or require-timestamp; of several, one signature has "
        "to satisfy all",
    )  # fmt: skip
    parser.add_argument(
        "--refuse-weak", action="store_true",
        help="MD5, SHA-1, RIPEMD-160 and keys below 2048 bits count as invalid",
    )  # fmt: skip
    parser.add_argument(
        "--evidence", metavar="DIR", type=Path,
        help="what SR documents and Key Object Selections say of other instances has to hold of "
        "those in DIR (PS3.15 A.4)",
    )  # fmt: skip
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="one JSON object a line")
    shown.add_argument(
        "--report", action="store_true",
        help="every question and its answer, and which elements are covered",
    )  # fmt: skip
    parser.add_argument("paths", metavar="PATH", nargs="+", help="file, folder to walk, or pattern")


def _add_files(parser: argparse.ArgumentParser, option: str, words: str) -> None:
    parser.add_argument(
        option, metavar="FILE", type=Path, action="append", default=[],
        help=f"{words}; repeatable",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Verify the files and return the exit code."""
    policy = SignaturePolicy(tuple(args.policy or ("require-signature",)), args.refuse_weak)
    verifier = make_verifier(args)
    paths = given_files(args.paths)
    render = _as_json if args.json else report_text if args.report else _as_line
    if args.evidence is not None and not args.evidence.is_dir():
        raise ConfigurationError("no such folder, wanted the instances", str(args.evidence))
    find = None if args.evidence is None else found_in(args.evidence)
    look = _Look(verifier, policy, render, find)
    good = 0
    workers = Workers(paths, lambda: look, look.lost)
    with workers, Progress("verifying", len(paths)) as progress:
        for answer in workers.answers():
            good += answer.valid
            sys.stdout.write(answer.text + "\n")
            progress.advance()
    if len(paths) > 1 and not args.json:
        sys.stdout.write(f"{good} of {len(paths)} files good ({policy})\n")
    return 0 if good == len(paths) else 1


def make_verifier(args: argparse.Namespace) -> Verifier:
    """Return what verifies as the options say.

    Raises
    ------
    ConfigurationError
        An option is missing, or names a file that cannot be used.
    """
    if not args.trust:
        raise ConfigurationError(
            "found no --trust, wanted --trust CA.pem: the certificate of the authority whose "
            "signers you believe"
        )
    try:
        intermediates = [one for file in args.intermediate for one in read_certificates(file)]
        answers = [_ocsp(file) for file in args.ocsp]

        def validator(anchors: list[Path]) -> PathValidator:
            return PathValidator(
                load_trust(anchors, args.crl),
                intermediates=intermediates,
                ocsp_responses=answers,
                fetch=args.fetch,
            )

        authorities = validator(args.tsa_trust) if args.tsa_trust else None
        return Verifier(validator(args.trust), authorities)
    except InvalidCertificate as exc:
        raise ConfigurationError(str(exc)) from exc  # exit code 1 would speak of the signatures


def _ocsp(path: Path) -> bytes:
    with path.open("rb") as file:
        answer = file.read(_MAX_OCSP + 1)
    if not answer.startswith(b"\x30") or len(answer) > _MAX_OCSP:
        raise ConfigurationError("found no OCSP answer, wanted one in DER", str(path))
    return answer


_MOST_REFERENCES = 8  # reasons that are told


@dataclass(frozen=True)
class _Answer:
    """About one file: does it satisfy the policy, and what is printed."""

    valid: bool
    text: str


@dataclass(frozen=True)
class _Look:
    """Looks at one file after the other; runs in the workers."""

    verifier: Verifier
    policy: SignaturePolicy
    render: _Render
    find: Find | None = None

    def __call__(self, path: Path) -> _Answer:
        return self._judged(path, self.verifier.verify_file(path))

    def lost(self, path: Path, why: str) -> _Answer:
        return self._judged(path, InstanceReport(problem=why))

    def _judged(self, path: Path, report: InstanceReport) -> _Answer:
        failures = self.policy.failures(report)
        if self.find is not None and report.sop_class.startswith(SR_CLASSES):
            failures += check_file(path, self.find, self.verifier).reasons[:_MOST_REFERENCES]
        return _Answer(not failures, self.render(path, report, failures))


def _as_json(path: Path, report: InstanceReport, failures: tuple[str, ...]) -> str:
    row = {"path": str(path), "valid": not failures, "reasons": list(failures)}
    return json_line(row | report.as_json())


def _as_line(path: Path, report: InstanceReport, failures: tuple[str, ...]) -> str:
    if failures:
        words = "bad: " + "; ".join(failures)
    elif report.signatures:
        words = "good: " + "; ".join(map(_credit, report.signatures))
    else:
        words = "good: it has no signature"
    return one_line(f"{path}: {words}")


def _credit(one: SignatureReport) -> str:
    """Return who signed how much; what is not covered may be anything."""
    covered = len(one.coverage.signed)
    total = covered + len(one.coverage.unsigned) + len(one.coverage.unsignable)
    where = f"item {one.location}, " if one.location else ""
    return f"{where}{covered} of {total} elements signed by {one.signer}"
