"""Datasets by name, and batches of them on the device."""

from sslfast.data.batches import batches
from sslfast.data.examples import ExampleSet
from sslfast.data.images import FolderImages, ImageSet, TensorImages
from sslfast.data.registry import DATASETS, LUMA, load_images, located, normalization, normalization_of
from sslfast.data.text import Passages, TokenSet, load_text

__all__ = [
    "DATASETS",
    "LUMA",
    "ExampleSet",
    "FolderImages",
    "ImageSet",
    "Passages",
    "TensorImages",
    "TokenSet",
    "batches",
    "load_images",
    "load_text",
    "located",
    "normalization",
    "normalization_of",
]
