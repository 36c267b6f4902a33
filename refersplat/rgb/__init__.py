"""The first stage: fits Gaussians to photos (Kerbl et al. 2023)."""
