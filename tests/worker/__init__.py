"""The shipped part of the package, in real processes of every Python that this machine has."""
