"""The same examples in every run, so that a change of the code is what changes an outcome.

``HYPOTHESIS_PROFILE=default`` searches afresh.
"""

import os

from hypothesis import settings

from tests.figures import figures, pytest_terminal_summary

__all__ = ["figures", "pytest_terminal_summary"]

settings.register_profile("fixed", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
