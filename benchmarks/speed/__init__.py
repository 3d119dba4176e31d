"""The same work by lorakit and by its peers, each arm in a process of its own, by turns: `make bench`."""
