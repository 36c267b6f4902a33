"""Finds the groups of Gaussians that a sentence means."""
