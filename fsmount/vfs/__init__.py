"""The filesystem in domain terms: what a program sees, and what its system calls mean.

Invariant: nothing here knows FUSE, HTTP or SQL; only the ports.
"""
