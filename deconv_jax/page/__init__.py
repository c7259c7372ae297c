"""The pages to listen to: templates, style and script, and what is written into them."""
