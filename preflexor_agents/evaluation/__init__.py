"""Measures models and protocols on questions with known answers, and against one another, with intervals."""
