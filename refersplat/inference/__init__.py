"""What a trained scene is asked: masks, evaluation samples, overlays, reports, videos."""
