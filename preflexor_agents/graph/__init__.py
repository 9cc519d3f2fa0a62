"""The knowledge graph as plain values: what a fact is, how graphs are read from and written to other formats. Pure."""
