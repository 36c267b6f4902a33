"""Sparse convolution under the names that users of spconv 2 import."""

__version__ = "2.3.8"
"""The version of spconv whose behaviour this follows."""
