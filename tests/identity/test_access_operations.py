"""Which operations an SOP class is for, held against pynetdicom's services."""

from __future__ import annotations

import pytest
from pynetdicom import service_class as services
from pynetdicom import sop_class as registry

from dicom_secure_node.identity.operations import (
    OPERATIONS,
    carries_several,
    keyword_of,
    operations_named,
    operations_of,
    sop_class_patterns,
)

KNOWN = {
    uid
    for name, table in vars(registry).items()
    if name.endswith("_CLASSES") and name != "_SERVICE_CLASSES"
    for uid in table.values()
}
STORAGE = (services.StorageServiceClass, services.NonPatientObjectStorageServiceClass)
ONLY_FIND = (
    services.BasicWorklistManagementServiceClass,
    services.RelevantPatientInformationQueryServiceClass,
)
RETRIEVAL = (
    services.QueryRetrieveServiceClass,
    services.HangingProtocolQueryRetrieveServiceClass,
    services.ColorPaletteQueryRetrieveServiceClass,
    services.ImplantTemplateQueryRetrieveServiceClass,
    services.DefinedProcedureProtocolQueryRetrieveServiceClass,
    services.ProtocolApprovalQueryRetrieveServiceClass,
    services.InventoryQueryRetrieveServiceClass,
)


def test_there_is_something_to_compare() -> None:
    assert len(KNOWN) > 200


@pytest.mark.parametrize("uid", sorted(KNOWN))
def test_what_one_operation_is_inferred_from_has_no_other(uid: str) -> None:
    """An SOP class of which we infer too little would be refused to those who may use it."""
    service, found = registry.uid_to_service_class(uid), operations_of(uid)
    if not keyword_of(uid):  # newer than pydicom's registry
        assert found == set(OPERATIONS)
    elif service in STORAGE:
        assert found == {"C-STORE"}
    elif service is services.VerificationServiceClass:
        assert found == {"C-ECHO"}
    elif service in ONLY_FIND:
        assert found == {"C-FIND"}
    elif service in RETRIEVAL and keyword_of(uid) not in ("InventoryCreation", "RepositoryQuery"):
        assert len(found) == 1
        assert found <= {"C-FIND", "C-MOVE", "C-GET"}
    else:
        assert found in (set(OPERATIONS), set())


WORDS = {
    "echo": {"C-ECHO"},
    "store": {"C-STORE"},
    "query": {"C-FIND"},
    "retrieve": {"C-GET", "C-MOVE"},
    "N-ACTION": {"N-ACTION"},
}


@pytest.mark.parametrize("word", WORDS)
def test_words(word: str) -> None:
    assert set(operations_named(word)) == WORDS[word]


@pytest.mark.parametrize("word", ["Store", "STORE", "c-store", "delete", "", "*"])
def test_no_word(word: str) -> None:
    with pytest.raises(ValueError, match="wanted one of C-ECHO"):
        operations_named(word)


def test_keywords() -> None:
    assert sop_class_patterns("Verification") == ("1.2.840.10008.1.1",)
    assert sop_class_patterns("1.2.840.*") == ("1.2.840.*",)
    both = sop_class_patterns("Enhanced[CM]?ImageStorage")
    assert {keyword_of(uid) for uid in both} == {"EnhancedCTImageStorage", "EnhancedMRImageStorage"}


def test_PS3_4_H_3_2_requests_name_members_of_a_meta_sop_class() -> None:
    assert carries_several("1.2.840.10008.5.1.1.9")
    assert carries_several("1.2.840.10008.5.1.4.34.6.3")
    assert not carries_several("1.2.840.10008.5.1.4.1.1.2")
    assert not carries_several("1.2.3.4")
