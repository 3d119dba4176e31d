"""Fast paths, each beside the plain thing it must equal."""
