"""The classifier's mathematics."""
