"""What is computed for an image: the posterior, the reconstruction, the bound."""
