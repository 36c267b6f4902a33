"""Descriptions of scans: datasets, phrases and word features."""
