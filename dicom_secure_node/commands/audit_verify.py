"""``audit verify-log``: was the repository's log changed?"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from dicom_secure_node.audit.collecting.records import Head
from dicom_secure_node.audit.collecting.repeats import Repeats
from dicom_secure_node.audit.collecting.store import RecordStore
from dicom_secure_node.commands import DONE, NEGATIVE, Subparsers
from dicom_secure_node.commands.audit_collect import add_place, settings_of
from dicom_secure_node.commands.output import emit_json, one_line
from dicom_secure_node.errors import ConfigurationError

_EXAMPLES = """examples:
  dicom-secure-node audit verify-log --home audit-repository
  dicom-secure-node audit verify-log --folder /srv/audit --expect 5123:9f86d08...
  journalctl -u audit-repository | dicom-secure-node audit verify-log --expect-in -
"""

_HEAD = re.compile(r"\b([1-9][0-9]{0,18}):([0-9a-f]{64})\b")


def add_action(actions: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``verify-log``."""
    parser = actions.add_parser(
        "verify-log",
        help="find every change of a repository's log",
        description="Read the whole log of `audit collect` and say of each record that was "
        "edited, deleted, moved or added, which it is. Whether records at the end are missing, "
        "or everything was written anew, shows only by heads that were noted elsewhere: "
        "the collector logs them. Exit code 0: nothing was changed; 1: something was.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_place(parser)
    parser.add_argument(
        "--expect",
        action="append",
        default=[],
        metavar="HEAD",
        help="a head noted at some time, NUMBER:HASH; repeatable",
    )
    parser.add_argument(
        "--expect-in",
        action="append",
        default=[],
        metavar="FILE",
        help="a text with such heads in it, e.g. the collector's log; - for stdin; repeatable",
    )
    parser.add_argument(
        "--no-index", action="store_true", help="the log alone: faster, each message is not judged"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def run(args: argparse.Namespace) -> int:
    """Verify and return the exit code."""
    settings = settings_of(args)
    expected = list(_expected(args))
    if not settings.folder.is_dir():
        raise ConfigurationError("no such folder", str(settings.folder))
    bad, repeats = 0, Repeats()
    with RecordStore(settings.folder, settings.index) as store:
        for found in store.verify(expected, indexed=not args.no_index, repeats=repeats):
            bad += found.breach
            if args.json:
                emit_json(asdict(found) | {"breach": found.breach})
            else:
                sys.stdout.write(f"{found.kind}: {one_line(found.text)}\n")
        head, first = store.head(), store.first()
    unchecked = sum(1 for one in expected if one.sequence < first)
    if args.json:
        counts = {"findings": bad, "duplicates": repeats.count, "not_checked": unchecked}
        emit_json({"first": first, "head": head, **counts})
        return NEGATIVE if bad else DONE
    if unchecked:
        sys.stdout.write(f"{unchecked} heads are of records deleted since: not checked\n")
    if repeats.count:
        of = f"of {repeats.marked} messages with a number of their sender's"
        sys.stdout.write(f"{repeats.count} duplicates {of}: sent again, no breach\n")
    good = "nothing was changed" if expected else "nothing was changed before its end"
    verdict = f"{bad} findings" if bad else good
    sys.stdout.write(f"records {first} to {head.sequence}, head {head}: {verdict}\n")
    return NEGATIVE if bad else DONE


def _expected(args: argparse.Namespace) -> Iterator[Head]:
    for text in args.expect:
        match = _HEAD.fullmatch(text)
        if match is None:
            raise ConfigurationError(f"found {text!r}, wanted NUMBER:HASH", "--expect")
        yield Head(int(match[1]), match[2])
    for name in args.expect_in:
        text = sys.stdin.read() if name == "-" else Path(name).read_text("utf-8", "replace")
        for match in _HEAD.finditer(text):
            yield Head(int(match[1]), match[2])
