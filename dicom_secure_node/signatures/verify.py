"""Verify the digital signatures of an instance (PS3.15 Annex C, PS3.3 C.12.1.1.3).

For each signature, in this order:

1. the item has what it must have, and its certificate is an X.509 one with an RSA key,
2. its MAC ID names exactly one item of MAC Parameters at the same level,
3. that item names an algorithm we know, an explicit VR little endian transfer syntax, and tags,
4. the signature value opens with the certificate's key to a DigestInfo of that algorithm,
5. the digest in it is that of the stream: then the elements are what was signed,
6. the moment it was made is looked for: in a certified timestamp, else in what the signer says,
7. the certificate is judged at that moment, and now,
8. what is covered is compared with what is there,
9. and with the minimum lists of the profiles.

A failure up to (3) is a `problem`; all others are answers side by side. Nothing that is in an
instance raises: what cannot be judged is reported as such, and is not valid. Whether a report is
good enough is for `policy`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dicom_secure_node.elements.syntax import encoding_of
from dicom_secure_node.errors import InvalidCertificate, InvalidDataSet, InvalidInput
from dicom_secure_node.pki.paths import PathValidator, PathVerdict
from dicom_secure_node.pki.timestamps import TimestampVerdict, check_token
from dicom_secure_node.signatures.conformity import SignedFacts, missing_for, remarks_for
from dicom_secure_node.signatures.facts import InstanceFacts, instance_facts
from dicom_secure_node.signatures.items import (
    MacParameters,
    SignatureItem,
    der_value,
    read_datetime,
)
from dicom_secure_node.signatures.levels import (
    Level,
    levels_of,
    variants_of,
)
from dicom_secure_node.signatures.mac import Hash, may_be_listed
from dicom_secure_node.signatures.profiles import BASE, PROFILES
from dicom_secure_node.signatures.report import (
    Coverage,
    InstanceReport,
    SignatureReport,
    tags_text,
)
from dicom_secure_node.signatures.signer_certificate import SignerCertificate, signer_certificate
from dicom_secure_node.signatures.source import Source, open_data_set, open_file
from dicom_secure_node.signatures.streaming import SignatureStream
from dicom_secure_node.spec.signatures import (
    CERTIFIED_TIMESTAMP_TYPE,
    MAC_ALGORITHMS,
    X509_CERTIFICATE_TYPE,
    MacAlgorithm,
)

logger = logging.getLogger(__name__)

CLOCK_SKEW = timedelta(minutes=5)
"""How far the signer's clock may be ahead of ours."""

_MOST_REMEMBERED = 1000  # elements of a level for which answers are remembered


class Verifier:
    """Looks at instances and says what their signatures are worth; safe from any thread.

    Parameters
    ----------
    signers : PathValidator
        Whom to trust as signers.
    authorities : PathValidator, optional
        Whom to trust for certified timestamps; those of `signers` where left out.
    clock : callable
        Returns the time in UTC.
    """

    def __init__(
        self,
        signers: PathValidator,
        authorities: PathValidator | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._signers = signers
        self._authorities = authorities or signers
        self._clock = clock

    def verify_file(self, path: Path) -> InstanceReport:
        """Return the report on a Part 10 file; one that cannot be read is its `problem`."""
        return self._verify(lambda: open_file(path))

    def verify_data_set(self, file: BinaryIO, transfer_syntax: str) -> InstanceReport:
        """Return the report on the data set from a file's position to its end."""
        return self._verify(lambda: open_data_set(file, transfer_syntax))

    def verify_streamed(
        self, stream: SignatureStream, body: Callable[[], BinaryIO], transfer_syntax: str
    ) -> InstanceReport:
        """Return the report on a data set that went through a stream, and rests somewhere.

        Parameters
        ----------
        stream : SignatureStream
            Has seen every byte.
        body : callable
            Opens the data set, at its first byte. Not called unless the stream gave up, or a
            signature does not hold and may hold in another way (`mac.Variant`).
        transfer_syntax : str
            UID.
        """
        streamed = stream.finish()
        if streamed is not None:
            report = self.judge(streamed.facts, streamed.levels)
            if not any(one.genuine and not one.intact for one in report.signatures):
                return report
        with body() as file:
            return self.verify_data_set(file, transfer_syntax)

    def _verify(self, opened: Callable[[], AbstractContextManager[Source]]) -> InstanceReport:
        try:
            with opened() as source:
                return self.verify_source(source)
        except InvalidInput as exc:
            return InstanceReport(problem=str(exc))
        except OSError as exc:
            return InstanceReport(problem=f"cannot be read: {exc.strerror or type(exc).__name__}")

    def verify_source(self, source: Source) -> InstanceReport:
        """Return the report on an open instance."""
        facts = instance_facts(source.reader, source.elements, source.transfer_syntax)
        return self.judge(facts, levels_of(source))

    def judge(self, facts: InstanceFacts, levels: list[Level]) -> InstanceReport:
        """Return the report on levels whose MACs have been computed."""
        reports = [report for level in levels for report in self._level(level, facts)]
        return InstanceReport(
            sop_class=facts.sop_class,
            sop_instance=facts.sop_instance,
            transfer_syntax=facts.transfer_syntax,
            signatures=tuple(reports),
            not_looked_at=sum(level.not_looked_at for level in levels),
        )

    def _level(self, level: Level, facts: InstanceFacts) -> list[SignatureReport]:
        if level.problem:
            found = level.signatures or [SignatureItem()]
            return [
                SignatureReport(level.location, item.uid, problem=level.problem) for item in found
            ]
        return [self._signature(level, item, facts) for item in level.signatures]

    def _signature(
        self, level: Level, item: SignatureItem, instance: InstanceFacts
    ) -> SignatureReport:
        try:
            signer = _signer_of(item)  # (1)
            place, parameters = _parameters_of(level, item)  # (2)
            algorithm = _algorithm_of(parameters)  # (3)
            digest = level.digests.get(place)
            if digest is None:
                raise InvalidDataSet("more MACs than are computed", "fewer", level.location)
            opened = _opened(signer, algorithm, level, parameters, item, digest)  # (4), (5)
        except InvalidInput as exc:
            return SignatureReport(level.location, item.uid, str(exc), purpose=item.purpose)
        dated = self._dated(item)  # (6)
        trust = self._trust(signer, dated)  # (7)
        # The instances of a study are alike, so (8) and (9) were mostly answered before.
        alike = len(level.present) <= _MOST_REMEMBERED
        compare = coverage_of if alike else coverage_of.__wrapped__
        coverage = compare(level.present, level.signable, parameters.tags)  # (8)
        judge = conformity_of if alike else conformity_of.__wrapped__
        conformity = judge(_facts(coverage, level, parameters, item, instance))  # (9)
        return SignatureReport(
            location=level.location,
            uid=item.uid,
            intact=opened.intact,
            genuine=opened.genuine,
            algorithm=algorithm.term,
            weak=_weaknesses(signer, algorithm),
            signer=signer.subject,
            fingerprint=signer.fingerprint,
            issuer=signer.issuer,
            key=signer.key_words,
            claimed=dated.claimed,
            timestamp=dated.timestamp,
            signed_at=dated.signed_at,
            path=trust.path,
            path_now=trust.path_now,
            purpose=item.purpose,
            coverage=coverage,
            profiles=conformity.met,
            shortfalls=conformity.shortfalls,
            remarks=(
                *opened.remarks,
                *dated.remarks,
                *conformity.remarks,
                *_oddities(level, parameters, coverage),
            ),
            distrust=trust.distrust,
            verified_document=instance.verification_flag == "VERIFIED",
        )

    def _dated(self, item: SignatureItem) -> _Dated:
        """Find the moment a signature was made."""
        remarks = []
        read = read_datetime(item.made)
        claimed = read[0] if read else None
        if read is None:
            remarks.append("(0400,0105) Digital Signature DateTime is no date and time")
        elif not read[1]:
            remarks.append("(0400,0105) has no offset from UTC: taken for UTC")
        timestamp = self._timestamp(item)
        if timestamp is None:
            return _Dated(claimed, None, claimed, tuple(remarks))
        if not timestamp.valid:
            remarks.append(f"the certified timestamp counts for nothing: {timestamp.reason}")
            return _Dated(claimed, timestamp, claimed, tuple(remarks))
        if claimed and timestamp.time and claimed > timestamp.time + CLOCK_SKEW:
            remarks.append("the signer claims a later time than the certified one")
        return _Dated(claimed, timestamp, timestamp.time, tuple(remarks))

    def _timestamp(self, item: SignatureItem) -> TimestampVerdict | None:
        """Return what the certified timestamp says of the signature value (CMS_TSP)."""
        if not item.timestamp:
            return None
        if item.timestamp_type != CERTIFIED_TIMESTAMP_TYPE:
            return TimestampVerdict(
                valid=False,
                reason=f"type {item.timestamp_type[:16]!r}, wanted {CERTIFIED_TIMESTAMP_TYPE}",
            )
        return check_token(der_value(item.timestamp), item.signature, self._authorities)

    def _trust(self, signer: SignerCertificate, dated: _Dated) -> _Trust:
        """Judge the certificate at the moment of signing, and now.

        Without a certified timestamp the moment is only what the signer says, and who has stolen
        a key says what he likes: a certificate revoked by now, for whatever reason, is then not
        believed for earlier signatures either. One that merely expired is.
        """
        now = self._clock()
        moment = dated.signed_at
        path_now = self._signers.check(signer.certificate, now, proven=True)
        if moment is None:
            return _Trust(None, path_now, "nobody knows when it was made")
        path = self._signers.check(signer.certificate, moment, proven=dated.certified)
        distrust = path.reason
        if moment > now + CLOCK_SKEW:
            distrust = "made in the future"
        elif path.trusted and path.revoked is not None and not dated.certified:
            distrust = (
                f"revoked on {path.revoked:%Y-%m-%d %H:%M:%S} UTC, and no certified timestamp "
                "proves that it was signed before"
            )
        return _Trust(path, path_now, distrust)


class _Opened(NamedTuple):
    """What a signature value says, see `SignatureReport`."""

    genuine: bool
    intact: bool
    remarks: tuple[str, ...] = ()


class _Dated(NamedTuple):
    """When a signature was made, see `SignatureReport`."""

    claimed: datetime | None
    timestamp: TimestampVerdict | None
    signed_at: datetime | None
    remarks: tuple[str, ...]

    @property
    def certified(self) -> bool:
        return self.timestamp is not None and self.timestamp.valid


class _Trust(NamedTuple):
    """Whether its signer is trusted, see `SignatureReport`."""

    path: PathVerdict | None
    path_now: PathVerdict
    distrust: str


def _signer_of(item: SignatureItem) -> SignerCertificate:
    if item.problem:
        raise _Unusable(item.problem)
    if item.certificate_type != X509_CERTIFICATE_TYPE:
        raise InvalidCertificate(
            f"type {item.certificate_type[:16]!r}", X509_CERTIFICATE_TYPE, "(0400,0110)",
            "PS3.15 C.1",
        )  # fmt: skip
    return signer_certificate(item.certificate)


class _Unusable(InvalidInput):
    """A problem that was put into words already."""

    def __init__(self, words: str) -> None:
        super().__init__(words, "")
        self._words = words

    def __str__(self) -> str:
        return self._words


def _parameters_of(level: Level, item: SignatureItem) -> tuple[int, MacParameters]:
    named = [(at, one) for at, one in enumerate(level.macs) if one.mac_id == item.mac_id]
    if len(named) != 1:
        raise InvalidDataSet(
            f"{len(named)} MAC Parameters items for MAC ID {item.mac_id}", "one",
            "(0400,0005)", "PS3.3 C.12.1.1.3",
        )  # fmt: skip
    if named[0][1].problem:
        raise _Unusable(named[0][1].problem)
    return named[0]


def _algorithm_of(parameters: MacParameters) -> MacAlgorithm:
    algorithm = MAC_ALGORITHMS.get(parameters.algorithm)
    if algorithm is None:
        known = " ".join(MAC_ALGORITHMS)
        raise InvalidDataSet(
            f"MAC Algorithm {parameters.algorithm[:16]!r}", f"one of {known}", "(0400,0015)"
        )
    encoding = encoding_of(parameters.syntax)
    if not (encoding.explicit and encoding.little):
        raise InvalidDataSet(
            f"transfer syntax {parameters.syntax[:64]}", "explicit VR little endian",
            "(0400,0010)", "PS3.3 C.12.1.1.3",
        )  # fmt: skip
    return algorithm


def _weaknesses(signer: SignerCertificate, algorithm: MacAlgorithm) -> tuple[str, ...]:
    weak = [f"{algorithm.term} can be forged"] if algorithm.weak else []
    weak += [f"a key of {signer.key.key_size} bits"] if signer.is_short else []
    return tuple(weak)


def _opened(
    signer: SignerCertificate,
    algorithm: MacAlgorithm,
    level: Level,
    parameters: MacParameters,
    item: SignatureItem,
    digest: Hash,
) -> _Opened:
    """Compare what was signed with what is there."""
    signed = signer.opened(item.signature)
    size = len(algorithm.digest_info) + algorithm.size
    if signed is None or len(signed) != size or not signed.startswith(algorithm.digest_info):
        return _Opened(genuine=False, intact=False)
    if signed == algorithm.digest_info + _completed(digest, item):
        return _Opened(genuine=True, intact=True)
    for variant in variants_of(level):
        assert level.again is not None
        other = level.again(parameters, variant)
        if other is not None and signed == algorithm.digest_info + _completed(other, item):
            return _Opened(True, True, (f"holds only {variant.value}",))
    return _Opened(genuine=True, intact=False)


def _completed(digest: Hash, item: SignatureItem) -> bytes:
    """Return the MAC: the elements' digest, and what the signature's item adds to it."""
    whole = digest.copy()
    whole.update(item.stream)
    return whole.digest()


def _facts(
    coverage: Coverage,
    level: Level,
    parameters: MacParameters,
    item: SignatureItem,
    instance: InstanceFacts,
) -> SignedFacts:
    """Return what the profiles want to know of a signature."""
    return SignedFacts(
        signed=frozenset(coverage.signed),
        present=frozenset(level.present),
        unsignable=frozenset(coverage.unsignable),
        at_top_level=not level.location,
        algorithm=parameters.algorithm,
        transfer_syntax=parameters.syntax,
        certificate_type=item.certificate_type,
        key_is_rsa=True,
        purpose=item.purpose,
        sop_class=instance.sop_class,
        verification_flag=instance.verification_flag,
        verifying_observers=instance.verifying_observers,
        reference_algorithms=instance.reference_algorithms,
    )


class _Conformity(NamedTuple):
    """Which profiles a signature satisfies, see `SignatureReport`."""

    met: tuple[str, ...]
    shortfalls: Mapping[str, tuple[str, ...]]
    remarks: tuple[str, ...]


@lru_cache(maxsize=128)
def conformity_of(facts: SignedFacts) -> _Conformity:
    """Compare a signature with the minimum list of each profile."""
    lacks = {name: missing_for(profile, facts) for name, profile in PROFILES.items()}
    met = tuple(name for name, why in lacks.items() if not why)
    remarks = remarks_for(PROFILES[met[-1]] if met else BASE, facts)
    return _Conformity(met, {name: why for name, why in lacks.items() if why}, remarks)


@lru_cache(maxsize=128)
def coverage_of(
    present: tuple[int, ...], signable: frozenset[int], listed: tuple[int, ...]
) -> Coverage:
    """Compare what a signature lists with what is there."""
    there, wanted = frozenset(present), frozenset(listed)
    signed = wanted & signable
    return Coverage(
        signed=tuple(sorted(signed)),
        unsigned=tuple(sorted(tag for tag in there - signed if may_be_listed(tag))),
        missing=tuple(sorted(wanted - there)),
        unsignable=tuple(sorted(tag for tag in there - signable if may_be_listed(tag))),
    )


def _oddities(level: Level, parameters: MacParameters, coverage: Coverage) -> Iterator[str]:
    """Yield what is odd about a signature and does not decide anything."""
    if coverage.missing:
        yield f"lists elements that are not there: {tags_text(coverage.missing)}"
    unsignable = sorted(set(parameters.tags).intersection(coverage.unsignable))
    if unsignable:
        yield f"lists what cannot be signed: {tags_text(unsignable)}"
    if list(parameters.tags) != sorted(set(parameters.tags)):
        yield "(0400,0020) Data Elements Signed is not in ascending order"
    uncertain = sorted(level.uncertain.intersection(coverage.signed))
    if uncertain:
        yield (
            f"{tags_text(uncertain)}: its fragments hold what looks like the beginning of another "
            "one, and no signature can tell whether they were cut elsewhere"
        )
