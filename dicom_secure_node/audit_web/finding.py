"""The records that answer a question, and those worth a look first."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from dicom_secure_node.audit.collecting.records import Filter, Record
from dicom_secure_node.audit.collecting.store import RecordStore
from dicom_secure_node.spec.audit import SECURITY_ALERT


def matching(
    store: RecordStore, asked: Filter, *, before: int | None = None, limit: int | None = None
) -> Iterator[Record]:
    """Yield the records that match, newest first."""
    return store.query(asked, before=before, limit=limit)


def troubles(
    store: RecordStore, asked: Filter, *, before: int | None = None, limit: int | None = None
) -> Iterator[Record]:
    """Yield of the records that match the failures and all Security Alerts, newest first.

    An alert can have the outcome 0, informative (A.5.3.11); it is no less of an alert.
    """
    parts = [store.query(replace(asked, failures=True), before=before, limit=limit)]
    if asked.event in ("", SECURITY_ALERT.value) and not asked.failures:
        alerts = replace(asked, event=SECURITY_ALERT.value)
        parts.append(store.query(alerts, before=before, limit=limit))
    return islice(_each_once(heapq.merge(*parts, key=lambda one: -one.sequence)), limit)


def _each_once(records: Iterator[Record]) -> Iterator[Record]:
    last = -1
    for record in records:
        if record.sequence != last:
            yield record
        last = record.sequence
