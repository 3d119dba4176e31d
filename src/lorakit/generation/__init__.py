"""Predict the next token, append it, feed it back, until the end-of-sequence token."""
