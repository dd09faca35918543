"""``audit``: judge audit messages, our own or another product's (PS3.15 A.5)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from dicom_secure_node.audit.validate import SIZE_LIMIT, Problem, Report, validate
from dicom_secure_node.commands import DONE, NEGATIVE, Subparsers
from dicom_secure_node.commands.output import emit_json, one_line
from dicom_secure_node.errors import ConfigurationError

_EXAMPLES = """examples:
  dicom-secure-node audit validate message.xml
  dicom-secure-node audit validate --json secure-node/audit   every stored message of a node
  cat message.xml | dicom-secure-node audit validate -
"""

_LINES = (".ndjson", ".jsonl")
_SUFFIXES = (".xml", *_LINES)


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``audit`` and its actions."""
    parser = subparsers.add_parser(
        "audit",
        help="judge audit messages",
        description="Judge audit messages by PS3.15 A.5: schema, conventions, message tables.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser(
        "validate",
        help="say which rules a message breaks, and where",
        description="Say of each message whether it is valid, and which rules it breaks where. "
        "Exit code 0: all valid; 1: at least one is not, or nothing was found to judge.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument(
        "paths",
        nargs="+",
        metavar="FILE",
        help="XML, a trail in JSON lines (.ndjson, .jsonl), a folder of these, or - for stdin",
    )
    check.add_argument("--json", action="store_true", help="one JSON object a message on stdout")


def run(args: argparse.Namespace) -> int:
    """Do what ``audit ACTION`` asks for."""
    bad = 0
    count = 0
    # Every path is looked at first: a missing one is a usage error, not half an answer.
    for name, xml in list(_sources(args.paths)):
        for label, message in _messages(name, xml):
            report = validate(message) if isinstance(message, bytes) else message
            count += 1
            bad += not report.valid
            _show(label, report, as_json=args.json)
    if not args.json:
        print(f"{count} messages, {bad} not valid")
    return NEGATIVE if bad or not count else DONE


def _sources(paths: Sequence[str]) -> Iterator[tuple[str, Path | None]]:
    """Yield label and file of everything to read; None stands for stdin."""
    for name in paths:
        path = Path(name)
        if name == "-":
            yield "-", None
        elif path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix in _SUFFIXES and p.is_file())
            yield from ((str(one), one) for one in found)
        elif path.is_file():
            yield name, path
        else:
            raise ConfigurationError("no such file or folder", name)


def _messages(name: str, path: Path | None) -> Iterator[tuple[str, bytes | Report]]:
    """Yield label and XML of each message in a file, or the report that there is none."""
    if path is not None and path.suffix in _LINES:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"{name}:{number}", _stored(line)
        return
    if path is None:
        # One octet more than the judge takes: it then says so.
        yield name, sys.stdin.buffer.read(SIZE_LIMIT + 1)
        return
    with path.open("rb") as file:
        yield name, file.read(SIZE_LIMIT + 1)


def _stored(line: bytes) -> bytes | Report:
    """Return the XML in one line of a trail."""
    try:
        record = json.loads(line)
        xml = record["xml"]
        if isinstance(xml, str):
            return xml.encode("utf-8", "surrogatepass")
    except (ValueError, KeyError, TypeError):
        pass
    return Report((Problem("A.5.a", "/", "a line that is no stored message", 'JSON with "xml"'),))


def _show(label: str, report: Report, *, as_json: bool) -> None:
    if as_json:
        problems = [asdict(problem) for problem in report.problems]
        emit_json({"path": label, "valid": report.valid, "problems": problems})
        return
    print(f"{one_line(label)}: {'valid' if report.valid else 'NOT VALID'}")
    for problem in report.problems:
        print(
            one_line(
                f"  {problem.rule} {problem.where}: found {problem.found}, wanted {problem.wanted}"
            )
        )
