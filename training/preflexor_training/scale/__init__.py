"""Training with several processes: one leads the run, the others follow it through each step."""
