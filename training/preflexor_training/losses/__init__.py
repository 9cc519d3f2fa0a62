"""Preference losses as functions of per-token log-probs: the definition that every backend is tested against."""
