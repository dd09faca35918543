"""Cipher suites named by the Secure Transport Connection Profiles (PS3.15 2024e Annex B).

Typed by hand in the order of the printed text, one row a line: IANA name, code of the IANA
registry, and the name OpenSSL knows the suite by, or None where OpenSSL has no such suite.
B.2 (ISCL) is no TLS and has no suites.
"""

from __future__ import annotations

from typing import NamedTuple


class Suite(NamedTuple):
    """One cipher suite.

    Attributes
    ----------
    name : str
        IANA name.
    code : str
        The two bytes on the wire, in hexadecimal, e.g. ``"C0,2F"``.
    openssl : str or None
        OpenSSL's name; None if OpenSSL cannot speak it.
    """

    name: str
    code: str
    openssl: str | None

    @property
    def key(self) -> str | None:
        """Return the kind of server key a TLS 1.2 suite needs: ``RSA``, ``EC`` or None (1.3)."""
        if "_WITH_" not in self.name:
            return None
        return "EC" if "_ECDSA_" in self.name else "RSA"

    @property
    def ephemeral_dh(self) -> bool:
        """Return True for finite-field DHE, which RFC 9325 4.1 advises against in TLS 1.2."""
        return self.name.startswith("TLS_DHE_")


# fmt: off
B1_TLS12 = (
    Suite("TLS_RSA_WITH_3DES_EDE_CBC_SHA", "00,0A", None),
)

B3_TLS12 = (
    Suite("TLS_RSA_WITH_AES_128_CBC_SHA", "00,2F", "AES128-SHA"),
    Suite("TLS_RSA_WITH_3DES_EDE_CBC_SHA", "00,0A", None),
)

# RFC 7525 4.2, cited by B.9, listed by B.10 and B.11.
B10_TLS12 = (
    Suite("TLS_DHE_RSA_WITH_AES_128_GCM_SHA256", "00,9E", "DHE-RSA-AES128-GCM-SHA256"),
    Suite("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "C0,2F", "ECDHE-RSA-AES128-GCM-SHA256"),
    Suite("TLS_DHE_RSA_WITH_AES_256_GCM_SHA384", "00,9F", "DHE-RSA-AES256-GCM-SHA384"),
    Suite("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "C0,30", "ECDHE-RSA-AES256-GCM-SHA384"),
)

# What B.11 says should be supported beside the four of B.10; nothing else is allowed.
B11_TLS12_OPTIONAL = (
    Suite("TLS_DHE_RSA_WITH_CAMELLIA_256_GCM_SHA384", "C0,7D", None),
    Suite("TLS_DHE_RSA_WITH_CAMELLIA_128_GCM_SHA256", "C0,7C", None),
    Suite("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "C0,2C", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    Suite("TLS_ECDHE_ECDSA_WITH_CAMELLIA_256_GCM_SHA384", "C0,87", None),
    Suite("TLS_ECDHE_RSA_WITH_CAMELLIA_256_GCM_SHA384", "C0,8B", None),
    Suite("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "C0,2B", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    Suite("TLS_ECDHE_ECDSA_WITH_CAMELLIA_128_GCM_SHA256", "C0,86", None),
    Suite("TLS_ECDHE_RSA_WITH_CAMELLIA_128_GCM_SHA256", "C0,8A", None),
)

# RFC 9325 4.2 in the order a client should propose them (the first is named there).
B12_TLS12 = (
    Suite("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "C0,2F", "ECDHE-RSA-AES128-GCM-SHA256"),
    Suite("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "C0,30", "ECDHE-RSA-AES256-GCM-SHA384"),
    Suite("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "C0,2B", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    Suite("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "C0,2C", "ECDHE-ECDSA-AES256-GCM-SHA384"),
)

# RFC 8446 9.1: the first is mandatory, the others should be there.
B12_TLS13 = (
    Suite("TLS_AES_128_GCM_SHA256", "13,01", "TLS_AES_128_GCM_SHA256"),
    Suite("TLS_AES_256_GCM_SHA384", "13,02", "TLS_AES_256_GCM_SHA384"),
    Suite("TLS_CHACHA20_POLY1305_SHA256", "13,03", "TLS_CHACHA20_POLY1305_SHA256"),
)

B13_TLS13 = (
    Suite("TLS_AES_256_GCM_SHA384", "13,02", "TLS_AES_256_GCM_SHA384"),
    Suite("TLS_CHACHA20_POLY1305_SHA256", "13,03", "TLS_CHACHA20_POLY1305_SHA256"),
    Suite("TLS_AES_128_GCM_SHA256", "13,01", "TLS_AES_128_GCM_SHA256"),
    Suite("TLS_AES_128_CCM_SHA256", "13,04", "TLS_AES_128_CCM_SHA256"),
    Suite("TLS_AES_128_CCM_8_SHA256", "13,05", "TLS_AES_128_CCM_8_SHA256"),
)

B13_TLS12 = (
    Suite("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "C0,2C", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    Suite("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "C0,30", "ECDHE-RSA-AES256-GCM-SHA384"),
    Suite("TLS_ECDHE_ECDSA_WITH_AES_256_CCM", "C0,AD", "ECDHE-ECDSA-AES256-CCM"),
    Suite("TLS_ECDHE_ECDSA_WITH_AES_256_CCM_8", "C0,AF", "ECDHE-ECDSA-AES256-CCM8"),
    Suite("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "CC,A9", "ECDHE-ECDSA-CHACHA20-POLY1305"),  # noqa: E501
    Suite("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "CC,A8", "ECDHE-RSA-CHACHA20-POLY1305"),
    Suite("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "C0,2F", "ECDHE-RSA-AES128-GCM-SHA256"),
    Suite("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "C0,2B", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    Suite("TLS_ECDHE_ECDSA_WITH_AES_128_CCM", "C0,AC", "ECDHE-ECDSA-AES128-CCM"),
    Suite("TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8", "C0,AE", "ECDHE-ECDSA-AES128-CCM8"),
)

# The text misprints the ninth as TLS_DHE_RSA_WITH_AES_256_GCM_CCM_8.
B13_TLS12_OPTIONAL = (
    Suite("TLS_ECDHE_ECDSA_WITH_CAMELLIA_256_GCM_SHA384", "C0,87", None),
    Suite("TLS_ECDHE_RSA_WITH_CAMELLIA_256_GCM_SHA384", "C0,8B", None),
    Suite("TLS_ECDHE_ECDSA_WITH_CAMELLIA_128_GCM_SHA256", "C0,86", None),
    Suite("TLS_ECDHE_RSA_WITH_CAMELLIA_128_GCM_SHA256", "C0,8A", None),
    Suite("TLS_DHE_RSA_WITH_AES_256_GCM_SHA384", "00,9F", "DHE-RSA-AES256-GCM-SHA384"),
    Suite("TLS_DHE_RSA_WITH_AES_128_GCM_SHA256", "00,9E", "DHE-RSA-AES128-GCM-SHA256"),
    Suite("TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "CC,AA", "DHE-RSA-CHACHA20-POLY1305"),
    Suite("TLS_DHE_RSA_WITH_AES_256_CCM", "C0,9F", "DHE-RSA-AES256-CCM"),
    Suite("TLS_DHE_RSA_WITH_AES_256_CCM_8", "C0,A3", "DHE-RSA-AES256-CCM8"),
    Suite("TLS_DHE_RSA_WITH_AES_128_CCM", "C0,9E", "DHE-RSA-AES128-CCM"),
    Suite("TLS_DHE_RSA_WITH_AES_128_CCM_8", "C0,A2", "DHE-RSA-AES128-CCM8"),
    Suite("TLS_DHE_RSA_WITH_CAMELLIA_256_GCM_SHA384", "C0,7D", None),
    Suite("TLS_DHE_RSA_WITH_CAMELLIA_128_GCM_SHA256", "C0,7C", None),
)

# RFC 8446 4.2.3, those the profiles use.
SIGNATURE_ALGORITHMS = {
    "rsa_pkcs1_sha1": 0x0201,
    "ecdsa_sha1": 0x0203,
    "rsa_pkcs1_sha256": 0x0401,
    "ecdsa_secp256r1_sha256": 0x0403,
    "rsa_pkcs1_sha384": 0x0501,
    "ecdsa_secp384r1_sha384": 0x0503,
    "rsa_pkcs1_sha512": 0x0601,
    "ecdsa_secp521r1_sha512": 0x0603,
    "rsa_pss_rsae_sha256": 0x0804,
    "rsa_pss_rsae_sha384": 0x0805,
    "rsa_pss_rsae_sha512": 0x0806,
    "rsa_pss_pss_sha256": 0x0809,
    "rsa_pss_pss_sha384": 0x080A,
    "rsa_pss_pss_sha512": 0x080B,
}
# fmt: on
