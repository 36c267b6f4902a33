"""Gaussians, their rendering and their files, shared by all stages."""
