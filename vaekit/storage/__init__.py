"""The ground: files that are whole or not there, sealed JSON, tensors. It knows no VAE."""
