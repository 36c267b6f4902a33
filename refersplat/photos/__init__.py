"""Makes a scene from photos or a video: poses by COLMAP, undistorted, level, in a sensible unit."""
