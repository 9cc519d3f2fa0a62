"""Turn a trained folder into a GGUF file that is checked against the model it came from."""
