"""Writing text: the next token, one after another, until the answer ends."""
