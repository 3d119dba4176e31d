"""The folder people share: writing, reading, merging."""
