"""The calls of MIT's libkrb5 an AP-REQ and its AP-REP need (RFC 4120 3.2), through ctypes.

Why not a GSS library: the ticket DICOM speaks of is the bare AP-REQ (PS3.7 D.3.3.7), to which
GSS gives no AP-REP; and an error of python-gssapi may show only at the next use of its context.
Here every call either returns 0 or raises, with the library's own code.

`accept_request` and `Request` are all there is to use. Each makes a ``krb5_context`` of its own,
the unit libkrb5 wants used by one thread at a time. libkrb5 itself reads ``KRB5_CONFIG``, and
``KRB5CCNAME`` where no cache is named.
"""

from __future__ import annotations

import ctypes
import os
import struct
import weakref
from contextlib import ExitStack
from ctypes import POINTER, byref, c_char_p, c_int32, c_uint, c_void_p
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from dicom_secure_node.errors import ConfigurationError

_LIBRARY = "libkrb5.so.3"

_MUTUAL_REQUIRED = 0x20000000  # ap-options (RFC 4120 5.5.1)
_USE_SUBKEY = 0x00000001  # of krb5_mk_req_extended: put a subkey into the authenticator
_GSS_CHECKSUM = 0x8003  # checksum type of a GSS authenticator (RFC 4121 4.1.1)
_GSS_MUTUAL, _GSS_INTEGRITY = 2, 32  # flags in it (RFC 4121 4.1.1.1)


class _Data(ctypes.Structure):
    _fields_ = (("magic", c_int32), ("length", c_uint), ("data", c_void_p))

    @property
    def content(self) -> bytes:
        return ctypes.string_at(self.data, self.length) if self.length else b""


# Of these only the first fields are looked at; libkrb5 makes them and frees them.
class _Principal(ctypes.Structure):
    _fields_ = (("magic", c_int32), ("realm", _Data))


class _Ticket(ctypes.Structure):
    _fields_ = (("magic", c_int32), ("server", POINTER(_Principal)))


class _Authenticator(ctypes.Structure):
    _fields_ = (
        ("magic", c_int32),
        ("client", POINTER(_Principal)),
        ("checksum", c_void_p),
        ("cusec", c_int32),
        ("ctime", ctypes.c_uint32),  # libkrb5 reads it without a sign, too: good until 2106
    )


class _Credentials(ctypes.Structure):
    # What to ask a ticket for. libkrb5 reads some 130 bytes more: all zero.
    _fields_ = (
        ("magic", c_int32),
        ("client", POINTER(_Principal)),
        ("server", POINTER(_Principal)),
        ("rest", ctypes.c_char * 256),
    )


_OUT = POINTER(c_void_p)
_PRINCIPAL, _IN = POINTER(_Principal), POINTER(_Data)
_PROTOTYPES: dict[str, tuple[Any, ...]] = {
    # name: arguments after the context; all return a krb5_error_code
    "krb5_auth_con_getauthenticator": (c_void_p, POINTER(POINTER(_Authenticator))),
    "krb5_auth_con_init": (_OUT,),
    "krb5_auth_con_set_req_cksumtype": (c_void_p, c_int32),
    "krb5_auth_con_setflags": (c_void_p, c_int32),
    "krb5_cc_default": (_OUT,),
    "krb5_cc_get_principal": (c_void_p, POINTER(_PRINCIPAL)),
    "krb5_cc_resolve": (c_char_p, _OUT),
    "krb5_get_credentials": (c_int32, c_void_p, POINTER(_Credentials), _OUT),
    "krb5_kt_get_entry": (c_void_p, _PRINCIPAL, c_uint, c_int32, c_void_p),
    "krb5_kt_have_content": (c_void_p,),
    "krb5_kt_resolve": (c_char_p, _OUT),
    "krb5_mk_rep": (c_void_p, _IN),
    "krb5_mk_req_extended": (_OUT, c_int32, _IN, c_void_p, _IN),
    "krb5_parse_name": (c_char_p, POINTER(_PRINCIPAL)),
    "krb5_rd_rep": (c_void_p, _IN, _OUT),
    "krb5_rd_req": (_OUT, _IN, _PRINCIPAL, c_void_p, c_void_p, POINTER(POINTER(_Ticket))),
    "krb5_set_real_time": (c_int32, c_int32),
    "krb5_unparse_name": (_PRINCIPAL, _OUT),
    # these let go of something; what they return does not matter
    "krb5_auth_con_free": (c_void_p,),
    "krb5_cc_close": (c_void_p,),
    "krb5_free_ap_rep_enc_part": (c_void_p,),
    "krb5_free_authenticator": (c_void_p,),
    "krb5_free_creds": (c_void_p,),
    "krb5_free_data_contents": (c_void_p,),
    "krb5_free_error_message": (c_void_p,),
    "krb5_free_keytab_entry_contents": (c_void_p,),
    "krb5_free_principal": (c_void_p,),
    "krb5_free_ticket": (c_void_p,),
    "krb5_free_unparsed_name": (c_void_p,),
    "krb5_kt_close": (c_void_p,),
}


@cache
def _library() -> ctypes.CDLL:
    """Return libkrb5, its functions typed.

    Raises
    ------
    ConfigurationError
        It is not installed.
    """
    try:
        library = ctypes.CDLL(_LIBRARY)
        for name, arguments in _PROTOTYPES.items():
            getattr(library, name).argtypes = (c_void_p, *arguments)
    except (OSError, AttributeError) as exc:
        raise ConfigurationError(
            f"Kerberos needs MIT's {_LIBRARY} (Debian package libkrb5-3)"
        ) from exc
    library.krb5_init_context.argtypes = (_OUT,)
    library.krb5_free_context.argtypes = (c_void_p,)
    library.krb5_free_context.restype = None
    library.krb5_get_error_message.argtypes = (c_void_p, c_int32)
    library.krb5_get_error_message.restype = c_void_p
    return library


class Krb5Error(Exception):
    """A call of libkrb5 failed.

    Attributes
    ----------
    code : int
        ``krb5_error_code``: an errno, or one of the tables in ``krb5.h``.
    text : str
        The library's own words. They may quote principals the peer made up.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code)
        self.code = code
        self.text = text


class _Session:
    """A ``krb5_context``, and the things to be freed with it, last made first.

    Parameters
    ----------
    now : int, optional
        Seconds since 1970 the library is to take for the present; its own clock by default.
    """

    def __init__(self, now: int | None = None) -> None:
        self.library = _library()
        self.context = c_void_p()
        self._owned = ExitStack()
        code = self.library.krb5_init_context(byref(self.context))
        if code:
            raise Krb5Error(code, "libkrb5 cannot use its configuration (krb5.conf)")
        self._owned.callback(self.library.krb5_free_context, self.context)
        if now is not None:
            self.set_clock(now)

    def __enter__(self) -> _Session:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Free everything; once is enough, twice is harmless."""
        self._owned.close()

    def set_clock(self, now: int) -> None:
        """Have the library take `now`, seconds since 1970, for the present."""
        self.call("krb5_set_real_time", now, 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the library with the context.

        Raises
        ------
        Krb5Error
            It returned something else than 0.
        """
        code = getattr(self.library, name)(self.context, *arguments)
        if code:
            text = self.library.krb5_get_error_message(self.context, code)
            words = ctypes.string_at(text).decode("utf-8", "replace")
            self.library.krb5_free_error_message(self.context, text)
            raise Krb5Error(code, words)

    def own(self, name: str, handle: Any) -> None:
        """Have the function `name` free `handle` in the end."""
        self._owned.callback(getattr(self.library, name), self.context, handle)

    # -- what both sides need --------------------------------------------------------------

    def resolved(self, maker: str, closer: str, name: str) -> c_void_p:
        """Return what `maker` finds under `name`, a keytab or a cache."""
        handle = c_void_p()
        self.call(maker, os.fsencode(name), byref(handle))
        self.own(closer, handle)
        return handle

    def principal(self, name: str) -> Any:
        """Return the principal called `name`; without a realm, of the default realm."""
        found = _PRINCIPAL()
        self.call("krb5_parse_name", name.encode(), byref(found))
        self.own("krb5_free_principal", found)
        return found

    def name_of(self, principal: Any) -> bytes:
        """Return a principal's name, quoted as RFC 1964 2.1.1 says; UTF-8 is not promised."""
        text = c_void_p()
        self.call("krb5_unparse_name", principal, byref(text))
        name = ctypes.string_at(text)
        self.library.krb5_free_unparsed_name(self.context, text)
        return name

    def authentication(self) -> c_void_p:
        """Return an ``krb5_auth_context``, which ties an AP-REQ and its AP-REP together."""
        handle = c_void_p()
        self.call("krb5_auth_con_init", byref(handle))
        self.own("krb5_auth_con_free", handle)
        return handle

    def output(self, name: str, *arguments: Any) -> bytes:
        """Return the bytes `name` writes into its last argument."""
        data = _Data()
        self.call(name, *arguments, byref(data))
        content = data.content
        self.library.krb5_free_data_contents(self.context, byref(data))
        return content


def _data(content: bytes) -> tuple[_Data, ctypes.Array[Any]]:
    """Return `content` as libkrb5 takes it, and the buffer to keep alive meanwhile."""
    buffer = ctypes.create_string_buffer(content, len(content) or 1)
    return _Data(0, len(content), ctypes.addressof(buffer)), buffer


# -- acceptor ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Accepted:
    """What a valid AP-REQ says.

    Attributes
    ----------
    client, service : bytes
        Principals, with realm.
    client_realm, service_realm : bytes
        Their realms, not quoted.
    made : datetime
        When the requestor made the authenticator, by its own clock; UTC.
    answer : bytes
        The AP-REP, empty where none was asked for.
    """

    client: bytes
    client_realm: bytes
    service: bytes
    service_realm: bytes
    made: datetime
    answer: bytes = field(default=b"", repr=False)


def check_keytab(keytab: str, principal: str | None) -> None:
    """Raise Krb5Error unless `keytab` can be read and has a key, of `principal` if given."""
    with _Session() as krb5:
        handle = krb5.resolved("krb5_kt_resolve", "krb5_kt_close", keytab)
        krb5.call("krb5_kt_have_content", handle)
        if principal is not None:
            entry = ctypes.create_string_buffer(256)  # krb5_keytab_entry: some 56 bytes
            krb5.call("krb5_kt_get_entry", handle, krb5.principal(principal), 0, 0, entry)
            krb5.own("krb5_free_keytab_entry_contents", entry)


def accept_request(
    message: bytes,
    keytab: str,
    principal: str | None,
    *,
    answer: bool,
    now: int,
) -> Accepted:
    """Verify an AP-REQ, but for whether it was seen before (RFC 4120 3.2.3).

    Parameters
    ----------
    message : bytes
        The AP-REQ, DER.
    keytab : str
        In libkrb5's notation: ``FILE:/path``.
    principal : str or None
        The service the ticket has to be for; None takes any in the keytab.
    answer : bool
        Whether to make an AP-REP.
    now : int
        Seconds since 1970.

    Raises
    ------
    Krb5Error
        It is not valid, or that could not be found out.
    """
    with _Session(now) as krb5:
        authentication = krb5.authentication()
        # Without flags the library leaves its own replay cache, below /var/tmp, alone.
        krb5.call("krb5_auth_con_setflags", authentication, 0)
        given, _buffer = _data(message)
        ticket = POINTER(_Ticket)()
        krb5.call(
            "krb5_rd_req",
            byref(authentication),
            byref(given),
            krb5.principal(principal) if principal is not None else None,
            krb5.resolved("krb5_kt_resolve", "krb5_kt_close", keytab),
            None,
            byref(ticket),
        )
        krb5.own("krb5_free_ticket", ticket)
        proof = POINTER(_Authenticator)()
        krb5.call("krb5_auth_con_getauthenticator", authentication, byref(proof))
        krb5.own("krb5_free_authenticator", proof)
        client, service = proof.contents.client, ticket.contents.server
        made = datetime.fromtimestamp(proof.contents.ctime, UTC)
        return Accepted(
            client=krb5.name_of(client),
            client_realm=client.contents.realm.content,
            service=krb5.name_of(service),
            service_realm=service.contents.realm.content,
            made=made + timedelta(microseconds=proof.contents.cusec),
            answer=krb5.output("krb5_mk_rep", authentication) if answer else b"",
        )


# -- requestor -----------------------------------------------------------------------------


class Request:
    """An AP-REQ to a service, and what it takes to check the service's AP-REP.

    The service ticket comes from the credential cache, or, with the ticket-granting ticket
    there, from the KDC. No name is looked up in the DNS: the service is the one named.

    Parameters
    ----------
    principal : str
        The service: ``dicom/host.example@REALM``.
    cache : str, optional
        Credential cache in libkrb5's notation; the user's own by default.
    mutual : bool
        Ask the service to prove itself by an AP-REP.
    gss : bool
        Give the authenticator the checksum a GSS acceptor wants (RFC 4121 4.1.1).
    now : int, optional
        Seconds since 1970 to put into the authenticator.

    Attributes
    ----------
    message : bytes
        The AP-REQ, DER.

    Raises
    ------
    Krb5Error
        There is no ticket to be had.
    """

    def __init__(
        self,
        principal: str,
        *,
        cache: str | None = None,
        mutual: bool = True,
        gss: bool = False,
        now: int | None = None,
    ) -> None:
        self._krb5 = _Session()
        self.close = weakref.finalize(self, self._krb5.close)
        try:
            credentials = self._credentials(principal, cache)
            if now is not None:
                self._krb5.set_clock(now)
            self._authentication = self._krb5.authentication()
            self.message = self._made(credentials, mutual, gss)
        except BaseException:
            self.close()
            raise

    def _credentials(self, principal: str, name: str | None) -> c_void_p:
        krb5, cache = self._krb5, c_void_p()
        if name is None:
            krb5.call("krb5_cc_default", byref(cache))
            krb5.own("krb5_cc_close", cache)
        else:
            cache = krb5.resolved("krb5_cc_resolve", "krb5_cc_close", name)
        client = _PRINCIPAL()
        krb5.call("krb5_cc_get_principal", cache, byref(client))
        krb5.own("krb5_free_principal", client)
        wanted = _Credentials(0, client, krb5.principal(principal))
        found = c_void_p()
        krb5.call("krb5_get_credentials", 0, cache, byref(wanted), byref(found))
        krb5.own("krb5_free_creds", found)
        return found

    def _made(self, credentials: c_void_p, mutual: bool, gss: bool) -> bytes:
        krb5, checksum = self._krb5, b""
        if gss:
            krb5.call("krb5_auth_con_set_req_cksumtype", self._authentication, _GSS_CHECKSUM)
            # 16 bytes of channel bindings, none; flags
            flags = _GSS_INTEGRITY | (_GSS_MUTUAL if mutual else 0)
            checksum = struct.pack("<L16xL", 16, flags)
        given, _buffer = _data(checksum)
        return krb5.output(
            "krb5_mk_req_extended",
            byref(self._authentication),
            _USE_SUBKEY | (_MUTUAL_REQUIRED if mutual else 0),
            byref(given) if gss else None,
            credentials,
        )

    def check(self, answer: bytes) -> None:
        """Verify the AP-REP to our AP-REQ (RFC 4120 3.2.5).

        Raises
        ------
        Krb5Error
            It was not made by the service we named, or not for this request.
        """
        given, _buffer = _data(answer)
        content = c_void_p()
        self._krb5.call("krb5_rd_rep", self._authentication, byref(given), byref(content))
        self._krb5.library.krb5_free_ap_rep_enc_part(self._krb5.context, content)
