"""Rows from files, what they mean, what is wrong with them, and how they are laid side by side."""
