"""``python -m dicom_secure_node``: the same as the command ``dicom-secure-node``."""

from __future__ import annotations

import sys

from dicom_secure_node.commands import main

if __name__ == "__main__":
    sys.exit(main())
