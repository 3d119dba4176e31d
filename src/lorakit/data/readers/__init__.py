"""One file a kind of file: each turns bytes into rows, and says where a broken row stands."""
