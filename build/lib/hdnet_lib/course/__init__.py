"""What the notebooks need beside the library: figures, widgets, exercises, reports, published numbers."""
