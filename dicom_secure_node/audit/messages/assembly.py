"""Every message is put together here, and its table in PS3.15 A.5.3 decides.

`build` takes the facts by the names of the table's entities and reads from `spec.audit` what they
become: codes of event and roles, how many of each there must and may be, who may be marked as
requestor. What the table does not allow is a ValueError, a thing of another kind a TypeError: a
message that leaves here can be written, and the validator finds nothing in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any, TypeAlias, TypedDict, TypeVar

from dicom_secure_node.audit.model import (
    SUCCESS,
    AuditMessage,
    Participant,
    ParticipantObject,
)
from dicom_secure_node.spec import audit as spec
from dicom_secure_node.spec.audit import Code

T = TypeVar("T")

Some: TypeAlias = T | Iterable[T]  # one of them, or several


class Facts(TypedDict, total=False):
    """What may be said of any event.

    Attributes
    ----------
    outcome : int
        0 success (the default), 4 minor, 8 serious, 12 major failure. Partly failed: build two
        messages (A.5.2).
    reason : str
        EventOutcomeDescription: why, in words; no secret.
    when : datetime
        When it happened, aware; by default when it is reported.
    """

    outcome: int
    reason: str
    when: datetime | None


@dataclass(frozen=True, slots=True)
class _Entity:
    """One kind of participant or object of a table."""

    name: str  # for errors: section and key
    least: int
    most: int | None
    bystander: bool = False  # UserIsRequestor is fixed to false
    role: Code | None = None  # the RoleIDCode it has to carry
    fits: Callable[[ParticipantObject], bool] = lambda _: True


@dataclass(frozen=True, slots=True)
class _Table:
    """One table of A.5.3, made ready."""

    section: str
    event: Code
    actions: tuple[str, ...]
    kinds: frozenset[Code]  # EventTypeCode; empty: the table wants none
    closed: bool  # no codes of other systems there
    requestors: tuple[int, int]
    participants: Mapping[str, _Entity]
    objects: Mapping[str, _Entity]


def build(
    key: str,
    participants: Mapping[str, Some[Participant] | None],
    objects: Mapping[str, Some[ParticipantObject]] | None = None,
    *,
    action: str | None = None,
    kind: Code | None = None,
    outcome: int = SUCCESS,
    reason: str = "",
    when: datetime | None = None,
) -> AuditMessage:
    """Return the message of table `key`, e.g. ``data_export``.

    Parameters
    ----------
    participants, objects : mapping
        By the keys of the table's entities; written in the order of the table.
    action : str, optional
        EventActionCode, where the table leaves a choice.
    kind : Code, optional
        EventTypeCode.

    Raises
    ------
    ValueError
        The table does not allow it: found, wanted, and section.
    TypeError
        Something in the mappings is neither participant nor object.
    """
    table = _tables()[key]
    who = [
        _as(entity, one, table)
        for name, entity in table.participants.items()
        for one in _several(entity, participants.get(name), Participant)
    ]
    things = [
        _fitting(entity, one)
        for name, entity in table.objects.items()
        for one in _several(entity, (objects or {}).get(name), ParticipantObject)
    ]
    least, most = table.requestors
    marked = sum(one.requestor for one in who)
    if not least <= marked <= most:
        wanted = "exactly one" if least else "at most one"
        raise ValueError(f"{marked} requestors, wanted {wanted} ({table.section})")
    action = _action(table, action)
    types = _types(table, kind)
    return AuditMessage(
        table.event, action, tuple(who), tuple(things), types, outcome, reason, when
    )


def _several(entity: _Entity, given: Some[T] | None, kind: type[T]) -> list[T]:
    """Return what is given of an entity, as many as the table allows."""
    if isinstance(given, kind):
        found: list[T] = [given]
    else:  # mypy does not see that `given` is no T any more
        found = [] if given is None else list(given)  # type: ignore[arg-type]
    for one in found:
        if not isinstance(one, kind):
            raise TypeError(f"found {type(one).__name__}, wanted {kind.__name__} ({entity.name})")
    if len(found) < entity.least or (entity.most is not None and len(found) > entity.most):
        most = "or more" if entity.most is None else f"to {entity.most}"
        raise ValueError(f"found {len(found)}, wanted {entity.least} {most} ({entity.name})")
    return found


def _as(entity: _Entity, who: Participant, table: _Table) -> Participant:
    """Return `who` with the role of the entity, and no requestor where none may be."""
    for other in table.participants.values():
        if other.role is not None and other.role != entity.role and other.role in who.roles:
            raise ValueError(f"has the role of {other.name}, wanted another one ({entity.name})")
    if entity.bystander and who.requestor:
        who = replace(who, requestor=False)
    if entity.role is not None and entity.role not in who.roles:
        who = replace(who, roles=(entity.role, *who.roles))
    return who


def _fitting(entity: _Entity, thing: ParticipantObject) -> ParticipantObject:
    if not entity.fits(thing):
        raise ValueError(f"found an object of another kind, wanted {entity.name}")
    return thing


def _action(table: _Table, action: str | None) -> str:
    if action is None and len(table.actions) == 1:
        return table.actions[0]
    if action not in table.actions:
        raise ValueError(
            f"action {action!r}, wanted {' or '.join(table.actions)} ({table.section})"
        )
    return action


def _types(table: _Table, kind: Code | None) -> tuple[Code, ...]:
    if kind is None and not table.kinds:
        return ()
    # Groups and defined terms may be extended by codes of other systems, enumerated values not.
    foreign = kind is not None and kind.system != "DCM" and not table.closed
    if kind is None or not (foreign or kind in table.kinds):
        found = "nothing" if kind is None else repr(kind.meaning)
        raise ValueError(f"found {found}, wanted an event type of the table ({table.section})")
    return (kind,)


# --- The tables, made ready ---


@cache
def _tables() -> Mapping[str, _Table]:
    return {row["key"]: _table(row) for row in spec.messages().values()}


def _table(row: Mapping[str, Any]) -> _Table:
    event = row["event"]
    kinds = event.get("EventTypeCode", {})
    limits = row["requestor"]
    return _Table(
        row["section"],
        _codes(event["EventID"])[0],
        tuple(event["EventActionCode"]["values"]),
        frozenset(spec.group(kinds["cid"]).values() if "cid" in kinds else _codes(kinds)),
        kinds.get("term") == "EV",
        (limits["min_true"], limits["max_true"]),
        {one["key"]: _participant(row, one) for one in row["participants"]},
        {one["key"]: _object(row, one) for one in row["objects"]},
    )


def _participant(row: Mapping[str, Any], entity: Mapping[str, Any]) -> _Entity:
    fields = entity["fields"]
    roles = _codes(fields.get("RoleIDCode", {}))
    bystander = fields.get("UserIsRequestor", {}).get("fixed") is False
    name = f"{row['section']} {entity['key']}"
    return _Entity(name, entity["min"], entity["max"], bystander, roles[0] if roles else None)


def _object(row: Mapping[str, Any], entity: Mapping[str, Any]) -> _Entity:
    fields = entity["fields"]
    kinds = fields["ParticipantObjectIDTypeCode"]
    codes = _codes(kinds)
    open_ended = kinds.get("term") == "DT"
    type_code = fields["ParticipantObjectTypeCode"]["fixed"]
    roles = fields["ParticipantObjectTypeCodeRole"]["values"]

    def fits(thing: ParticipantObject) -> bool:
        return (
            str(thing.type_code) == type_code
            and str(thing.role) in roles
            and (open_ended or thing.id_type in codes)
        )

    name = f"{row['section']} {entity['key']}"
    return _Entity(name, entity["min"], entity["max"], fits=fits)


def _codes(field: Mapping[str, Any]) -> list[Code]:
    return [Code(value, meaning, system) for value, system, meaning in field.get("codes", ())]
