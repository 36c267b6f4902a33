"""Sentences about scans: the datasets' files, their phrases and their word features."""
