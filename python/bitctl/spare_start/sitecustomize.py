"""Runs in a spare only: this folder is first on its PYTHONPATH. See bitctl/spare.py."""

import bitctl.spare

bitctl.spare.wait()
