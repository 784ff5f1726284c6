"""What all pages share: templates, scripts, and the parts of charts."""
