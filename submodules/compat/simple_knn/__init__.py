"""The names of simple-knn, as 3D Gaussian Splatting code imports them, on CPUs too."""
