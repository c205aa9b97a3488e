"""Carries the journal's ops to the remote.

    uploader.py    when: claims what is due, gathers small files, holds back while the remote cannot be used
    sending.py     how: the requests that each kind of op needs
    replaced.py    first: what a person's decision is about to replace is kept
    bodies.py      what: sealed, checked bytes, and the remote's own where they are to be compared or carried over
    settling.py    and then: from the outcome of a request to the journal, the overlay and the log
    wording.py     and in what words

Invariant: an op that was claimed is settled or given back whatever happens; only the end of the daemon leaves one
claimed, and the next start finds it.
"""

from fsmount.uploader.uploader import Uploader

__all__ = ["Uploader"]
