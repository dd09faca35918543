"""What the profiles of Annex C ask of an instance besides its tags."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dicom_secure_node.elements.explicit import Element, Item, Reader
from dicom_secure_node.errors import InvalidDataSet

SOP_CLASS = 0x00080016
SOP_INSTANCE = 0x00080018
VERIFYING_OBSERVERS = 0x0040A073
VERIFICATION_FLAG = 0x0040A493
CURRENT_EVIDENCE = 0x0040A375
OTHER_EVIDENCE = 0x0040A385
REFERENCED_SERIES = 0x00081115
REFERENCED_SOP = 0x00081199
REFERENCED_MAC = 0x04000403
MAC_ALGORITHM = 0x04000015

_LONGEST = 64  # bytes: a UID


@dataclass(frozen=True)
class InstanceFacts:
    """Values of the main data set, without padding; empty where absent.

    Attributes
    ----------
    sop_class, sop_instance, transfer_syntax : str
        UIDs.
    verification_flag : str
        (0040,A493).
    verifying_observers : int
        Items of (0040,A073).
    reference_algorithms : frozenset of str
        MAC Algorithm of each (0400,0403) Referenced SOP Instance MAC Sequence in the evidence.
    """

    sop_class: str = ""
    sop_instance: str = ""
    transfer_syntax: str = ""
    verification_flag: str = ""
    verifying_observers: int = 0
    reference_algorithms: frozenset[str] = frozenset()


def instance_facts(
    reader: Reader, elements: Iterable[Element], transfer_syntax: str
) -> InstanceFacts:
    """Return the facts of a main data set; what is malformed counts as absent."""
    by_tag = {element.tag: element for element in elements}
    observers = by_tag.get(VERIFYING_OBSERVERS)
    return InstanceFacts(
        sop_class=_text(reader, by_tag.get(SOP_CLASS)),
        sop_instance=_text(reader, by_tag.get(SOP_INSTANCE)),
        transfer_syntax=transfer_syntax,
        verification_flag=_text(reader, by_tag.get(VERIFICATION_FLAG)),
        verifying_observers=len(_items(reader, observers)),
        reference_algorithms=frozenset(_reference_algorithms(reader, by_tag)),
    )


def _reference_algorithms(reader: Reader, by_tag: dict[int, Element]) -> Iterable[str]:
    for tag in (CURRENT_EVIDENCE, OTHER_EVIDENCE):
        for study in _items(reader, by_tag.get(tag)):
            for series in _items(reader, _inside(study, REFERENCED_SERIES), 2):
                for instance in _items(reader, _inside(series, REFERENCED_SOP), 3):
                    for mac in _items(reader, _inside(instance, REFERENCED_MAC), 4):
                        yield _text(reader, _inside(mac, MAC_ALGORITHM))


def _inside(item: Item, tag: int) -> Element | None:
    return next((element for element in item.elements if element.tag == tag), None)


def _items(reader: Reader, sequence: Element | None, depth: int = 1) -> list[Item]:
    if sequence is None or sequence.vr != b"SQ":
        return []
    try:
        return reader.items(sequence, depth)
    except InvalidDataSet:
        return []


def _text(reader: Reader, element: Element | None) -> str:
    if element is None or element.end - element.value > _LONGEST:
        return ""
    value = bytes(reader.buffer[element.value : element.end])
    return value.decode("ascii", "replace").strip("\0 ")
