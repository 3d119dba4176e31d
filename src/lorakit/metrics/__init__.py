"""How good answers are, free of models: from what was said and what was right to numbers with intervals."""
