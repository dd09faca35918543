"""The report on one audit message, for people and for machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dicom_secure_node.audit.grammar import Problem
from dicom_secure_node.audit.rulebook import clause, sentence
from dicom_secure_node.audit.validate import PROBLEM_LIMIT, Report


def as_json(label: str, report: Report) -> dict[str, object]:
    """Return the report as a value for JSON; absent keys would be harder to use than empty ones."""
    return {
        "path": label,
        "valid": report.valid,
        "dialect": report.dialect.key if report.dialect else None,
        "problems": [_json(one) for one in report.problems],
        "own_rules": [_json(one) for one in report.own],
        "advice": [_json(one) for one in report.advice],
    }


def _json(problem: Problem) -> dict[str, object]:
    return {
        "rule": problem.rule,
        "clause": clause(problem.rule),
        "says": sentence(problem.rule),
        "where": problem.where,
        "line": problem.line or None,
        "found": problem.found,
        "wanted": problem.wanted,
        "dialect": problem.dialect or None,
        "change": problem.change or None,
    }


def as_text(label: str, report: Report) -> Iterator[str]:
    """Yield the report's lines: the verdict first, breaches grouped by whose they are."""
    yield f"{label}: {_verdict(report)}"
    dialect = report.dialect
    if dialect is not None:
        differs = dict.fromkeys(
            habit.differs
            for habit in dialect.habits
            if any(one.change == habit.change for one in report.of_dialect)
        )
        yield f"  this is {dialect.title}" + (
            ", of which PS3.15 A.5 differs in:" if differs else ""
        )
        yield from (f"    - {words}" for words in differs)
        yield from _group(f"breaks PS3.15, as {dialect.key} does", report.of_dialect)
        yield from _group(f"breaks even {dialect.key}", report.beyond_dialect)
    else:
        yield from _group("", report.problems)
    yield from _group("advice, no breach", report.advice)


def _verdict(report: Report) -> str:
    if report.valid:
        return "valid"
    count = len(report.problems)
    more = "or more " if count == PROBLEM_LIMIT else ""
    words = f"NOT VALID: {count} {more}breach{'es' * (count > 1)} of PS3.15"
    if report.dialect is not None:
        words += f", {len(report.of_dialect)} of them habits of {report.dialect.key}"
        rest = len(report.beyond_dialect)
        words += f"; {rest} break{'s' * (rest == 1)} even {report.dialect.key}" if rest else ""
    return words


def _group(title: str, problems: Sequence[Problem]) -> Iterator[str]:
    """Yield the breaches below their rule, and what cures them."""
    if problems and title:
        yield f"  {title}:"
    indent = "    " if title else "  "
    for rule in dict.fromkeys(one.rule for one in problems):
        yield f"{indent}{rule}: {sentence(rule)} ({clause(rule)})"
        for one in problems:
            if one.rule == rule:
                line = f"line {one.line} " if one.line else ""
                yield f"{indent}  {line}{one.where}: found {one.found}, wanted {one.wanted}"
    changes = dict.fromkeys(one.change for one in problems if one.change)
    yield from (f"{indent}to change: {words}" for words in changes)
