"""Networks: backbones by name, heads, and exports of trained backbones."""

from __future__ import annotations

from sslfast.models.backbone import build_backbone, check_input_size
from sslfast.models.decoder import PixelDecoder
from sslfast.models.export import export_backbone, load_backbone
from sslfast.models.feature_map import feature_map, feature_map_shape
from sslfast.models.heads import ProjectionHead
from sslfast.models.mae import MAEDecoder, encode_visible
from sslfast.models.resnet import resnet20
from sslfast.models.split_batch_norm import split_batch_norm

__all__ = [
    "MAEDecoder",
    "PixelDecoder",
    "ProjectionHead",
    "build_backbone",
    "check_input_size",
    "encode_visible",
    "export_backbone",
    "feature_map",
    "feature_map_shape",
    "load_backbone",
    "resnet20",
    "split_batch_norm",
]
