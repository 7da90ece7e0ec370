"""What methods, protocols and baselines are called in front of people."""

from __future__ import annotations

METHOD_NAMES = {
    "simclr": "SimCLR",
    "moco": "MoCo v2",
    "byol": "BYOL",
    "simsiam": "SimSiam",
    "mae": "MAE",
    "rotation": "Rotation",
    "jigsaw": "Jigsaw",
    "relative-patch": "Relative patch location",
    "colorization": "Colorization",
    "inpainting": "Inpainting",
    "mlm": "MLM",
    "clm": "CLM",
    "sop": "SOP",
    "nsp": "NSP",
    "mlm-sop": "MLM + SOP",
    "mlm-nsp": "MLM + NSP",
}
PROTOCOL_NAMES = {
    "linear": "Linear probe",
    "knn": "kNN",
    "few-shot": "Few-shot, linear",
    "few-shot-finetune": "Few-shot, fine-tuned",
    "finetune": "Fine-tuning",
    "pretext": "Pretext task",
}
BASELINES = {"random_init": "random init", "pixels": "raw pixels", "bag_of_words": "bag of words"}


def headline(metric: str, value: float) -> str:
    """A result's value as text: an accuracy in per cent, anything else as it is."""
    return f"{100 * value:.1f}%" if metric == "accuracy" else f"{value:.3g}"
