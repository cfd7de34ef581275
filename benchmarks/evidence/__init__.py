"""The small protocol: what this implementation learns from nothing, and which parts help."""
