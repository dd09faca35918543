"""Encoded data elements: raw bytes in, positions and values out, nothing decoded unasked."""
