"""Digital signatures in DICOM instances (PS3.15 Annex C)."""
