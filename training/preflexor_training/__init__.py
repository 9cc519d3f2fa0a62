"""Teach a model to think and reflect: data, masks, losses, trainers, and the bundled model nano."""
