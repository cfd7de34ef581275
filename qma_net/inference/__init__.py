"""Prediction: from a photo to a mask, and export for other runtimes."""
