"""Referring segmentation of point clouds: a mask for every noun phrase (3D-DRES, AAAI 2026)."""
