"""The networks; they know neither files nor training."""
