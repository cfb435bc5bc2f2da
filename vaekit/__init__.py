"""vaekit: train, measure and deploy variational autoencoders on small images."""

__version__ = "0.1.0"
