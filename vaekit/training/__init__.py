"""Steps and epochs, in memory."""
