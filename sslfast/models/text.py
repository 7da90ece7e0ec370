"""Text models by name: BERT and GPT-2 of transformers, in the sizes that were published and in tiny ones."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslfast._extras import require
from sslfast._files import write_text
from sslfast._words import nearest
from sslfast.data.tokenizer import CLS, PAD, SEP, SPECIAL
from sslfast.models.weights import load_weights, save_weights

WEIGHTS, CONFIG = "model.safetensors", "config.json"
# Layers, width, attention heads. BERT's miniatures: Turc et al. 2019, https://arxiv.org/abs/1908.08962
BERT = {
    "bert-tiny": (2, 128, 2),
    "bert-mini": (4, 256, 4),
    "bert-small": (4, 512, 8),
    "bert-medium": (8, 512, 8),
    "bert-base": (12, 768, 12),
}
GPT2 = {"gpt2-tiny": (2, 128, 2), "gpt2-mini": (4, 256, 4), "gpt2": (12, 768, 12)}


class TextBackbone(nn.Module):
    """Rows of tokens, padded behind, to features: the mean of the last hidden states of all tokens but padding.

    forward: (B, L) int64 -> (B, F).

    Args:
        model: transformers' BertModel or GPT2Model.

    Attributes:
        num_features: F.
        vocabulary: tokens there are; ids 0 to 4 are the special ones of `data.tokenizer.SPECIAL`.
        causal: whether a token sees only those before it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.num_features: int = model.config.hidden_size
        self.vocabulary: int = model.config.vocab_size
        self.causal: bool = model.config.model_type == "gpt2"

    @property
    def embeddings(self) -> Tensor:
        """(vocabulary, F): those of the tokens, which heads share."""
        return self.model.get_input_embeddings().weight

    def hidden(self, tokens: Tensor) -> Tensor:
        """The last hidden state of every token, (B, L) -> (B, L, F).

        What comes after the first [SEP] is BERT's second segment. Padding is not attended to; its states mean nothing.
        """
        length = tokens.shape[1]
        if self.causal:  # padding is behind, where nothing looks; without a mask of ours, the host would wait for one
            seen = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()[None, None]
            return self.model(input_ids=tokens, attention_mask=seen, use_cache=False).last_hidden_state
        separators = tokens == SEP
        segments = (separators.cumsum(dim=1) - separators.long()).clamp(max=1)
        seen = (tokens != PAD)[:, None, None, :].expand(-1, 1, length, length)
        return self.model(input_ids=tokens, token_type_ids=segments, attention_mask=seen).last_hidden_state

    def pool(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """The mean over all positions but padding, (B, L, F) -> (B, F) float32."""
        real = (tokens != PAD).unsqueeze(2).float()  # (B, L, 1)
        return (hidden.float() * real).sum(dim=1) / real.sum(dim=1).clamp_min(1)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.pool(self.hidden(tokens), tokens)


class WordHead(nn.Module):
    """BERT's head over words: Linear, GELU, LayerNorm, then the token embeddings themselves and a bias.

    Args:
        features: F of the hidden states.
        vocabulary: tokens there are.
    """

    def __init__(self, features: int, vocabulary: int) -> None:
        super().__init__()
        self.transform = nn.Sequential(nn.Linear(features, features), nn.GELU(), nn.LayerNorm(features, eps=1e-12))
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, hidden: Tensor, embeddings: Tensor) -> Tensor:
        """(…, F) hidden states and (vocabulary, F) embeddings -> (…, vocabulary) logits."""
        return F.linear(self.transform(hidden), embeddings, self.bias)


def build_text_backbone(name: str, *, vocabulary: int, length: int) -> TextBackbone:
    """A randomly initialised text model, with the dropout of 0.1 that BERT and GPT-2 were published with.

    Weights start with a standard deviation of 0.02·sqrt(768 / width): the published one at the published width. With
    0.02 a network of width 128 took longer to guess words by more than their frequency.

    Args:
        name: bert-tiny, -mini, -small, -medium or -base; gpt2-tiny, gpt2-mini or gpt2.
        vocabulary: tokens there are.
        length: tokens of a row at most.

    Raises:
        ValueError: no such name. ImportError: transformers is not installed.
    """
    if name not in BERT | GPT2:
        hint = nearest(name, BERT | GPT2)
        raise ValueError(f"backbone must be one of {', '.join(BERT | GPT2)}, got {name!r}{hint}")
    transformers = require("transformers", extra="text")
    layers, width, heads = (BERT | GPT2)[name]
    special = {"bos_token_id": CLS, "eos_token_id": SEP, "vocab_size": vocabulary}
    # The published 0.02 is for a width of 768; narrower networks would hardly attend to each other's words at first.
    special["initializer_range"] = 0.02 * (768 / width) ** 0.5
    if name in GPT2:
        config = transformers.GPT2Config(n_layer=layers, n_embd=width, n_head=heads, n_positions=length, **special)
        return TextBackbone(transformers.GPT2Model(config))
    config = transformers.BertConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=length,
        pad_token_id=PAD,
        **special,
    )
    return TextBackbone(transformers.BertModel(config, add_pooling_layer=False))


def export_text(
    backbone: TextBackbone, folder: Path, *, tokenizer: Any, length: int, head: WordHead | None = None
) -> None:
    """Write the model and its tokenizer as transformers does, so that its Auto classes read them.

    ```python
    model = transformers.AutoModel.from_pretrained("RUN/exported")
    tokenizer = transformers.AutoTokenizer.from_pretrained("RUN/exported")
    hidden = model(**tokenizer("first segment", "second", return_tensors="pt")).last_hidden_state
    ```

    AutoModel adds an untrained pooler to a BERT, which leaves the hidden states alone. With a `head` it is a
    BertForMaskedLM, which `pipeline("fill-mask", "RUN/exported")` asks; a GPT-2, whose head is its embeddings, is a
    GPT2LMHeadModel.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole = backbone.model if head is None else _with_head(backbone, head)
    save_weights(whole, folder / WEIGHTS)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL))
    inputs = ["input_ids", *([] if backbone.causal else ["token_type_ids"]), "attention_mask"]
    fast = require("transformers", extra="text").PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=length, model_input_names=inputs, **names
    )
    with tempfile.TemporaryDirectory() as written:  # transformers writes in place, and hides what the disk says
        fast.save_pretrained(written)
        config = copy.deepcopy(backbone.model.config)
        config.architectures = ["GPT2LMHeadModel" if backbone.causal else type(whole).__name__]
        config.save_pretrained(written)
        # The configuration comes last: it says that the export is complete.
        for path in sorted(Path(written).iterdir(), key=lambda path: path.name == CONFIG):
            write_text(folder / path.name, path.read_text(encoding="utf-8"))


def _with_head(backbone: TextBackbone, head: WordHead) -> nn.Module:
    """transformers' BertForMaskedLM of the same weights."""
    with torch.random.fork_rng(devices=[]):
        whole = require("transformers", extra="text").BertForMaskedLM(copy.deepcopy(backbone.model.config))
    predictions, (dense, _, norm) = whole.cls.predictions, head.transform
    for theirs, ours in ((whole.bert, backbone.model), (predictions.transform.dense, dense)):
        theirs.load_state_dict(ours.state_dict())
    predictions.transform.LayerNorm.load_state_dict(norm.state_dict())
    with torch.no_grad():
        predictions.bias.copy_(head.bias)
        predictions.decoder.bias.copy_(head.bias)
    return whole


def without_head(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of the model in an export that has a head."""
    own = {name.removeprefix("bert."): weight for name, weight in weights.items() if name.startswith("bert.")}
    return own or weights


def load_text_backbone(folder: Path) -> TextBackbone:
    """What `export_text` wrote, in eval mode on the CPU.

    Raises:
        FileNotFoundError: a file is not there. ValueError: one is damaged.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is not there; sslfast pretrain writes it to RUN/exported")
    transformers = require("transformers", extra="text")
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        options = {} if config.model_type == "gpt2" else {"add_pooling_layer": False}
        model = transformers.AutoModel.from_config(config, trust_remote_code=False, **options)
        model.load_state_dict(without_head(load_weights(folder / WEIGHTS)))
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, AttributeError) as error:
        raise ValueError(f"{folder} does not hold an exported text model: {error!r}") from error
    return TextBackbone(model).eval()
