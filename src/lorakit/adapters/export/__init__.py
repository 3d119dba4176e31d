"""What other programs read: written, and read back through their own runtimes."""
