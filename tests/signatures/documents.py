"""SR documents and Key Object Selections that refer to instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"
COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"


def code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def evidence(paths: Sequence[Path]) -> list[Dataset]:
    """Return items of an evidence sequence that list instances, each study and series once."""
    studies: dict[str, Dataset] = {}
    series: dict[str, Dataset] = {}
    for path in paths:
        ds = pydicom.dcmread(path)
        if ds.StudyInstanceUID not in studies:
            study = studies[ds.StudyInstanceUID] = Dataset()
            study.StudyInstanceUID = ds.StudyInstanceUID
            study.ReferencedSeriesSequence = []
        if ds.SeriesInstanceUID not in series:
            one = series[ds.SeriesInstanceUID] = Dataset()
            one.SeriesInstanceUID = ds.SeriesInstanceUID
            one.ReferencedSOPSequence = []
            studies[ds.StudyInstanceUID].ReferencedSeriesSequence.append(one)
        item = Dataset()
        item.ReferencedSOPClassUID = ds.SOPClassUID
        item.ReferencedSOPInstanceUID = ds.SOPInstanceUID
        series[ds.SeriesInstanceUID].ReferencedSOPSequence.append(item)
    return list(studies.values())


def document(
    path: Path,
    current: Sequence[Path],
    other: Sequence[Path] = (),
    *,
    sop_class: str = COMPREHENSIVE_SR,
    verified: bool = False,
    syntax: str = ExplicitVRLittleEndian,
    undefined_lengths: bool = False,
) -> Path:
    """Write a document about instances and return its path."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.PatientName, ds.PatientID, ds.Manufacturer = "Lovelace^Ada", "1815", "Nobody"
    ds.Modality = "KO" if sop_class == KEY_OBJECTS else "SR"
    ds.ContentDate, ds.ContentTime, ds.InstanceNumber = "20240101", "120000", 1
    ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
    title = ("113035", "DCM", "Signed Complete Acquisition Content")
    if sop_class != KEY_OBJECTS:
        title = ("18748-4", "LN", "Diagnostic Imaging Report")
        ds.CompletionFlag = "COMPLETE"
        ds.VerificationFlag = "VERIFIED" if verified else "UNVERIFIED"
    if verified:
        observer = Dataset()
        observer.VerifyingOrganization = "Hospital"
        observer.VerificationDateTime = "20240101120000"
        observer.VerifyingObserverName = "Somerville^Mary"
        observer.VerifyingObserverIdentificationCodeSequence = Items()
        ds.VerifyingObserverSequence = [observer]
    ds.ConceptNameCodeSequence = [code(*title)]
    ds.CurrentRequestedProcedureEvidenceSequence = evidence(current)
    if other:
        ds.PertinentOtherEvidenceSequence = evidence(other)
    text = Dataset()
    text.RelationshipType, text.ValueType, text.TextValue = "CONTAINS", "TEXT", "Nothing odd."
    text.ConceptNameCodeSequence = [code("121106", "DCM", "Comment")]
    ds.ContentSequence = [text]
    if undefined_lengths:
        undefine(ds)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(path, enforce_file_format=True)
    return path


def undefine(ds: Dataset) -> None:
    for element in ds:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
                undefine(item)


def items_of(ds: Dataset) -> list[Dataset]:
    """Return the Referenced SOP Sequence items of a document's evidence, in its order."""
    return [
        item
        for keyword in (
            "CurrentRequestedProcedureEvidenceSequence",
            "PertinentOtherEvidenceSequence",
        )
        for study in ds.get(keyword) or ()
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    ]


def references(path: Path) -> Mapping[str, Dataset]:
    """Return the items of a document's evidence, by the instance each refers to."""
    return {str(item.ReferencedSOPInstanceUID): item for item in items_of(pydicom.dcmread(path))}
