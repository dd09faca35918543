"""A report on signatures for people: each question, its answer, and what is not covered."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from dicom_secure_node.commands.output import one_line
from dicom_secure_node.pki.paths import PathVerdict
from dicom_secure_node.pki.timestamps import TimestampVerdict
from dicom_secure_node.signatures.profiles import PROFILES, is_private
from dicom_secure_node.signatures.report import InstanceReport, SignatureReport, tag_text
from dicom_secure_node.spec.signatures import PURPOSES, Purpose

_WIDTH = 100
_QUESTION = 22  # columns

Row = tuple[str, str]


def report_text(path: Path, report: InstanceReport, failures: tuple[str, ...]) -> str:
    """Return the report on one file, a question a line."""
    lines = [one_line(f"{path}: {'bad' if failures else 'good'}")]
    lines += _rows((("because", why) for why in failures), 2)
    if not report.signatures and not report.problem:
        lines += _rows([("signatures", "none")], 2)
    for one in report.signatures:
        lines.append("  signature " + one_line(one.uid or "without UID"))
        lines += _rows(_questions(one), 4)
    return "\n".join(lines)


def _questions(one: SignatureReport) -> Iterator[Row]:
    yield "stands in", f"item {one.location}" if one.location else "the main data set"
    if one.problem:
        yield "cannot be judged", one.problem
        return
    yield "elements unchanged", _yes(one.intact)
    yield "made with the key", _yes(one.genuine)
    yield "signer", one.signer
    yield "certified by", one.issuer
    yield "certificate SHA-256", one.fingerprint
    yield "key, digest", f"{one.key}, {one.algorithm}"
    yield "weak", "; ".join(one.weak) or "no"
    yield "signed, it says", _moment(one.claimed)
    yield "certified time", _time(one.timestamp)
    yield "signer trusted", f"no: {one.distrust}" if one.distrust else "yes"
    yield "at that time", _path(one.path)
    yield "now", _path(one.path_now)
    yield "purpose", _purpose(one.purpose)
    yield "profiles met", ", ".join(map(_profile, one.profiles)) or "none"
    for name, why in one.shortfalls.items():
        for reason in why:
            yield f"not {name}", reason
    coverage = one.coverage
    yield _tags("covered", coverage.signed)
    yield _tags("not covered", (*coverage.unsigned, *coverage.unsignable))
    if coverage.missing:
        yield _tags("signed, not there", coverage.missing)
    for remark in one.remarks:
        yield "remark", remark


def _tags(question: str, tags: tuple[int, ...]) -> Row:
    """Return tags by name; private ones, whose numbers say little, are counted (--json has all)."""
    shown = [tag_text(tag) for tag in sorted(tags) if not is_private(tag)]
    private = len(tags) - len(shown)
    shown += [f"{private} private ones"] if private else []
    return question, f"{len(tags)} elements" + (": " if tags else "") + ", ".join(shown)


def _rows(rows: Iterator[Row] | list[Row], indent: int) -> list[str]:
    """Return the rows in two columns, long answers on several lines, a question said once."""
    lines = []
    last = ""
    for question, answer in rows:
        shown = "" if question == last else question
        last = question
        head = " " * indent + shown.ljust(_QUESTION)
        wrapped = textwrap.wrap(one_line(answer), _WIDTH - len(head), break_on_hyphens=False)
        for line in wrapped or ["-"]:
            lines.append((head + line).rstrip())
            head = " " * len(head)
    return lines


def _yes(answer: bool) -> str:
    return "yes" if answer else "NO"


def _moment(moment: datetime | None) -> str:
    return "nothing readable" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _time(verdict: TimestampVerdict | None) -> str:
    if verdict is None:
        return "none: the time is the signer's word"
    if not verdict.valid:
        return f"counts for nothing: {verdict.reason}"
    return f"{_moment(verdict.time)}, by {verdict.authority}"


def _path(verdict: PathVerdict | None) -> str:
    if verdict is None:
        return "not asked"
    if verdict.trusted:
        return f"certificate good, revocation {verdict.revocation}"
    return verdict.reason


def _purpose(purpose: Purpose | None) -> str:
    if purpose is None:
        return "not stated"
    meaning = PURPOSES.get(purpose.code, "unknown")
    return f"{purpose.code} ({purpose.scheme}): {meaning}"


def _profile(name: str) -> str:
    return f"{name} ({PROFILES[name].section})"
