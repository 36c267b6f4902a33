"""Scans: meshes, clouds, ScanNet's layout, and preparation for training."""
