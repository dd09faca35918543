"""What an event is about: studies and the patient, as every table of A.5.3 wants them.

Patient and order data are what the tables list and no more: of a patient ID and name, of a study
its UID, description, accession numbers, SOP Classes and MPPS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NewType

from dicom_secure_node.audit.model import ParticipantObject
from dicom_secure_node.spec import audit as spec

Study = NewType("Study", ParticipantObject)
Patient = NewType("Patient", ParticipantObject)


def study(
    uid: str,
    description: str = "",
    *,
    accessions: Iterable[str] = (),
    sop_classes: Mapping[str, int] | None = None,
    mpps: Iterable[str] = (),
    encrypted: bool | None = None,
    anonymized: bool | None = None,
) -> Study:
    """Return a study for the message's objects; without description its UID is its name.

    `sop_classes` maps SOP Class UIDs to numbers of instances. When anything else of the
    description is given without it, a SOPClass with 0 instances is added (A.5.2 SOPClass, MC).
    """
    classes = tuple((sop_classes or {}).items())
    numbers, steps = tuple(accessions), tuple(mpps)
    if not classes and (numbers or steps or encrypted is not None or anonymized is not None):
        classes = (("", 0),)
    return Study(
        ParticipantObject(
            uid,
            spec.STUDY_INSTANCE_UID,
            2,
            3,
            description if description.strip() else uid,
            accessions=numbers,
            sop_classes=classes,
            encrypted=encrypted,
            anonymized=anonymized,
            mpps=steps,
        )
    )


def patient(patient_id: str, name: str = "", *, with_name: bool = True) -> Patient:
    """Return the patient for the message's objects.

    Parameters
    ----------
    with_name : bool
        False writes ``(unknown)`` in place of the name: the table makes the name mandatory, a
        site may rule that it does not leave the node.
    """
    return Patient(
        ParticipantObject(patient_id, spec.PATIENT_NUMBER, 1, 1, name if with_name else "")
    )
