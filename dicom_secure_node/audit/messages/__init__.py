"""The fifteen audit messages of PS3.15 A.5.3, each built after its table.

======================= ========= =========================================
builder                 section   what it reports
======================= ========= =========================================
`application_activity`  A.5.3.1   an application starts or stops
`audit_log_used`        A.5.3.2   somebody reads the audit trail
`begin_transferring`    A.5.3.3   a transfer inside the security domain begins
`data_export`           A.5.3.4   data leaves the security domain
`data_import`           A.5.3.5   data enters it
`instances_accessed`    A.5.3.6   instances are used, changed or deleted
`instances_transferred` A.5.3.7   a transfer is complete
`study_deleted`         A.5.3.8   whole studies are deleted
`network_entry`         A.5.3.9   a node joins or leaves the network
`query`                 A.5.3.10  a query is issued or received
`security_alert`        A.5.3.11  anything a node has to raise an alert for
`user_authentication`   A.5.3.12  a user logs in or out, or tries to
`order_record`          A.5.3.13  an order is handled
`patient_record`        A.5.3.14  a patient record is handled
`procedure_record`      A.5.3.15  a procedure record is handled
======================= ========= =========================================

A builder is named after its table, and the table decides (`assembly.build`): codes and fixed
values come from it, what it demands cannot be left out, and ValueError or TypeError says what is
wrong while the message is built. Where one or several are taken, give one or a list. `model` holds
the values and writes the XML. A patient or user nobody knows is ``(unknown)``: no placeholder is
defined.
"""

from dicom_secure_node.audit.messages.access import (
    DicomQuery,
    OtherQuery,
    audit_log_used,
    instances_accessed,
    query,
    study_deleted,
)
from dicom_secure_node.audit.messages.application import application_activity, network_entry
from dicom_secure_node.audit.messages.assembly import Facts
from dicom_secure_node.audit.messages.media import Medium, data_export, data_import
from dicom_secure_node.audit.messages.objects import Patient, Study, patient, study
from dicom_secure_node.audit.messages.records import (
    order_record,
    patient_record,
    procedure_record,
)
from dicom_secure_node.audit.messages.security import security_alert, user_authentication
from dicom_secure_node.audit.messages.transfer import begin_transferring, instances_transferred
from dicom_secure_node.audit.model import (
    MAJOR_FAILURE,
    MINOR_FAILURE,
    SERIOUS_FAILURE,
    SUCCESS,
    AuditMessage,
    AuditSource,
    Participant,
    ParticipantObject,
)
from dicom_secure_node.audit.text import UNKNOWN
from dicom_secure_node.spec.audit import Code

__all__ = [
    "AuditMessage",
    "AuditSource",
    "Code",
    "DicomQuery",
    "Facts",
    "Medium",
    "OtherQuery",
    "Participant",
    "ParticipantObject",
    "Patient",
    "Study",
    "SUCCESS",
    "MINOR_FAILURE",
    "SERIOUS_FAILURE",
    "MAJOR_FAILURE",
    "UNKNOWN",
    "application_activity",
    "audit_log_used",
    "begin_transferring",
    "data_export",
    "data_import",
    "instances_accessed",
    "instances_transferred",
    "network_entry",
    "order_record",
    "patient",
    "patient_record",
    "procedure_record",
    "query",
    "security_alert",
    "study",
    "study_deleted",
    "user_authentication",
]
