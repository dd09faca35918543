"""From ``[identity]`` to the back-ends that verify user identities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from dicom_secure_node import config
from dicom_secure_node.identity.claims import Backend, IdentityType
from dicom_secure_node.identity.jwt_tokens import JwtBackend
from dicom_secure_node.identity.kerberos import KerberosBackend
from dicom_secure_node.identity.key_sources import open_source
from dicom_secure_node.identity.ldap_directory import LdapBackend
from dicom_secure_node.identity.lockout import LockingBackend
from dicom_secure_node.identity.passcodes import PasscodeBackend
from dicom_secure_node.identity.policy import IdentityPolicy
from dicom_secure_node.identity.replay import Uses
from dicom_secure_node.identity.saml import SamlBackend, load_issuer
from dicom_secure_node.pki.credential import load_credential_base
from dicom_secure_node.secure_node.shared_identity import IdentityState, SharedIdentity


class IdentityBackends:
    """The back-ends a configuration asks for, behind one lock-out.

    Parameters
    ----------
    tables : NodeConfig
    given : sequence of Backend
        The program's own; a type one of them takes is not built again.
    on_locked : callable
        Told user (empty: the whole address) and address when a lock begins.
    shared : SharedIdentity
        What several processes of a node have to agree on.

    Attributes
    ----------
    backends : tuple of Backend

    Raises
    ------
    ConfigurationError
        A table is missing, or something a table names cannot be used.
    """

    def __init__(
        self,
        tables: config.NodeConfig,
        given: Sequence[Backend],
        on_locked: Callable[[str, str], None],
        shared: SharedIdentity,
    ) -> None:
        self._table = table = tables.identity
        self._shared = shared
        self._ends = ExitStack()
        served = {kind for backend in given for kind in backend.kinds}
        made: list[Backend] = []
        try:
            for kind in sorted(_wanted(tables) - served):
                backend = self._make(kind)
                if backend is not None:
                    self._ends.callback(getattr(backend, "close", _nothing))
                    made.append(backend)
        except BaseException:
            self.close()
            raise
        everybody = [*given, *made]
        if table.lockout.failures or table.lockout.address_failures:
            # What nobody can guess needs no lock, and a device that repeats a ticket gone stale
            # would shut out whoever shares its address.
            everybody = [
                LockingBackend(one, shared.lockout, on_locked)
                if IdentityType.PASSCODE in one.kinds
                else one
                for one in everybody
            ]
        self.backends: tuple[Backend, ...] = tuple(everybody)

    def close(self) -> None:
        """Let go of everything that was made here."""
        self._ends.close()

    def _make(self, kind: IdentityType) -> Backend | None:
        table = self._table
        if kind is IdentityType.PASSCODE:
            if table.ldap:
                return LdapBackend(table.ldap)
            return PasscodeBackend(
                table.passcode.file, places=self._shared.places, turn=self._shared.turn
            )
        if kind is IdentityType.KERBEROS and table.kerberos:
            kerberos = table.kerberos
            return KerberosBackend(
                kerberos.keytab,
                kerberos.principal or None,
                used=self._shared.used("kerberos"),
                realms=kerberos.realms,
            )
        if kind is IdentityType.SAML and table.saml:
            return _saml(table.saml, self._shared.used("saml"))
        if kind is IdentityType.JWT and table.jwt:
            return _jwt(table.jwt, self._shared.used("jwt") if table.jwt.one_time else None)
        return None  # a name nobody verifies, or a table that is missing: the policy says so


def identity_policies(tables: config.NodeConfig) -> dict[str, IdentityPolicy]:
    """Return each listener's policy, by its label."""
    return {one.label: one.identity_policy(tables.identity) for one in tables.listener}


def check(tables: config.NodeConfig) -> None:
    """Make the back-ends a node would make, and let them go; nothing is written where it is.

    Raises
    ------
    ConfigurationError
        What would keep the node from starting.
    """
    with TemporaryDirectory() as scratch:
        shared = IdentityState(tables.identity.lockout, Path(scratch))
        try:
            made = IdentityBackends(tables, (), _tell_nobody, shared)
            try:
                for policy in identity_policies(tables).values():
                    policy.check(made.backends)
            finally:
                made.close()
        finally:
            shared.close()


def _tell_nobody(user: str, address: str) -> None:
    """Take note of no lock: nobody logs in while a configuration is checked."""


def _wanted(tables: config.NodeConfig) -> frozenset[IdentityType]:
    """Return the types that some listener takes."""
    policies = identity_policies(tables).values()
    return frozenset().union(*(policy.taken for policy in policies))


def _nothing() -> None:
    """Close a back-end that has nothing to close."""


def _saml(table: config.Saml, used: Uses) -> SamlBackend:
    return SamlBackend(
        table.audience,
        [load_issuer(one.entity_id, one.certificate) for one in table.issuer],
        used,
        skew=table.skew_seconds,
        recipients=table.recipients,
        groups_attribute=table.groups_attribute,
        signing=load_credential_base(table.credential[0]) if table.credential else None,
    )


def _jwt(table: config.Jwt, once: Uses | None) -> JwtBackend:
    return JwtBackend(
        table.issuer,
        table.audience,
        open_source(table.jwks, trust=table.trust),
        algorithms=table.algorithms,
        user_claim=table.user_claim,
        groups_claim=table.groups_claim,
        leeway=table.leeway_seconds,
        max_lifetime=table.max_lifetime_seconds or None,
        once=once,
    )
