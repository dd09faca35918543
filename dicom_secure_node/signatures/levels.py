"""Find the signatures of an instance and compute what they have to be compared with.

A signature stands in the data set or in an item of a sequence, and covers elements of that level
only. `Level` is one such place with everything it takes to judge its signatures; `levels_of`
finds them all in a `Source`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from dicom_secure_node.elements.explicit import Element, Reader
from dicom_secure_node.elements.walk import UNDEFINED
from dicom_secure_node.errors import InvalidDataSet
from dicom_secure_node.signatures.items import (
    MacParameters,
    SignatureItem,
    mac_parameters,
    signature_items,
)
from dicom_secure_node.signatures.mac import (
    DIGITAL_SIGNATURES,
    Hash,
    Mac,
    Variant,
    feed,
    may_be_cut_elsewhere,
    new_hash,
    signable_tags,
)
from dicom_secure_node.signatures.places import places_with
from dicom_secure_node.signatures.source import Source
from dicom_secure_node.spec.signatures import MAC_ALGORITHMS

MAX_SIGNATURES = 100  # of one instance that are looked at
MAX_MACS = 16  # of one level that are computed
MAX_PRESENT = 20_000  # elements of a level with signatures; each signature is compared with all
MAX_HASHED = 16  # times the size of the instance, all its MACs together
_ALWAYS_HASHED = 64 << 20  # bytes
_NOT_IN_A_DATA_SET = (0x0000, 0x0002)  # groups of commands and of File Meta Information
_LAST_OF_THEM = 0x0002FFFF


@dataclass
class Level:
    """One place that holds signatures.

    Attributes
    ----------
    location : str
        Empty for the main data set; else e.g. ``(0040,A730)[2]``, items counted from 1.
    present : tuple of int
        Tags of this level, in encoded order.
    signable : frozenset of int
        Those of them that may be signed.
    uncertain : frozenset of int
        Those whose fragments may have been cut elsewhere (`mac.may_be_cut_elsewhere`).
    macs : list of MacParameters
    signatures : list of SignatureItem
    digests : dict
        Of the stream of each usable MAC, by its place in `macs`, without what the signature's
        item adds.
    again : callable
        Computes one of them anew under a `Variant`; None where that would be too much work.
    problem : str
        Why this level cannot be judged; empty when it can.
    not_looked_at : int
        Signatures beyond the bound.
    """

    location: str
    present: tuple[int, ...] = ()
    signable: frozenset[int] = frozenset()
    uncertain: frozenset[int] = frozenset()
    macs: list[MacParameters] = field(default_factory=list)
    signatures: list[SignatureItem] = field(default_factory=list)
    digests: dict[int, Hash] = field(default_factory=dict)
    again: Callable[[MacParameters, Variant], Hash | None] | None = None
    problem: str = ""
    not_looked_at: int = 0


class Bounds:
    """What may still be spent on one instance.

    Parameters
    ----------
    size : int
        Of the instance, in bytes.
    """

    def __init__(self, size: int) -> None:
        self.signatures = MAX_SIGNATURES
        self._bytes = max(MAX_HASHED * size, _ALWAYS_HASHED)

    def spend(self, count: int) -> bool:
        """Take note that `count` bytes are to be hashed; tell whether that is still allowed."""
        self._bytes -= count
        return self._bytes >= 0


def levels_of(source: Source) -> list[Level]:
    """Return every level of an instance that holds signatures, the main data set first.

    What is malformed is said in the level it concerns (`Level.problem`); nothing is raised.
    """
    reader = source.reader
    bounds = Bounds(len(reader.buffer))
    found = []
    if any(element.tag == DIGITAL_SIGNATURES for element in source.elements):
        found.append(read_level("", reader, source.elements, bounds))
    return found + nested_levels(reader, source.elements, bounds)


def nested_levels(reader: Reader, elements: Iterable[Element], bounds: Bounds) -> list[Level]:
    """Return the levels inside the sequences among `elements` that hold signatures."""
    return [
        read_level(place.location, reader, place.elements, bounds)
        if not place.problem
        else Level(place.location, problem=place.problem)
        for place in places_with(DIGITAL_SIGNATURES, reader, elements)
    ]


def read_level(location: str, reader: Reader, elements: list[Element], bounds: Bounds) -> Level:
    """Return a level with its MACs computed."""
    level = Level(location, tuple(element.tag for element in elements))
    try:
        read_macro(level, reader, elements, bounds)
        level.signable = signable_tags(reader, elements)
        level.uncertain = frozenset(
            e.tag for e in elements if e.length == UNDEFINED and may_be_cut_elsewhere(reader, e)
        )
        wanted = computable(level)
        if not bounds.spend(_extent(elements) * len(wanted)):
            raise InvalidDataSet("more MACs than are worth computing", "fewer", location)
        macs = [Mac(frozenset(p.tags), hash_of(p)) for _, p in wanted]
        feed(reader, elements, macs, level.signable)
        level.digests = {place: mac.hash for (place, _), mac in zip(wanted, macs, strict=True)}
    except InvalidDataSet as exc:
        level.problem = str(exc)

    level.again = _again(reader, elements, level.signable, bounds)
    return level


def _again(
    reader: Reader, elements: list[Element], signable: frozenset[int], bounds: Bounds
) -> Callable[[MacParameters, Variant], Hash | None]:
    """Return what computes a MAC in another way, each only once and within bounds.

    It must not hold the level that holds it: the instance would stay in memory until the garbage
    collector comes.
    """
    computed: dict[tuple[MacParameters, Variant], Hash] = {}

    def again(parameters: MacParameters, variant: Variant) -> Hash | None:
        known = computed.get((parameters, variant))
        if known is None and bounds.spend(_extent(elements)):
            mac = Mac(frozenset(parameters.tags), hash_of(parameters))
            feed(reader, elements, [mac], signable, variant)
            known = computed[parameters, variant] = mac.hash
        return known

    return again


def _extent(elements: list[Element]) -> int:
    return elements[-1].end - elements[0].start


def read_macro(level: Level, reader: Reader, elements: Iterable[Element], bounds: Bounds) -> None:
    """Read MAC parameters and signatures of a level, within bounds.

    Raises
    ------
    InvalidDataSet
        See `check_tags`; or a sequence of the macro is none.
    """
    elements = list(elements)
    check_tags(level.present)
    level.macs = mac_parameters(reader, elements, MAX_SIGNATURES)
    level.signatures, there = signature_items(reader, elements, bounds.signatures)
    level.not_looked_at = there - len(level.signatures)
    bounds.signatures -= len(level.signatures)


def check_tags(tags: Sequence[int]) -> None:
    """Refuse a level in which readers would not agree on what is there.

    Raises
    ------
    InvalidDataSet
        An element is there twice: the first or the last one may count. Tags do not ascend: some
        readers stop at the first one beyond what they look for. An element belongs to a command
        or a file's header: written to a file, the data set would begin with more header. Or there
        are too many.
    """
    if len(tags) > MAX_PRESENT:
        raise InvalidDataSet(f"{len(tags)} elements", f"at most {MAX_PRESENT}, being signed")
    before = -1
    for tag in tags:
        if tag <= before:
            _check_once(tags)
            raise InvalidDataSet(
                f"{_named(tag)} after {_named(before)}", "ascending tags", clause="PS3.5 7.1"
            )
        before = tag
    for tag in tags:
        if tag > _LAST_OF_THEM:
            break
        if tag >> 16 in _NOT_IN_A_DATA_SET:
            raise InvalidDataSet(
                _named(tag), "elements of a data set", clause="PS3.7 6.3, PS3.10 7.1"
            )


def _check_once(tags: Sequence[int]) -> None:
    for before, tag in pairwise(sorted(tags)):
        if before == tag:
            raise InvalidDataSet("an element twice", "once", _named(tag), "PS3.5 7.1")


def _named(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def computable(level: Level) -> list[tuple[int, MacParameters]]:
    """Return the MACs that signatures of the level refer to and that can be computed."""
    used = {item.mac_id for item in level.signatures if not item.problem}
    usable = [
        (place, one)
        for place, one in enumerate(level.macs)
        if not one.problem and one.mac_id in used and one.algorithm in MAC_ALGORITHMS
    ]
    return usable[:MAX_MACS]


def hash_of(parameters: MacParameters) -> Hash:
    """Return an empty digest of the algorithm that MAC parameters name."""
    return new_hash(MAC_ALGORITHMS[parameters.algorithm].hashlib)


def variants_of(level: Level) -> Iterator[Variant]:
    """Yield the other ways products have computed a stream."""
    if level.again is not None:
        yield from (variant for variant in Variant if variant is not Variant.PLAIN)
