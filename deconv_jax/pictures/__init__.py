"""Arrays → pictures."""
