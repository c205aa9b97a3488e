"""fsmount: a remote file tree as a local directory, with a queue of writes that can be seen and steered."""

__version__ = "0.1.0"
