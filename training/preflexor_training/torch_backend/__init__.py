"""Training with PyTorch: our own step on transformers' Trainer, or TRL's trainers fed with the same rows and masks."""
