"""Image sets: uint8 arrays [N, C, H, W], and how files become them."""
