"""Syslog as audit trails use it: RFC 5424 messages in RFC 5425 frames or RFC 5426 datagrams.

::

    SYSLOG-MSG = "<" PRI ">1 " TIMESTAMP HOSTNAME APP-NAME PROCID MSGID SD BOM XML
    SD         = "-" / "[meta sequenceId=" NUMBER "]" / "[" NAME@PEN store= sequence= "]"
    frame      = octets of SYSLOG-MSG in decimal, one blank, SYSLOG-MSG      (PS3.15 A.6)
    datagram   = SYSLOG-MSG                                                  (PS3.15 A.7)

Delivery is at least once, so a message may come twice. SD then carries the number it has in the
store, which is the same each time, also after a restart:

* ``sequence``: ``meta sequenceId`` of RFC 5424 section 7.3.1, which begins with 1 when the syslog
  function starts, rises by one with each message, and begins anew after 2147483647. What starts,
  as we read it, is the store, when it is made; a number that began anew with each process would
  identify nothing.
* ``name@number``: an element of the site's own private enterprise number (section 7.2.2), with
  the random name of the store besides, for sites where several nodes share host name and
  application. We have no such number, and that of the examples in RFC 5612 is for examples.
* ``none``: nothing, for receivers that cannot read structured data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

DICOM_MESSAGE_ID = "DICOM+RFC3881"  # PS3.15 A.6, A.7: no hyphen
IHE_MESSAGE_ID = "IHE+RFC-3881"  # ITI-20: with a hyphen

TLS_PORT = 6514  # RFC 5425
UDP_PORT = 514  # RFC 5426

NO_IDENTIFIER = "none"
SEQUENCE = "sequence"

NILVALUE = b"-"

_LAST_SEQUENCE_ID = 2_147_483_647
# SD-NAME without its own "@": PRINTUSASCII except "=", "]" and the quotation mark.
_OWN_ELEMENT = re.compile(r"[!#-<>?A-\\^-~]{1,21}@[1-9][0-9]{0,9}")
_NOT_PRINTABLE = re.compile(r"[^\x21-\x7e]")


@dataclass(frozen=True, slots=True)
class Header:
    """What is the same in every message of one sender (RFC 5424 section 6.2).

    Anything but printable US-ASCII becomes ``_``, over-long fields are cut, an empty field
    becomes the NILVALUE ``-``.

    Attributes
    ----------
    hostname : str
        FQDN preferred, or a static IP address; at most 255 characters.
    application : str
        APP-NAME, at most 48 characters.
    process_id : str
        PROCID, at most 128 characters; the process ID that UserID names.
    message_id : str
        MSGID, at most 32 characters.
    """

    hostname: str
    application: str
    process_id: str
    message_id: str = DICOM_MESSAGE_ID

    def fields(self) -> str:
        """Return HOSTNAME to MSGID with blanks between."""
        return " ".join(
            (
                _field(self.hostname, 255),
                _field(self.application, 48),
                _field(self.process_id, 128),
                # Never nil: A.6 and A.7 want MSGID set.
                _field(self.message_id or DICOM_MESSAGE_ID, 32),
            )
        )


def is_identifier(kind: str) -> bool:
    """Return whether `identifier` knows the kind."""
    return kind in (NO_IDENTIFIER, SEQUENCE) or _OWN_ELEMENT.fullmatch(kind) is not None


def identifier(kind: str, number: int, store: str) -> bytes:
    """Return the STRUCTURED-DATA that identifies a message.

    Parameters
    ----------
    kind : str
        ``none``, ``sequence``, or ``name@number`` with a private enterprise number.
    number : int
        In the store, from 1.
    store : str
        Its name, unique and printable.
    """
    if kind == SEQUENCE:
        return b'[meta sequenceId="%d"]' % ((number - 1) % _LAST_SEQUENCE_ID + 1)
    if kind == NO_IDENTIFIER:
        return NILVALUE
    return f'[{kind} store="{store}" sequence="{number}"]'.encode("ascii")


def opening(priority: int, timestamp: str, fields: str) -> bytes:
    """Return what a SYSLOG-MSG begins with, up to the blank before STRUCTURED-DATA.

    Parameters
    ----------
    priority : int
        PRI, 0 to 191.
    timestamp : str
        Of the sending, RFC 3339 with ``Z``; not the time of the event.
    fields : str
        `Header.fields`.
    """
    if not 0 <= priority <= 191:
        raise ValueError(f"PRI {priority}, wanted 0 to 191 (RFC 5424)")
    return f"<{priority}>1 {timestamp} {fields} ".encode("ascii")


def syslog_message(begin: bytes, data: bytes, xml: bytes) -> bytes:
    """Return one SYSLOG-MSG.

    Parameters
    ----------
    begin : bytes
        `opening`.
    data : bytes
        STRUCTURED-DATA: `identifier`, or `NILVALUE`.
    xml : bytes
        MSG; UTF-8, so a BOM goes before it.
    """
    return b"%b%b \xef\xbb\xbf%b" % (begin, data, xml)


def frame(message: bytes) -> bytes:
    """Return the message with its octet count in front (RFC 5425 section 4.3)."""
    return b"%d %b" % (len(message), message)


def _field(text: str, limit: int) -> str:
    return _NOT_PRINTABLE.sub("_", text)[:limit] or "-"
