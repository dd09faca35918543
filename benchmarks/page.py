"""What a run has found as sections of a page."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.tables import CALL_PAIRS, CALLS, NOT_OFFERED, STORES, Found

_READING = (
    "Median (lowest to highest) of the rounds; a ratio is that of the ratios of each round.\n"
)


def text(found: Found, pictures: Sequence[Path], page: Path | None) -> str:
    """Return the sections of the tables that were measured, and the facts.

    Parameters
    ----------
    found : Found
    pictures : sequence of Path
    page : Path, optional
        The page all this is for: links to pictures begin there.
    """
    start = page.parent if page is not None else Path()
    parts = [*_peers(found), *_floor(found), *_memory(found), *_links(pictures, start)]
    parts += [*_plug_in(found), *_calls(found), *_signed(found), *_synced(found)]
    return "\n".join((*parts, "### The machine\n", report.facts(found.facts)))


def _peers(found: Found) -> Iterator[str]:
    if rows := found.rows.get("peers"):
        yield "### Against the peers\n"
        yield _READING
        yield report.rates(rows, STORES["peers"].pairs)
        yield "### Processor time\n"
        yield "Of the receiver, its children included (median).\n"
        yield report.processor(rows)


def _floor(found: Found) -> Iterator[str]:
    if found.floor:
        yield "Below these no receiver in Python gets, for it is C code that does the work:\n"
        cells = [[name, f"{seconds:.2f}"] for name, seconds in found.floor.items()]
        cells.append(["together", f"{sum(found.floor.values()):.2f}"])
        yield report.table(["each by itself", "s per GiB"], cells)


def _memory(found: Found) -> Iterator[str]:
    if rows := found.rows.get("peers"):
        yield "### Memory\n"
        yield "Peak of resident memory (highest); of several processes that of the largest.\n"
        yield report.memory(rows)


def _links(pictures: Sequence[Path], start: Path) -> Iterator[str]:
    for path in pictures:
        title = path.stem.replace("-", ", ", 1).capitalize()
        yield f"![{title}]({Path(os.path.relpath(path, start)).as_posix()})\n"


def _plug_in(found: Found) -> Iterator[str]:
    if rows := found.rows.get("plug-in"):
        yield "### On an application's own server\n"
        yield (
            "The same handler writes the same files: on pynetdicom's server, on `SecureNode`'s "
            "with a handler that wants to see each PDU, and on `SecureNode`'s.\n"
        )
        yield report.rates(rows, STORES["plug-in"].pairs)
        yield report.processor(rows)


def _calls(found: Found) -> Iterator[str]:
    if rows := found.rows.get(CALLS):
        yield "### Associations\n"
        yield "TLS 1.3 with both certificates of one kind, C-ECHO, release.\n"
        yield report.rates(rows, CALL_PAIRS)
        yield report.processor(rows)
        yield "With callers that resume their last session:\n"
        yield report.rates(found.resumed, (), NOT_OFFERED, list(rows[0].rates))


def _signed(found: Found) -> Iterator[str]:
    if rows := found.rows.get("signed"):
        yield "### With every instance signed\n"
        yield (
            "Creator RSA signatures (PS3.15 C.2, RSA 2048, SHA-256); one node does not look at "
            "them, the other demands and verifies them on receipt.\n"
        )
        yield report.rates(rows, STORES["signed"].pairs)


def _synced(found: Found) -> Iterator[str]:
    if rows := found.rows.get("synced"):
        yield "### What syncing to a disk costs\n"
        yield report.rates(rows, STORES["synced"].pairs)
