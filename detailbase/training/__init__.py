"""Training: losses, the state that it resumes from, and the loop over an epoch."""
