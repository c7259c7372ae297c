"""The studio: a page that asks, and a server on one's own machine that answers with sound, pictures and numbers."""
