"""How the graph grows: facts read out of passages by a model, answers written back, questions of its own."""
