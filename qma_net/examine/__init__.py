"""Examination of one photo: file facts, readability, leads and the report."""
