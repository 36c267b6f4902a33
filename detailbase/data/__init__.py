"""Scans and descriptions in: read strictly, prepared once, batched the same on every run."""
