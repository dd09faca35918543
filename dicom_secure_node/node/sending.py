"""Send Part 10 files by C-STORE, each byte as it lies in the file.

The data set is never decoded: file meta says which SOP class and transfer syntax to propose,
and what follows it goes out as it is. More than 128 pairs of SOP class and transfer syntax
take more than one association. A file that cannot be sent costs that file; a lost association
is made again for the next one.

Where a signature is wanted (PS3.15 Annex C), each instance is signed into a temporary file just
before it is sent, and that is what goes out.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from pydicom.uid import UID
from pynetdicom import build_context
from pynetdicom.presentation import PresentationContext
from pynetdicom.status import STORAGE_SERVICE_CLASS_STATUS, code_to_category

from dicom_secure_node.archive.keys import SOP_CLASS, SOP_INSTANCE, read_head
from dicom_secure_node.elements.folders import files_below
from dicom_secure_node.elements.part10 import (
    MEDIA_STORAGE_SOP_CLASS,
    MEDIA_STORAGE_SOP_INSTANCE,
    TRANSFER_SYNTAX,
    Header,
    read_header,
)
from dicom_secure_node.elements.syntax import Encoding, encoding_of
from dicom_secure_node.elements.walk import find
from dicom_secure_node.errors import InvalidDataSet, InvalidInput, SecureNodeError
from dicom_secure_node.node.requestor import RequestorAssociation
from dicom_secure_node.node.scu import MAX_CONTEXTS
from dicom_secure_node.node.store_codec import StoreRequest
from dicom_secure_node.signatures.sign import Made, signed_syntax

_DIRECTORY = "1.2.840.10008.1.3.10"  # Media Storage Directory: a DICOMDIR, no instance

_FIRST_READ = 4096  # bytes

_UID = re.compile(r"(?=.{1,64}$)\d+(\.\d+)*", re.ASCII)

Outcome = Literal["stored", "warning", "refused", "unsendable", "lost", "skipped"]
Opener = Callable[[Sequence[PresentationContext]], RequestorAssociation]
Sign = Callable[[Path, BinaryIO], Made]


@dataclass(frozen=True)
class Instance:
    """A file that can be sent, as its File Meta Information says.

    Attributes
    ----------
    path : Path
        The file.
    sop_class, sop_instance, transfer_syntax : str
        UIDs.
    offset : int
        Where the data set begins, in bytes.
    """

    path: Path
    sop_class: str
    sop_instance: str
    transfer_syntax: str
    offset: int

    @property
    def context(self) -> tuple[str, str]:
        """What has to be negotiated for it: SOP class and transfer syntax."""
        return self.sop_class, self.transfer_syntax


@dataclass(frozen=True)
class Sent:
    """What became of one file.

    Attributes
    ----------
    path : Path
        The file.
    outcome : str
        ``stored``, ``warning`` (stored, with a remark), ``refused`` (by the peer),
        ``unsendable`` (no DICOM file, no presentation context), ``lost`` (the association
        ended first), ``skipped`` (a DICOMDIR).
    text : str
        Why, in words; empty where it was stored.
    status : int or None
        DIMSE status of the peer's answer.
    sop_instance : str
        SOP Instance UID, where known.
    signature : str
        UID of the digital signature it was sent with.
    """

    path: Path
    outcome: Outcome
    text: str = ""
    status: int | None = None
    sop_instance: str = ""
    signature: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is left to do about the file."""
        return self.outcome in ("stored", "warning", "skipped")


def read_instance(path: Path) -> Instance:
    """Return what is needed to send the file `path`.

    Raises
    ------
    InvalidDataSet
        It is no Part 10 file, or its File Meta Information lacks a UID.
    OSError
        It cannot be read.
    """
    with path.open("rb") as file:
        header = read_header(file)
        syntax = _uid(header, TRANSFER_SYNTAX)
        size = path.stat().st_size - header.offset
        sop_class, sop_instance = _read_sop(file, size, encoding_of(syntax))
    return Instance(
        path,
        # The receiver compares the request with the data set, so that comes first.
        _if_uid(sop_class) or _uid(header, MEDIA_STORAGE_SOP_CLASS),
        _if_uid(sop_instance) or _uid(header, MEDIA_STORAGE_SOP_INSTANCE),
        syntax,
        header.offset,
    )


def _read_sop(file: BinaryIO, size: int, encoding: Encoding) -> tuple[str, str]:
    """Return SOP Class UID and SOP Instance UID of a data set of so many bytes."""
    if not encoding.deflated:
        # They are among the very first elements, so most files are known without reading on.
        with suppress(InvalidDataSet, UnicodeDecodeError):
            head = os.pread(file.fileno(), _FIRST_READ, file.tell())
            values = find(head, (SOP_CLASS, SOP_INSTANCE), encoding, size=size)
            sop_class, sop_instance = (
                values.get(tag, b"").decode("ascii").strip("\0 ")
                for tag in (SOP_CLASS, SOP_INSTANCE)
            )
            return sop_class, sop_instance
    keys = read_head(file, size, encoding)
    return keys.sop_class, keys.sop_instance


def _if_uid(text: str) -> str:
    return text if _UID.fullmatch(text) else ""


def _uid(header: Header, tag: int) -> str:
    """Return a UID of the header; zeros PS3.5 9.1 forbids are let pass, products write them."""
    uid = header.text(tag)
    if not _UID.fullmatch(uid):
        name = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
        found = "a value that is no UID" if uid else "no value"
        raise InvalidDataSet(found, "a UID", name, "PS3.10 7.1")
    return uid


def send_files(
    open_association: Opener,
    paths: Iterable[Path],
    on_scanned: Callable[[int], None] | None = None,
    sign: Sign | None = None,
) -> Iterator[Sent]:
    """Send the files at `paths` (folders are walked) and yield what became of each.

    Parameters
    ----------
    open_association : callable
        Given presentation contexts, returns an association: `scu.associate` with the rest of
        its arguments filled in.
    paths : iterable of Path
        Files and folders.
    on_scanned : callable, optional
        Called once with the number of files, before anything is sent.
    sign : callable, optional
        Given a path and an empty file, writes a signed copy there: `signatures.sign.sign_file`
        with its signer. Without it files go out as they are.

    Raises
    ------
    SecureNodeError
        The first association could not be made; nothing was sent.
    """
    instances: list[Instance] = []
    unsent: list[Sent] = []
    for path in files_below(paths):
        try:
            instance = read_instance(path)
            if sign is not None:
                syntax = signed_syntax(instance.transfer_syntax)
                instance = replace(instance, transfer_syntax=syntax)
        except (SecureNodeError, OSError) as exc:
            unsent.append(Sent(path, "unsendable", _reason(exc)))
            continue
        if instance.sop_class == _DIRECTORY:
            unsent.append(Sent(path, "skipped", "a DICOMDIR is no instance"))
        else:
            instances.append(instance)
    if on_scanned is not None:
        on_scanned(len(instances) + len(unsent))
    yield from unsent
    first = True
    for group in _groups(instances):
        yield from _send_group(open_association, group, first, sign)
        first = False


def _groups(instances: Sequence[Instance]) -> Iterator[list[Instance]]:
    """Yield the instances in lots whose contexts fit into one association."""
    contexts = list(dict.fromkeys(instance.context for instance in instances))
    for start in range(0, len(contexts), MAX_CONTEXTS):
        lot = set(contexts[start : start + MAX_CONTEXTS])
        yield [instance for instance in instances if instance.context in lot]


def _send_group(
    opener: Opener, group: Sequence[Instance], first: bool, sign: Sign | None
) -> Iterator[Sent]:
    pairs = dict.fromkeys(instance.context for instance in group)
    contexts = [build_context(sop_class, syntax) for sop_class, syntax in pairs]
    association: RequestorAssociation | None = None
    accepted: dict[tuple[str, str], int] = {}
    unreachable = ""
    try:
        for number, instance in enumerate(group):
            if unreachable:
                yield Sent(instance.path, "lost", unreachable, None, instance.sop_instance)
                continue
            if association is None or not association.is_established:
                try:
                    association = opener(contexts)
                    accepted = _accepted(association)
                except SecureNodeError as exc:
                    if first and not number:
                        raise
                    unreachable = str(exc)
                    yield Sent(instance.path, "lost", unreachable, None, instance.sop_instance)
                    continue
            message_id = number % 65_535 + 1
            # For exactly this instance: nothing is converted.
            context_id = accepted.get(instance.context)
            if sign is None:
                yield _send_one(association, instance, context_id, message_id)
            else:
                yield _send_signed(association, instance, context_id, message_id, sign)
    except BaseException:
        # Also when the caller stops half-way, by ctrl-C for one.
        if association is not None:
            association.abort()
        raise
    if association is not None:
        association.end()


def _send_one(
    association: RequestorAssociation, instance: Instance, context_id: int | None, message_id: int
) -> Sent:
    """Send one instance; the association may be over afterwards."""
    uid = instance.sop_instance
    if context_id is None:
        text = (
            f"the peer does not take {UID(instance.sop_class).name} "
            f"in {UID(instance.transfer_syntax).name}"
        )
        return Sent(instance.path, "unsendable", text, None, uid)
    try:
        request = StoreRequest(message_id, instance.sop_class, uid, priority=0)
        status = association.send_file(request, context_id, instance.path, instance.offset)
    except SecureNodeError as exc:
        return Sent(instance.path, "lost", str(exc), None, uid)
    except (OSError, ValueError) as exc:
        return Sent(instance.path, "unsendable", _reason(exc), None, uid)
    category, text = status_words(status)
    outcomes: dict[str, Outcome] = {"Success": "stored", "Warning": "warning"}
    return Sent(instance.path, outcomes.get(category, "refused"), text, status, uid)


def _send_signed(
    association: RequestorAssociation,
    instance: Instance,
    context_id: int | None,
    message_id: int,
    sign: Sign,
) -> Sent:
    """Send a signed copy of one instance; as large as it may be, memory stays flat."""
    with tempfile.NamedTemporaryFile(prefix="dicom-secure-node-", suffix=".dcm") as temporary:
        file = cast(BinaryIO, temporary)
        try:
            made = sign(instance.path, file)
            file.flush()
            file.seek(0)
            copy = replace(instance, path=Path(file.name), offset=read_header(file).offset)
        except (InvalidInput, OSError) as exc:
            return Sent(instance.path, "unsendable", _reason(exc), None, instance.sop_instance)
        sent = _send_one(association, copy, context_id, message_id)
    return replace(sent, path=instance.path, signature=made.uid)


def _accepted(association: RequestorAssociation) -> dict[tuple[str, str], int]:
    """Return the IDs of the accepted contexts by SOP class and transfer syntax."""
    return {
        (str(context.abstract_syntax), str(context.transfer_syntax[0])): cast(
            int, context.context_id
        )
        for context in reversed(association.accepted_contexts)
    }


def status_words(status: int) -> tuple[str, str]:
    """Return category and text of a C-STORE status (PS3.4 Table B.2-1, PS3.7 Annex C)."""
    category, text = STORAGE_SERVICE_CLASS_STATUS.get(status, (code_to_category(status), ""))
    if category == "Success":
        return category, ""
    return category, f"{category.lower()} 0x{status:04X}" + (f": {text}" if text else "")


def _reason(exc: Any) -> str:
    return (exc.strerror or type(exc).__name__) if isinstance(exc, OSError) else str(exc)
