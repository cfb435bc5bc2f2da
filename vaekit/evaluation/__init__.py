"""What an embedding is worth, what in it is strange, and what is alike: the mathematics."""
