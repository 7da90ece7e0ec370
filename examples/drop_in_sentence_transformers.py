"""Fine-tunes a SentenceTransformer with its own trainer, and the import that makes its loss fast.

    python examples/drop_in_sentence_transformers.py                   # with sslfast's loss
    python examples/drop_in_sentence_transformers.py --loss library    # with sentence-transformers' own
    python examples/drop_in_sentence_transformers.py --loss both       # both, and how far apart the two loss curves are

The beginning of a passage of Python's own help finds the rest of it, before that of another passage of the same topic.
With --mini-batch-size texts pass the model so many at a time (CachedMultipleNegativesRankingLoss). The model is
--model, a folder like RUN/exported of `sslfast pretrain mlm`, or else a small BERT that knows nothing yet. Needs
sentence-transformers, accelerate and datasets.
"""

import argparse
import tempfile
import time
from pydoc_data.topics import topics

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer import losses as library
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from sslfast.compat import sentence_transformers as sslfast  # the one import

WORDS = 24  # of an anchor; its passage goes on for as many
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


def triplets():
    """Columns of texts: the beginnings of passages, their rests, and rests of other passages of the same topics."""
    columns = {"anchor": [], "positive": [], "negative": []}
    for text in topics.values():
        words = text.split()
        passages = [words[i : i + 2 * WORDS] for i in range(0, len(words) - 2 * WORDS + 1, 2 * WORDS)]
        if len(passages) > 1:
            columns["anchor"] += [" ".join(passage[:WORDS]) for passage in passages]
            rests = [" ".join(passage[WORDS:]) for passage in passages]
            columns["positive"] += rests
            columns["negative"] += rests[1:] + rests[:1]
    return Dataset.from_dict(columns).shuffle(seed=0)


def write_new_model(folder, texts):
    """A BERT of two layers and its WordPieces, as transformers' Auto classes read them."""
    pieces = BertWordPieceTokenizer()
    pieces.train_from_iterator(texts, vocab_size=4096, show_progress=False)
    PreTrainedTokenizerFast(tokenizer_object=pieces._tokenizer, model_max_length=128, **SPECIAL).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=pieces.get_vocab_size(), hidden_size=128, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=512, max_position_embeddings=128, initializer_range=0.05,
        hidden_dropout_prob=0, attention_probs_dropout_prob=0,  # the library draws dropout for all documents at once
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)


def train(losses, model_folder, data, held_out, arguments):
    """Losses of all steps, and how many of the anchors held out find their positive first among all of theirs."""
    model = SentenceTransformer(model_folder, device="cpu")  # the mean of the last hidden states
    if arguments.mini_batch_size:
        loss = losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=arguments.mini_batch_size)
    else:
        loss = losses.MultipleNegativesRankingLoss(model)
    with tempfile.TemporaryDirectory() as output:
        settings = SentenceTransformerTrainingArguments(
            output_dir=output, per_device_train_batch_size=arguments.batch_size, learning_rate=1e-3, warmup_steps=10,
            max_steps=arguments.steps, logging_steps=1, disable_tqdm=True, report_to="none", save_strategy="no",
            use_cpu=True, seed=0,
        )  # fmt: skip
        trainer = SentenceTransformerTrainer(model=model, args=settings, train_dataset=data, loss=loss)
        trainer.train()
    curve = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    anchors, positives = (model.encode(held_out[name], convert_to_tensor=True) for name in ("anchor", "positive"))
    first = model.similarity(anchors, positives).argmax(dim=1)
    return curve, (first == torch.arange(len(first))).float().mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loss", choices=["sslfast", "library", "both"], default="sslfast", help="(%(default)s)")
    parser.add_argument("--model", metavar="FOLDER", help="what to fine-tune (a small new BERT)")
    parser.add_argument("--steps", type=int, default=200, help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="triplets (%(default)s)")
    parser.add_argument("--mini-batch-size", type=int, help="texts that pass together (all)")
    arguments = parser.parse_args()
    data = triplets()
    held_out, data = data.select(range(len(data) // 5)), data.select(range(len(data) // 5, len(data)))
    curves = {}
    with tempfile.TemporaryDirectory() as folder:
        if arguments.model is None:
            write_new_model(folder, [*data["anchor"], *data["positive"]])
        for name in ("library", "sslfast") if arguments.loss == "both" else (arguments.loss,):
            start = time.perf_counter()
            losses = sslfast if name == "sslfast" else library
            curves[name], found = train(losses, arguments.model or folder, data, held_out, arguments)
            print(
                f"{name}: loss {curves[name][0]:.4f} -> {curves[name][-1]:.4f} in {time.perf_counter() - start:.1f} s; "
                f"{found:.1%} of the passages held out find their rest first"
            )
    if arguments.loss == "both":
        apart = max(abs(a - b) for a, b in zip(curves["library"], curves["sslfast"], strict=True))
        print(f"the two loss curves are at most {apart:.1e} apart over {len(curves['library'])} steps")


if __name__ == "__main__":
    main()
