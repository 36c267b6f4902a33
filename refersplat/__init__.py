"""Referring segmentation in 3D Gaussian Splatting (ReferSplat, He et al., ICML 2025)."""
