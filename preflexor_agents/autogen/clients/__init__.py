"""Model clients of AutoGen over Ollama and llama.cpp; both entry points of each are made from one code path."""
