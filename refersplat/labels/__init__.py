"""Labels drawn by hand: lassos, the Gaussians that they mean, masks in all photos."""
