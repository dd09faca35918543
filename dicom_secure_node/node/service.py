"""Which requests a presentation context is good for (PS3.7 8.1, PS3.8 9.3.2.2).

pynetdicom picks the service by the SOP class a request names. It compares that neither with
the presentation context nor, for some services, with the kind of the request: a C-ECHO that
names a query is answered like the query, and a CT image may come by the context of C-ECHO.
The gates decide by what a request says of itself, so here it has to be true.
"""

from __future__ import annotations

from pynetdicom.service_class import (
    NonPatientObjectStorageServiceClass,
    RelevantPatientInformationQueryServiceClass,
    StorageServiceClass,
    VerificationServiceClass,
)
from pynetdicom.sop_class import uid_to_service_class

from dicom_secure_node.errors import OperationRefused

SOP_CLASS_NOT_SUPPORTED = 0x0122  # PS3.7 Annex C
UNRECOGNIZED_OPERATION = 0x0211  # PS3.7 Annex C

# The services that take whatever request comes; the others of pynetdicom look.
_ONE_KIND = {
    VerificationServiceClass: "C-ECHO",
    StorageServiceClass: "C-STORE",
    NonPatientObjectStorageServiceClass: "C-STORE",
    RelevantPatientInformationQueryServiceClass: "C-FIND",
}
_UPS = "1.2.840.10008.5.1.4.34.6."  # SOP classes of one kind of instance (PS3.4 CC.3.1)


def check_fit(service: str, sop_class: str, abstract_syntax: str) -> None:
    """Refuse a request that is not what its presentation context was accepted for.

    C-ECHO may use any: it names Verification and gets nothing else.

    Parameters
    ----------
    service : str
        ``C-FIND``, ``N-ACTION`` ...
    sop_class : str
        Affected or Requested SOP Class UID of the request.
    abstract_syntax : str
        Of the accepted presentation context.

    Raises
    ------
    OperationRefused
        0x0211: no such request in that service. 0x0122: another SOP class than the
        context's.
    """
    named = uid_to_service_class(sop_class)
    if service != _ONE_KIND.get(named, service):
        raise OperationRefused(
            f"{service} with a SOP class of another service", status=UNRECOGNIZED_OPERATION
        )
    if service == "C-ECHO" or sop_class == abstract_syntax:
        return
    # The contexts of print management and UPS carry several SOP classes (PS3.4 H.3.2, CC.3.1).
    many = service.startswith("N-") or sop_class.startswith(_UPS)
    if not many or named is not uid_to_service_class(abstract_syntax):
        raise OperationRefused(
            "the SOP class is not that of the presentation context",
            status=SOP_CLASS_NOT_SUPPORTED,
        )
