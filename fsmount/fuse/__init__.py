"""The protocol adapter between the kernel and the filesystem; the one package that imports pyfuse3."""
