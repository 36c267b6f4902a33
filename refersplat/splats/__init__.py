"""What all stages share: the Gaussians, their rendering and their files."""
