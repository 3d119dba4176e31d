"""HOW weights learn: the loop, the optimizer, saved states, evaluation, reporters."""
