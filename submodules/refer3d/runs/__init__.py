"""Programs and runs: options, run folders, saved states, logs, results."""
