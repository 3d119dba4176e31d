"""The doors: one file a command; parse, call one workflow, print."""
