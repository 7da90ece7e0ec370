"""Datasets by name, and batches of them on the device."""

from sslfast.data.batches import batches
from sslfast.data.examples import ExampleSet
from sslfast.data.images import FolderImages, ImageSet, TensorImages
from sslfast.data.registry import DATASETS, LUMA, load_images, normalization

__all__ = [
    "DATASETS",
    "LUMA",
    "ExampleSet",
    "FolderImages",
    "ImageSet",
    "TensorImages",
    "batches",
    "load_images",
    "normalization",
]
