"""Counting, cheaply and from many threads; snapshots of it, and what they come to together.

A snapshot is plain data, so that it can go through a pipe or become JSON::

    {"dicom_node_associations_total": [{"labels": {"outcome": "accepted"}, "value": 3}, ...],
     "dicom_node_store_seconds": [{"labels": {}, "bounds": [0.001, ...],
                                   "buckets": [0, 2, ...], "sum": 0.004}], ...}

A histogram has one bucket more than bounds, for what is above the last; none counts what
another one does.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dicom_secure_node.node.measures import BY_NAME, FAMILIES, OPEN, OTHER, Family, Labels

logger = logging.getLogger(__name__)

Sample = dict[str, Any]
Snapshot = dict[str, list[Sample]]
Reading = tuple[Family, Labels, float]

_COMBINED: dict[str, Callable[[float, float], float]] = {
    "sum": lambda one, other: one + other,
    "least": min,
    "greatest": max,
}


class _Histogram:
    """How many values fell between each two bounds, and their sum."""

    __slots__ = ("bounds", "buckets", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.sum = 0.0


class Metrics:
    """The figures of one process.

    Every series of a fixed set is there from the start, at zero, so that the first refusal of a
    kind is seen as a change.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, dict[Labels, float]] = {OPEN.name: {(): 0}}
        self._histograms: dict[str, _Histogram] = {}
        self._sources: list[Callable[[], Iterable[Reading]]] = []
        for family in FAMILIES:
            if family.kind == "histogram":
                self._histograms[family.name] = _Histogram(family.bounds)
            elif family.kind == "counter":
                self._values[family.name] = dict.fromkeys(family.series, 0)

    def add(self, family: Family, *labels: str, amount: float = 1) -> None:
        """Add to a counter, or to a gauge that goes up and down by what happens.

        A value that is not among the family's own is counted as ``other``, or not at all where
        there is no such series.
        """
        with self._lock:
            values = self._values[family.name]
            if labels not in values:
                labels = (*labels[:-1], OTHER)
                if labels not in values:
                    return
            values[labels] += amount

    def observe(self, family: Family, seconds: float) -> None:
        """Put a duration into a histogram."""
        bucket = bisect_left(family.bounds, seconds)
        with self._lock:
            histogram = self._histograms[family.name]
            histogram.buckets[bucket] += 1
            histogram.sum += seconds

    def source(self, read: Callable[[], Iterable[Reading]]) -> None:
        """Have `read` called at each snapshot, for values that are looked up and not counted."""
        self._sources.append(read)

    def snapshot(self) -> Snapshot:
        """Return every figure as of now, as plain data that nobody changes later."""
        taken: Snapshot = {}
        with self._lock:
            for name, values in self._values.items():
                names = BY_NAME[name].labels
                taken[name] = [_sample(names, *one) for one in values.items()]
            for name, histogram in self._histograms.items():
                taken[name] = [
                    {
                        "labels": {},
                        "bounds": list(histogram.bounds),
                        "buckets": list(histogram.buckets),
                        "sum": histogram.sum,
                    }
                ]
        for read in self._sources:
            try:
                for family, labels, value in read():
                    taken.setdefault(family.name, []).append(_sample(family.labels, labels, value))
            except Exception as exc:  # one figure that cannot be had hides no other
                logger.error("figures cannot be read: %s", type(exc).__name__)
        return taken


def _sample(names: tuple[str, ...], labels: Labels, value: float) -> Sample:
    return {"labels": dict(zip(names, labels, strict=True)), "value": value}


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Return what the snapshots of several processes of one node come to together."""
    merged: dict[str, dict[Labels, Sample]] = {}
    for snapshot in snapshots:
        for name, samples in snapshot.items():
            series = merged.setdefault(name, {})
            for sample in samples:
                key = tuple(sample["labels"].values())
                before = series.get(key)
                series[key] = sample if before is None else _together(name, before, sample)
    return {name: list(series.values()) for name, series in merged.items()}


def _together(name: str, one: Sample, other: Sample) -> Sample:
    if "buckets" in one:
        return {
            **one,
            "buckets": [a + b for a, b in zip(one["buckets"], other["buckets"], strict=True)],
            "sum": one["sum"] + other["sum"],
        }
    combined = _COMBINED[BY_NAME[name].over_all]
    return {**one, "value": combined(one["value"], other["value"])}


def check(snapshot: Any) -> None:
    """Raise ValueError unless this is a snapshot: one of ours can be merged with it, and shown.

    Parameters
    ----------
    snapshot : object
        From a process that may not be trusted.
    """
    try:
        for name, samples in snapshot.items():
            family = BY_NAME[name]
            for sample in samples:
                _check_sample(family, sample)
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise ValueError(f"no snapshot of figures: {type(exc).__name__}") from exc


def _check_sample(family: Family, sample: Sample) -> None:
    numbers = [sample["sum"], *sample["buckets"]] if "buckets" in sample else [sample["value"]]
    words = tuple(sample["labels"].values())
    if (
        tuple(sample["labels"]) != family.labels
        or (family.series and words not in family.series)
        or not all(isinstance(one, int | float) for one in numbers)
        or not all(isinstance(one, str) for one in words)
        or (family.kind == "histogram") is not ("buckets" in sample)
        or tuple(sample.get("bounds", ())) != family.bounds
        or len(sample.get("buckets", ())) != len(family.bounds) + (family.kind == "histogram")
    ):
        raise ValueError(family.name)


def quantile(histogram: Mapping[str, Any], part: float) -> float | None:
    """Return an estimate of a quantile in seconds, as Prometheus makes it; None without values.

    Within a bucket values are taken to lie evenly. What is above the last bound is said to be
    that bound: there is nothing to estimate from.

    Parameters
    ----------
    histogram : mapping
        A histogram's sample of a snapshot.
    part : float
        0 to 1; 0.95 is what 95 of 100 do not exceed.
    """
    bounds, buckets = histogram["bounds"], histogram["buckets"]
    wanted = part * sum(buckets)
    if not wanted:
        return None
    below = 0
    for position, (bound, count) in enumerate(zip(bounds, buckets, strict=False)):
        if count and below + count >= wanted:
            low = bounds[position - 1] if position else 0.0
            return float(low + (bound - low) * (wanted - below) / count)
        below += count
    return float(bounds[-1])
