"""The paper's referring field: which Gaussians answer a sentence (He et al., ICML 2025)."""
