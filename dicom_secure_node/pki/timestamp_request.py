"""The two messages of RFC 3161: what is asked of an authority, and whether that was answered."""

from __future__ import annotations

from asn1crypto import parser, tsp

from dicom_secure_node.errors import InvalidInput, PeerRefused
from dicom_secure_node.pki.timestamp_token import BadToken, read_token, refusal


def encode(digest: str, imprint: bytes, policy: str | None, nonce: int) -> bytes:
    """Return a DER TimeStampReq (RFC 3161 2.4.1) that asks for the certificate as well.

    Raises
    ------
    InvalidInput
        `policy` is no object identifier.
    """
    fields = {
        "version": "v1",
        "message_imprint": {
            "hash_algorithm": {"algorithm": digest},
            "hashed_message": imprint,
        },
        "nonce": nonce,
        "cert_req": True,
    }
    if policy is not None:
        fields["req_policy"] = policy
    try:
        request: bytes = tsp.TimeStampReq(fields).dump()
    except ValueError as exc:
        raise InvalidInput("a policy that is no dotted object identifier", "one") from exc
    return request


def granted(
    answer: bytes, service: str, *, digest: str, imprint: bytes, policy: str | None, nonce: int
) -> bytes:
    """Return the DER TimeStampToken of a TimeStampResp (RFC 3161 2.4.2), if it is our answer.

    Raises
    ------
    PeerRefused
        It grants nothing.
    InvalidInput
        It is something else.
    """
    clause = "RFC 3161 2.4.2"
    try:
        inside = parser.parse(answer, strict=True)[4]
        status = tsp.PKIStatusInfo.load(inside[: parser.peek(inside)])
        refused = refusal(status)
    except Exception as exc:
        raise InvalidInput("no TimeStampResp", "one", service, clause) from exc
    if refused:
        raise PeerRefused(f"{service}: {refused}")
    try:
        token = read_token(answer)
    except BadToken as exc:
        raise InvalidInput(str(exc), "a time stamp token", service, clause) from exc
    for found, wanted, what in (
        ((token.digest, token.imprint), (digest, imprint), "imprint"),
        (token.nonce, nonce, "nonce"),
        (token.policy, token.policy if policy is None else policy, "policy"),
    ):
        if found != wanted:
            raise InvalidInput(f"another {what}", "that of the request", service, clause)
    return token.der
