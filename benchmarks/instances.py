"""Made-up instances to send: one encoded template a load, a new UID for each file.

The node keeps what it has received, and treats the same UID as the same instance: a file that
had been sent before would be measured as a duplicate.
"""

from __future__ import annotations

import io
import itertools
import os
import time
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

MIB = 1 << 20
_GRAYSCALE_WORD_SC = "1.2.840.10008.5.1.4.1.1.7.3"  # Multi-frame Grayscale Word Secondary Capture
_PLACE_HOLDER = "2.25.1000000000000000000"
_TECHNIQUE = (
    "SliceThickness",
    "KVP",
    "DataCollectionDiameter",
    "ReconstructionDiameter",
    "GantryDetectorTilt",
    "DistanceSourceToDetector",
    "DistanceSourceToPatient",
    "TableHeight",
    "ExposureTime",
    "XRayTubeCurrent",
    "Exposure",
    "GeneratorPower",
    "FocalSpots",
    "SliceLocation",
    "WindowCenter",
    "WindowWidth",
)
_serial = itertools.count(time.time_ns())  # 19 digits, as the place holder


@dataclass(frozen=True)
class Load:
    """What one measurement sends.

    Attributes
    ----------
    name : str
        As tables show it.
    count : int
        Instances of one measurement, shared out among its associations; each has one at least.
    template : bytes
        A whole Part 10 file.
    by_size : bool
        True where MB/s say more than instances/s.
    """

    name: str
    count: int
    template: bytes
    by_size: bool

    def write(self, folder: Path) -> list[Path]:
        """Write `count` files that nobody has seen before."""
        folder.mkdir()
        paths = []
        for number in range(self.count):
            uid = f"2.25.{next(_serial)}".encode()
            path = folder / f"{number:05d}.dcm"
            path.write_bytes(self.template.replace(_PLACE_HOLDER.encode(), uid))
            paths.append(path)
        return paths

    def amount(self, seconds: float) -> float:
        """Return MB/s or instances/s."""
        each = len(self.template) / 1e6 if self.by_size else 1
        return self.count * each / seconds


LOADS = ("ct", "small", "large")


def loads(*, quick: bool) -> dict[str, Load]:
    """Return the loads of `LOADS`; a quick one proves only that everything works."""
    few = 4
    size = 1 if quick else 100
    made = (
        Load("CT, 0.5 MiB", few if quick else 400, ct(512, 512), by_size=True),
        Load("CT, 20 KiB", few if quick else 1000, ct(96, 96), by_size=False),
        Load(f"multi-frame, {size} MiB", few, multi_frame(2 * size), by_size=True),
    )
    return dict(zip(LOADS, made, strict=True))


def ct(rows: int, columns: int) -> bytes:
    """Return a CT image, uncompressed, with about as many attributes as scanners send."""
    ds = _image(CTImageStorage, "CT", rows, columns)
    for number, keyword in enumerate(_TECHNIQUE):
        setattr(ds, keyword, str(100 + number))
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.ImagePositionPatient = ["-250", "-250", "-120.5"]
    ds.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    ds.FrameOfReferenceUID = generate_uid()
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "-1024", "1", "HU"
    ds.PixelSpacing = ["0.9765625", "0.9765625"]
    return _encoded(ds)


def multi_frame(frames: int) -> bytes:
    """Return a multi-frame image of half a MiB a frame."""
    ds = _image(_GRAYSCALE_WORD_SC, "OT", 512, 512, frames)
    ds.NumberOfFrames = frames
    return _encoded(ds)


def _image(sop_class: str, modality: str, rows: int, columns: int, frames: int = 1) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, _PLACE_HOLDER
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20260102"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "101112.345"
    ds.Modality, ds.AccessionNumber, ds.StudyID = modality, "B1", "1"
    ds.Manufacturer, ds.ManufacturerModelName = "Nobody", "Benchmark"
    ds.InstitutionName, ds.StationName = "Nowhere", "BENCH1"
    ds.StudyDescription, ds.SeriesDescription = "Benchmark", "Made-up instances"
    ds.PatientName, ds.PatientID = "Benchmark^Made Up", "BENCH-1"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "19700101", "O", "056Y"
    ds.PatientPosition, ds.BodyPartExamined, ds.ProtocolName = "HFS", "CHEST", "1.1 Routine"
    ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = 1, 1, 1
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99BENCH", "Routine"
    ds.ProcedureCodeSequence, ds.RequestAttributesSequence = [code], [Dataset()]
    ds.RequestAttributesSequence[0].ScheduledProcedureStepID = "1"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = rows, columns
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.add_new("PixelData", "OW", os.urandom(rows * columns * 2 * frames))
    return ds


def _encoded(ds: Dataset) -> bytes:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
