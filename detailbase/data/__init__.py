"""Batches of scans and descriptions: augmentation, voxels and targets."""
