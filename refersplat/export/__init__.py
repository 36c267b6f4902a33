"""Takes answers elsewhere: Gaussians for viewers, masks for annotation tools."""
