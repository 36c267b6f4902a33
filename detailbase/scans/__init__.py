"""Scans in: meshes, clouds, ScanNet's layout, and their preparation."""
