"""Stands in the way of NumPy in the receivers that are measured.

pydicom imports it where it is installed, which costs a process 18 MiB. The pictures of a run
need it; a node does not, and a plain installation has none.
"""

raise ImportError("the receivers are measured without it, like a plain installation")
