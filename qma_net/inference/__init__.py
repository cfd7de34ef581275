"""From a photograph to a mask, and the model for other runtimes."""
