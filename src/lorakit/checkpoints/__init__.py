"""Base checkpoints: finding, reading, fingerprints, and making new ones."""
