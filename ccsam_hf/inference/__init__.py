"""Load a published or saved image classifier and ask it for labels."""

from .classifier import Classifier
from .images import ImageTransform, open_image
from .loading import load_classifier

__all__ = ["Classifier", "ImageTransform", "load_classifier", "open_image"]
