"""What a run reads and leaves: config files in; checkpoints, logs and results out."""
