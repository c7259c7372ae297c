"""Numbers about images, features and kernels, and what they are held against."""
