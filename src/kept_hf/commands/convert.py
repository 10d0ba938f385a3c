"""Make a KEPT Longformer of another checkpoint, or give one another number of positions.

    kept-hf convert --model roberta-base --output_dir long --max_length 4096
    kept-hf convert --model yikuan8/Clinical-Longformer --output_dir long --max_length 16384

BERT and RoBERTa checkpoints become Longformers; a Longformer keeps its weights, and its position table is extended by
repetition or shortened. The result is a masked language model with its tokenizer, for `kept-hf train`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..models.modeling_kept_longformer import KeptLongformerForMaskedLM
from ..training.conversion import (
    BERT_LIKE,
    convert_to_kept_longformer,
    copy_local_to_global,
    resize_positions,
    supported_type,
)
from ..training.output_dir import check_output_dir
from .recipe import argument_errors

COMMAND = "convert"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        f"kept-hf {COMMAND}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="folder or model id: BERT, RoBERTa, Longformer or KEPT")
    parser.add_argument("--output_dir", required=True, help="folder to write")
    parser.add_argument("--max_length", type=int, required=True, help="tokens of the longest input")
    parser.add_argument(
        "--attention_window", type=int, help="width of the local attention of a BERT or RoBERTa (default: 512)"
    )
    parser.add_argument(
        "--position_period", type=int, help="repeat the first n positions only (default: the whole table)"
    )
    parser.add_argument(
        "--copy_global", action="store_true", help="copy a Longformer's local projections to its global ones"
    )
    arguments = parser.parse_args(argv)
    with argument_errors(COMMAND):
        check_output_dir(arguments.output_dir)
        model, tokenizer = convert(arguments)
        model.save_pretrained(arguments.output_dir)
        tokenizer.save_pretrained(arguments.output_dir)
    print(
        f"{arguments.output_dir}: {model.num_parameters():,} parameters, {model.config.num_hidden_layers} layers, "
        f"inputs of up to {model.config.max_sequence_length:,} tokens"
    )


def convert(arguments: argparse.Namespace) -> tuple[KeptLongformerForMaskedLM, PreTrainedTokenizerBase]:
    """The converted or resized model, and its tokenizer.

    Raises:
        ValueError: a checkpoint of another type, one without weights that are needed, or options that do not fit it.
        OSError: no such checkpoint.
    """
    model_type = supported_type(arguments.model)
    if model_type in BERT_LIKE:
        window = 512 if arguments.attention_window is None else arguments.attention_window
        return convert_to_kept_longformer(arguments.model, arguments.max_length, window, arguments.position_period)
    if arguments.attention_window is not None:
        raise ValueError(f"--attention_window is that of the checkpoint, which is of type {model_type}")
    model = KeptLongformerForMaskedLM.from_pretrained(arguments.model)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    resize_positions(model, arguments.max_length, arguments.position_period)
    tokenizer.model_max_length = arguments.max_length
    if arguments.copy_global:
        copy_local_to_global(model)
    return model, tokenizer


if __name__ == "__main__":
    main()
