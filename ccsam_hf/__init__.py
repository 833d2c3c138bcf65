"""CC-SAM for long-tailed recognition, as a timm and Hugging Face plugin."""
