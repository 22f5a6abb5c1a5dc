"""The version of this package, which weights record."""

__version__ = "0.2.0"
