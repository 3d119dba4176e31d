"""WHAT is learned, a file each."""
