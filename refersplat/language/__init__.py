"""Which group of Gaussians a sentence means."""
