"""Shows a run in the browser."""
