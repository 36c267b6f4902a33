"""Inference on a trained scene: masks, evaluation samples, overlays, reports, videos."""
