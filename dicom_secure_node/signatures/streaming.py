"""Compute the MACs of a data set while it comes in, so that nobody has to read it again.

MAC Parameters (4FFE,0001) stand before nearly everything that is large: pixel data, waveforms,
overlays. What comes before them is kept, at most a mebibyte; once they are known, the digests
run, and a large value goes through them and is gone. Signatures inside sequences are computed
from what was kept, at the end.

Where that does not work the stream gives up, and who wants to know reads the data set from where
it was put: another encoding than explicit VR little endian, a large value before the MAC
parameters (an encapsulated document), sequences beyond the mebibyte, and whatever is malformed,
so that there is one place only where a fault is put into words.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from dicom_secure_node.elements.explicit import Element, Reader
from dicom_secure_node.elements.syntax import EXPLICIT_LITTLE, encoding_of
from dicom_secure_node.elements.walk import (
    ITEM,
    SEQUENCE_DELIMITER,
    SHORT_VRS,
    UNDEFINED,
    Truncated,
    end_of_undefined,
)
from dicom_secure_node.errors import InvalidDataSet
from dicom_secure_node.signatures.facts import InstanceFacts, instance_facts
from dicom_secure_node.signatures.items import MacParameters, mac_parameters
from dicom_secure_node.signatures.levels import (
    MAX_MACS,
    Bounds,
    Level,
    hash_of,
    nested_levels,
    read_macro,
)
from dicom_secure_node.signatures.mac import (
    DIGITAL_SIGNATURES,
    ITEM_TAG,
    MAC_PARAMETERS,
    SEQUENCE_END,
    Mac,
    feed,
    may_be_listed,
    signable_tags,
)
from dicom_secure_node.spec.signatures import MAC_ALGORITHMS

LARGE = 1 << 16  # bytes: a value from here on is not kept
KEPT = 1 << 20  # bytes kept of one instance

_HEADER = struct.Struct("<HH2sH")
_LENGTH = struct.Struct("<L")
_ITEM_HEADER = struct.Struct("<HHL")
_FAR = 1 << 62  # beyond any data set


class Streamed(NamedTuple):
    """What came of a stream: enough to judge every signature, without the data set."""

    facts: InstanceFacts
    levels: list[Level]


class SignatureStream:
    """Sees the bytes of one data set as they come in; for one thread at a time.

    Parameters
    ----------
    transfer_syntax : str
        UID, of the presentation context.
    """

    def __init__(self, transfer_syntax: str) -> None:
        self._syntax = transfer_syntax
        self._gave_up = encoding_of(transfer_syntax) != EXPLICIT_LITTLE
        self._total = 0
        self._run = bytearray()  # from the first element that is not complete
        self._looked = 0  # in it, where the first one begins whose end is not there yet
        self._look_again = 0  # length of it from which on another look is worth while
        self._kept: list[bytes] = []  # complete elements
        self._kept_size = 0
        self._passed: list[tuple[int, bool]] = []  # tag, may be signed; of values passed on
        self._order: list[int] = []  # all tags
        self._parameters: list[MacParameters] | None = None  # None: may still come
        self._macs: dict[int, Mac] = {}  # by their place in `_parameters`
        self._listening: list[Mac] = []  # to the value going by
        self._left = 0  # bytes of the value or fragment going by
        self._in_fragments = False
        self._last = b""  # bytes of the fragment going by
        self._uncertain: set[int] = set()  # see `mac.may_be_cut_elsewhere`

    def update(self, data: memoryview, /) -> None:
        """Take the next bytes."""
        self._total += len(data)
        if self._gave_up:
            return
        try:
            self._take(data)
        except InvalidDataSet:
            self._give_up()

    def finish(self) -> Streamed | None:
        """Return what was found; None where the data set has to be read."""
        if self._gave_up:
            return None
        try:
            return self._finished()
        except InvalidDataSet:
            return None

    def _give_up(self) -> None:
        self._gave_up = True
        self._run.clear()
        self._kept.clear()

    def _take(self, data: memoryview) -> None:
        while len(data):
            if self._left:
                self._pass(data[: self._left])
                data, self._left = data[self._left :], max(self._left - len(data), 0)
            elif self._in_fragments:
                data = self._fragment(data)
            else:
                self._run += data
                if not self._reaches_large():
                    return
                data = memoryview(bytes(self._run))
                self._run.clear()

    def _pass(self, piece: bytes | memoryview) -> None:
        for mac in self._listening:
            mac.hash.update(piece)
        if self._in_fragments and self._listening and self._left:
            seen = self._last + bytes(piece)
            if ITEM_TAG in seen:
                self._uncertain.add(self._order[-1])
            self._last = seen[-3:]

    def _fragment(self, data: memoryview) -> memoryview:
        """Take the header of the next fragment, or as much as there is; return what follows."""
        missing = 8 - len(self._run)
        self._run += data[:missing]
        if len(self._run) < 8:
            return data[missing:]
        group, number, length = _ITEM_HEADER.unpack_from(self._run)
        self._run.clear()
        tag = group << 16 | number
        if tag == ITEM and length != UNDEFINED:
            self._pass(ITEM_TAG)
            self._left, self._last = length, b""
        elif tag == SEQUENCE_DELIMITER:
            self._pass(SEQUENCE_END)
            self._in_fragments = False
        else:
            raise InvalidDataSet("something else", "a fragment", clause="PS3.5 A.4")
        return data[missing:]

    def _reaches_large(self) -> bool:
        """Look at the elements that have come; stop where a value is to be passed on."""
        while len(self._run) >= max(self._looked + 12, self._look_again):
            end = self._end_of_next()
            if end is None:
                return True
            if end > len(self._run):
                self._look_again = end
                break
            self._looked = end
        if len(self._run) + self._kept_size > KEPT + LARGE:
            raise InvalidDataSet("more", f"at most {KEPT} bytes to be kept")
        return False

    def _end_of_next(self) -> int | None:
        """Return where the next element ends; None when its value is passed on from here."""
        offset = self._looked
        group, number, vr, length = _HEADER.unpack_from(self._run, offset)
        tag, value = group << 16 | number, offset + 8
        if vr not in SHORT_VRS:
            (length,) = _LENGTH.unpack_from(self._run, offset + 8)
            value = offset + 12
        encapsulated = length == UNDEFINED and vr in (b"OB", b"OW")
        large = LARGE <= length < UNDEFINED and vr != b"SQ"
        if tag > MAC_PARAMETERS and (encapsulated or large):
            self._begin(tag, vr, value, length)
            return None
        if length == UNDEFINED:
            try:
                return end_of_undefined(self._run, tag, vr.decode("latin-1"), offset, value, _FAR)
            except Truncated:
                return 2 * len(self._run)  # with twice as much, so that looking stays cheap
        if length > KEPT:
            raise InvalidDataSet(f"{length} bytes", f"at most {KEPT} to be kept")
        end: int = value + length
        return end

    def _begin(self, tag: int, vr: bytes, value: int, length: int) -> None:
        """Begin to pass a value on, after what stands before it was taken care of."""
        header, rest = bytes(self._run[self._looked : value]), bytes(self._run[value:])
        del self._run[self._looked :]
        self._keep()
        if self._parameters is None:
            self._know([])
        self._run += rest
        signable = vr != b"UN" and may_be_listed(tag)
        self._order.append(tag)
        self._passed.append((tag, signable))
        self._listening = [mac for mac in self._macs.values() if signable and tag in mac.tags]
        self._pass(header[:6] + b"\0\0" + (b"" if length == UNDEFINED else header[8:]))
        self._in_fragments = length == UNDEFINED
        self._left = 0 if self._in_fragments else length

    def _keep(self) -> None:
        """Take complete elements out of the run, into memory and into the digests."""
        chunk = bytes(self._run)
        self._run.clear()
        self._looked = self._look_again = 0
        if not chunk:
            return
        self._kept.append(chunk)
        self._kept_size += len(chunk)
        reader = Reader(chunk)
        elements = reader.level(0, len(chunk))
        self._order += [element.tag for element in elements]
        parameters = [element for element in elements if element.tag == MAC_PARAMETERS]
        if self._parameters is not None:
            if parameters:
                raise InvalidDataSet("MAC parameters", "them in their place", clause="PS3.5 7.1")
            feed(reader, elements, list(self._macs.values()), signable_tags(reader, elements))
        elif parameters:
            self._know(mac_parameters(reader, elements, MAX_MACS + 1))
        elif elements[-1].tag > MAC_PARAMETERS:
            self._know([])

    def _know(self, parameters: list[MacParameters]) -> None:
        """Begin to compute, with what was kept so far."""
        if len(parameters) > MAX_MACS:
            raise InvalidDataSet("too many MACs to compute them all", f"at most {MAX_MACS}")
        self._parameters = parameters
        self._macs = {
            place: Mac(frozenset(one.tags), hash_of(one))
            for place, one in enumerate(parameters)
            if not one.problem and one.algorithm in MAC_ALGORITHMS
        }
        if self._macs:
            for chunk in self._kept:
                reader = Reader(chunk)
                elements = reader.level(0, len(chunk))
                feed(reader, elements, list(self._macs.values()), signable_tags(reader, elements))

    def _finished(self) -> Streamed:
        if self._left or self._in_fragments:
            raise Truncated("the end", "the rest of a value")
        self._keep()
        kept = b"".join(self._kept)
        reader = Reader(kept)
        elements = reader.level(0, len(kept))
        bounds = Bounds(self._total)
        levels = []
        if any(element.tag == DIGITAL_SIGNATURES for element in elements):
            levels.append(self._main_level(reader, elements, bounds))
        levels += nested_levels(reader, elements, bounds)
        facts = instance_facts(reader, elements, self._syntax)
        return Streamed(facts, levels)

    def _main_level(self, reader: Reader, elements: list[Element], bounds: Bounds) -> Level:
        level = Level("", tuple(self._order))
        read_macro(level, reader, elements, bounds)
        level.signable = signable_tags(reader, elements)
        level.signable |= {tag for tag, signable in self._passed if signable}
        level.uncertain = frozenset(self._uncertain)
        level.digests = {place: mac.hash for place, mac in self._macs.items()}
        return level
