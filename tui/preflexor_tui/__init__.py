"""Terminal UI: watch a model think, and steer it."""
