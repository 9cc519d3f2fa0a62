"""The parts of the screens; each is handed plain values and draws what changed."""
