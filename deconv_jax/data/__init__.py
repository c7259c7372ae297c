"""Tracks, tables, splits and the clip store."""
