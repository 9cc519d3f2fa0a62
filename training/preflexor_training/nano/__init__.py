"""nano, the bundled model: facts, notes, dialogues, tokenizer, training, evaluation."""
