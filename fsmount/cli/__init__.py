"""The command line: argv to app and back to an exit code.

Invariant: no command touches a mount point in its own process (see ``child``), and each starts fast: what needs the
network, FUSE or a loop is imported by the command that uses it.
"""
