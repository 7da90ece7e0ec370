"""What a run exports, opened by other libraries in a new process that has no sslfast, gives the same outputs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import foreign
import pytest
import textruns
import torch
import transformers

import sslfast
from sslfast.data.tokenizer import MASK
from sslfast.evaluate import Run
from sslfast.models import build_backbone, export_backbone
from sslfast.train import pretrain

# And the side of their images in pixels.
NETWORKS = {"vit_micro_patch4": 16, "vit_tiny_patch16_224": 32, "resnet18": 96, "coat_tiny": 32}
PROMPT = "the ship of"


def export_images(folder: Path, name: str, size: int) -> None:
    """An export, and features of some images by the network that it is of."""
    torch.manual_seed(0)
    network = build_backbone(name, image_size=size).eval()
    normalized = {"mean": foreign.MEAN, "std": foreign.STD}
    export_backbone(network, folder, config={"backbone": name, "in_channels": 3, "image_size": size, **normalized})
    images = torch.randn(2, 3, size, size)
    save(folder, images=images, features=network(images))
    torch.testing.assert_close(sslfast.load_backbone(folder)(images), network(images))


def export_text(folder: Path, method: str) -> Run:
    folder.mkdir()
    config = textruns.tiny_config(method, textruns.write_text(folder / "text.txt"), epochs=1)
    pretrain(config, folder / "run")
    return Run(folder / "run")


def save(folder: Path, **expected: object) -> None:
    torch.save(expected, folder / "expected.pt")


def tokens_of(run: Run, *texts: str) -> torch.Tensor:
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.folder / "exported")
    return tokenizer(list(texts), padding=True, return_tensors="pt").input_ids


@pytest.mark.slow
@torch.no_grad()
def test_outputs_elsewhere_are_ours(tmp_path: Path) -> None:
    for name, size in NETWORKS.items():
        export_images(tmp_path / "timm" / name, name, size)
    export_images(tmp_path / "torch", "resnet18", 32)

    with torch.enable_grad():
        words = export_text(tmp_path / "mlm", "mlm")
        causal = export_text(tmp_path / "clm", "clm")
    texts = [f"{PROMPT} sea was near", "the oven"]
    question, method = "the [MASK] of sea", words.method().eval()
    tokens = tokens_of(words, question)
    logits = method.words.head(method.backbone.hidden(tokens), method.backbone.embeddings)
    scores = logits[tokens == MASK].softmax(dim=1)[0].topk(5)
    answers = {"question": question, "tokens": scores.indices.tolist(), "scores": scores.values}
    save(tmp_path / "mlm", texts=texts, features=words.backbone()(tokens_of(words, *texts)), **answers)

    network, continued = causal.backbone(), tokens_of(causal, PROMPT)
    for _ in range(5):
        following = (network.hidden(continued) @ network.embeddings.T)[:, -1].argmax(dim=1, keepdim=True)
        continued = torch.cat([continued, following], dim=1)
    save(tmp_path / "clm", texts=texts, features=network(tokens_of(causal, *texts)), prompt=PROMPT, tokens=continued)

    command = [sys.executable, foreign.__file__, str(tmp_path)]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
