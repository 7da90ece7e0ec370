"""A process without sslfast, in which other libraries open what it has exported: python foreign.py FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
import transformers
from torch import nn

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.2, 0.3]


def expected(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "expected.pt")


def by_timm(folder: Path) -> None:
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    found = expected(folder)
    torch.testing.assert_close(network(found["images"]), found["features"])
    about = timm.data.resolve_model_data_config(network)
    assert (about["input_size"], list(about["mean"]), about["crop_pct"]) == (found["images"].shape[1:], MEAN, 1.0)


def by_torch(folder: Path) -> None:
    network = timm.create_model("resnet18", num_classes=0)
    network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    network.load_state_dict(safetensors.torch.load_file(folder / "backbone.safetensors"))
    found = expected(folder)
    torch.testing.assert_close(network.eval()(found["images"]), found["features"])


def by_transformers(folder: Path) -> None:
    found, exported = expected(folder), folder / "run" / "exported"
    if "question" in found:
        answers = transformers.pipeline("fill-mask", str(exported))(found["question"])
        assert [answer["token"] for answer in answers] == found["tokens"]
        torch.testing.assert_close(torch.tensor([answer["score"] for answer in answers]), found["scores"])
        return
    model = transformers.AutoModelForCausalLM.from_pretrained(exported)
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    prompt = tokenizer(found["prompt"], return_tensors="pt")
    length = found["tokens"].shape[1] - prompt.input_ids.shape[1]
    assert torch.equal(model.generate(**prompt, max_new_tokens=length, do_sample=False), found["tokens"])


def by_sentence_transformers(folder: Path) -> None:
    from sentence_transformers import SentenceTransformer  # which takes seconds that the test's own process need not

    model, found = SentenceTransformer(str(folder / "run" / "exported"), device="cpu"), expected(folder)
    torch.testing.assert_close(model.encode(found["texts"], convert_to_tensor=True), found["features"])


if __name__ == "__main__":
    sys.modules["sslfast"] = None  # an import of it fails
    torch.set_grad_enabled(False)
    exports = Path(sys.argv[1])
    for one in (exports / "timm").iterdir():
        by_timm(one)
    by_torch(exports / "torch")
    for one in (exports / "mlm", exports / "clm"):
        by_transformers(one)
        by_sentence_transformers(one)
