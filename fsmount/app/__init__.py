"""The composition root: ``daemon`` serves a mount, ``offline`` opens its state directory without one.

Invariant: only this package names concrete classes of the parts it joins.
"""
