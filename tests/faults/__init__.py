"""Faults of robustness.md, section 5, on a real machine: ``nox -s faults``. Each row tells its figure.

Rows that ``tests/processes`` or tests in virtual time cover already are named in the table, not repeated.
What this machine does not allow is skipped when it is tried, with the reason the system gave.
"""
