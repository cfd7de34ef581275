"""Photographs made into manipulated sets."""
