"""Syslog as audit trails use it: RFC 5424 messages in RFC 5425 frames or RFC 5426 datagrams.

::

    SYSLOG-MSG = "<" PRI ">1 " TIMESTAMP HOSTNAME APP-NAME PROCID MSGID "-" BOM XML
    frame      = octets of SYSLOG-MSG in decimal, one blank, SYSLOG-MSG      (PS3.15 A.6)
    datagram   = SYSLOG-MSG                                                  (PS3.15 A.7)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

DICOM_MESSAGE_ID = "DICOM+RFC3881"  # PS3.15 A.6, A.7: no hyphen
IHE_MESSAGE_ID = "IHE+RFC-3881"  # ITI-20: with a hyphen

TLS_PORT = 6514  # RFC 5425
UDP_PORT = 514  # RFC 5426

_BOM = b"\xef\xbb\xbf"
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


def syslog_message(priority: int, timestamp: str, fields: str, xml: str | bytes) -> bytes:
    """Return one SYSLOG-MSG.

    Parameters
    ----------
    priority : int
        PRI, 0 to 191.
    timestamp : str
        Of the sending, RFC 3339 with ``Z``; not the time of the event.
    fields : str
        `Header.fields`.
    xml : str or bytes
        MSG; UTF-8, so a BOM goes before it.
    """
    if not 0 <= priority <= 191:
        raise ValueError(f"PRI {priority}, wanted 0 to 191 (RFC 5424)")
    body = xml.encode("utf-8") if isinstance(xml, str) else xml
    return f"<{priority}>1 {timestamp} {fields} - ".encode("ascii") + _BOM + body


def frame(message: bytes) -> bytes:
    """Return the message with its octet count in front (RFC 5425 section 4.3)."""
    return b"%d %b" % (len(message), message)


def _field(text: str, limit: int) -> str:
    return _NOT_PRINTABLE.sub("_", text)[:limit] or "-"
