"""Referring field of ReferSplat (He et al., ICML 2025), and its losses."""
