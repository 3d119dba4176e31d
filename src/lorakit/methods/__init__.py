"""WHICH weights learn, a file each."""
