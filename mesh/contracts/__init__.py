"""Prints `schemas/v1`: what a client, auditor or verifier in any language must agree with, taken from the code that enforces it.

Nothing here is read at run time. A test renders it again and compares.
"""

__all__: list[str] = []
