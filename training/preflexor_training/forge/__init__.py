"""Preference data made on the fly from a corpus: questions, thinking, good answers and the attempts they must beat."""
