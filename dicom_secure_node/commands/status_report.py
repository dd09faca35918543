"""What `status` prints: a node's figures as one object, and as tables for people."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from dicom_secure_node.commands.output import table
from dicom_secure_node.node import measures
from dicom_secure_node.node.measures import Family
from dicom_secure_node.node.metrics import Sample, Snapshot, quantile

SOON_DAYS = 30
LITTLE_BYTES = 1e9  # of free space; far more than the node itself insists on

_DAY = 86_400
_PARTS = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
_TIMES = {
    "store": (measures.STORE_SECONDS, "C-STORE"),
    "association_setup": (measures.SETUP, "association set up"),
    "association_duration": (measures.DURATION, "association open"),
}


def summary(status: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of `SecureNode.status` in the shape of ``status --json``."""
    found: Snapshot = status["metrics"]
    now = float(status["at"])
    started = _value(found, measures.STARTED)
    return {
        "version": next(iter(_labels(found, measures.INFO)), ""),
        "pid": status["pid"],
        "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "uptime_seconds": round(now - started, 1),
        "connections": {"open": _value(found, measures.CONNECTIONS)},
        "associations": {
            "open": _value(found, measures.OPEN),
            **_by_word(found, measures.ASSOCIATIONS),
            **_by_word(found, measures.ENDED),
        },
        "stores": _by_word(found, measures.STORES),
        "stored_bytes": _value(found, measures.BYTES),
        "requests": {k: n for k, n in _by_word(found, measures.REQUESTS).items() if n},
        "refusals": _refusals(found, measures.REFUSALS),
        "observed": _refusals(found, measures.OBSERVED),
        "seconds": {
            name: _times(sample)
            for name, (family, _) in _TIMES.items()
            for sample in found.get(family.name, ())
        },
        "free_bytes": _by_word(found, measures.FREE),
        "repositories": _repositories(found, now),
        "spool_limit": _value(found, measures.SPOOL_LIMIT),
        "certificates": _certificates(found, now),
        "unreadable": [
            one["labels"]["file"]
            for one in found.get(measures.READABLE.name, ())
            if not one["value"]
        ],
    }


def _value(found: Snapshot, family: Family) -> Any:
    return sum(one["value"] for one in found.get(family.name, ()))


def _labels(found: Snapshot, family: Family) -> list[str]:
    return [str(value) for one in found.get(family.name, ()) for value in one["labels"].values()]


def _by_word(found: Snapshot, family: Family) -> dict[str, Any]:
    """Return the values of a family with one label, by its words."""
    (name,) = family.labels
    return {one["labels"][name]: one["value"] for one in found.get(family.name, ())}


def _refusals(found: Snapshot, family: Family) -> list[dict[str, Any]]:
    counted = [
        {**one["labels"], "count": one["value"]}
        for one in found.get(family.name, ())
        if one["value"]
    ]
    return sorted(counted, key=lambda one: -one["count"])


def _times(sample: Sample) -> dict[str, Any]:
    count = sum(sample["buckets"])
    return {
        "count": count,
        "mean": sample["sum"] / count if count else None,
        **{name: quantile(sample, part) for name, part in _PARTS.items()},
    }


def _repositories(found: Snapshot, now: float) -> list[dict[str, Any]]:
    waiting, connected, since, sent, dropped = (
        _by_word(found, family)
        for family in (
            measures.WAITING,
            measures.CONNECTED,
            measures.WAITING_SINCE,
            measures.SENT,
            measures.DROPPED,
        )
    )
    return [
        {
            "name": name,
            "connected": bool(connected.get(name)),
            "waiting": count,
            "oldest_waiting_seconds": round(max(0.0, now - since[name]), 1)
            if name in since
            else None,
            "sent": sent.get(name, 0),
            "dropped": dropped.get(name, 0),
        }
        for name, count in waiting.items()
    ]


def _certificates(found: Snapshot, now: float) -> list[dict[str, Any]]:
    """Return every certificate and list, the one that runs out first first."""
    ends = sorted(found.get(measures.EXPIRY.name, ()), key=lambda one: one["value"])
    return [
        {
            "role": one["labels"]["role"],
            "file": one["labels"]["file"],
            "number": int(one["labels"]["number"]),
            "not_after": datetime.fromtimestamp(one["value"], UTC).isoformat(timespec="seconds"),
            "days_left": math.floor((one["value"] - now) / _DAY),
        }
        for one in ends
    ]


def _unreadable(found: Snapshot) -> list[str]:
    files = found.get(measures.READABLE.name, ())
    return [one["labels"]["file"] for one in files if not one["value"]]


# -- for people ----------------------------------------------------------------------------


def as_text(shown: dict[str, Any]) -> str:
    """Return a summary as tables, with what needs somebody's attention on top."""
    parts = [
        f"dicom-secure-node {shown['version']}, process {shown['pid']}, "
        f"up {_lasting(shown['uptime_seconds'])} (since {shown['started']})",
        "\n".join(f"WARNING: {line}" for line in warnings(shown)),
        _traffic(shown),
        _counts("REFUSED AT", shown["refusals"]),
        _counts("WOULD REFUSE AT", shown["observed"]),
        _latencies(shown["seconds"]),
        _spool(shown),
        _ends(shown["certificates"]),
    ]
    return "\n\n".join(part for part in parts if part)


def warnings(shown: dict[str, Any]) -> list[str]:
    """Return in words what somebody should look at."""
    found = []
    for one in shown["certificates"]:
        days = one["days_left"]
        if days < SOON_DAYS and (one["role"] != "crl" or days < 1):
            # Lists are made anew every few days, as a rule.
            when = f"runs out in {days} days" if days >= 0 else "has run out"
            found.append(f"{one['file']} ({one['role']}) {when}, {one['not_after']}")
    found += [f"{file} cannot be read" for file in shown["unreadable"]]
    found += [
        f"{size / 1e6:.0f} MB free for {name}"
        for name, size in shown["free_bytes"].items()
        if size < LITTLE_BYTES
    ]
    for one in shown["repositories"]:
        if not one["connected"] and one["waiting"]:
            found.append(
                f"audit repository {one['name']} is not connected, {one['waiting']} messages wait"
            )
        if one["dropped"]:
            found.append(f"audit repository {one['name']} will not get {one['dropped']} messages")
    return found


def _traffic(shown: dict[str, Any]) -> str:
    stores, associations = shown["stores"], shown["associations"]
    rows = [
        ("associations", _words(associations)),
        ("C-STORE", _words(stores)),
        ("stored", f"{shown['stored_bytes'] / 1e6:.1f} MB"),
        ("other requests", _words(shown["requests"]) or "none"),
        ("connections", f"{shown['connections']['open']} open"),
        *((f"free, {name}", f"{size / 1e9:.1f} GB") for name, size in shown["free_bytes"].items()),
    ]
    return table(rows, ("WHAT", "HOW MANY"))


def _words(counts: dict[str, Any]) -> str:
    return ", ".join(f"{count} {word}" for word, count in counts.items())


def _counts(stage: str, refusals: list[dict[str, Any]]) -> str:
    rows = [(one["stage"], _meaning(one["reason"]), one["count"]) for one in refusals]
    return table(rows, (stage, "REASON", "COUNT")) if rows else ""


def _meaning(reason: str) -> str:
    meaning = measures.STATUSES.get(reason)
    return f"{reason} {meaning}" if meaning else reason


def _latencies(seconds: dict[str, dict[str, Any]]) -> str:
    rows = [
        (_TIMES[name][1], one["count"], *(_short(one[part]) for part in ("mean", *_PARTS)))
        for name, one in seconds.items()
        if one["count"]
    ]
    return table(rows, ("TIME", "COUNT", "MEAN", *map(str.upper, _PARTS))) if rows else ""


def _short(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _spool(shown: dict[str, Any]) -> str:
    rows = [
        (
            one["name"],
            "yes" if one["connected"] else "NO",
            f"{one['waiting']} of {shown['spool_limit']}",
            "" if (age := one["oldest_waiting_seconds"]) is None else _lasting(age),
            one["sent"],
            one["dropped"],
        )
        for one in shown["repositories"]
    ]
    headers = ("AUDIT REPOSITORY", "CONNECTED", "WAITING", "OLDEST", "SENT", "DROPPED")
    return table(rows, headers) if rows else ""


def _ends(certificates: list[dict[str, Any]]) -> str:
    rows = [
        (one["days_left"], one["role"], one["file"], one["number"], one["not_after"])
        for one in certificates
    ]
    return table(rows, ("DAYS LEFT", "ROLE", "FILE", "NUMBER", "UNTIL")) if rows else ""


def _lasting(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
