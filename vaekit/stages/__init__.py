"""The work of one verb each."""
