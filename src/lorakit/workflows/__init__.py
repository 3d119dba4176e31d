"""The verbs: each composes the parts, returns a value, prints nothing."""
