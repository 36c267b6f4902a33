"""Shows a scan in the browser."""
