"""What every test shares: settings, and nothing that hides what a test does.

Real parts are started with `tests.parts`, certificates are made with `tests.certs`.
"""

from __future__ import annotations

import signal

import hypothesis

# What a shell starts in the background ignores SIGINT, and so would every program started here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: nothing here asserts how long something takes. No database: two workers and two runs
# on one machine must not share state. Every run sees the same examples; look for new ones with
# ``--hypothesis-profile=search``.
hypothesis.settings.register_profile("build", deadline=None, database=None, derandomize=True)
hypothesis.settings.register_profile("search", deadline=None, database=None, max_examples=5000)
hypothesis.settings.load_profile("build")
