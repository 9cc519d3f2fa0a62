"""Training with MLX: the same recipes, rows, masks, losses and seeds as with torch. Needs the `mlx` extra."""
