"""What must not be loaded: it would score at random, or not at all."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import randomize
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    LongformerConfig,
    LongformerModel,
    ModernBertConfig,
    ModernBertModel,
    pipeline,
)

from kept_hf import (
    ICDCodeSet,
    KeptLongformerForICDMatching,
    KeptLongformerForICDPrompting,
    KeptLongformerForMaskedLM,
    KeptLongformerModel,
    MSMNConfig,
    MSMNForICDCoding,
)
from kept_hf.candidates import dense
from kept_hf.candidates.definition import StageInputs
from kept_hf.candidates.kept import KeptFirstStage
from kept_hf.candidates.msmn import MSMNFirstStage
from kept_hf.commands import convert as convert_command
from kept_hf.commands import evaluate as evaluate_command
from kept_hf.pretraining.hsap.model import KeptLongformerForHSAP
from kept_hf.pretraining.masked_lm.model import KeptLongformerForBlocks
from kept_hf.training.arguments import ModelArguments
from kept_hf.training.base import BaseArguments, load_base
from kept_hf.training.conversion import convert_to_kept_longformer
from kept_hf.training.task import load_task

SMALL = {
    "vocab_size": 420,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 24,
    "pad_token_id": 1,
}
FOREIGN = {
    "modernbert": lambda: ModernBertModel(ModernBertConfig(**SMALL, bos_token_id=0, eos_token_id=2)),
    "electra": lambda: ElectraModel(ElectraConfig(**SMALL, embedding_size=16)),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(vocab_size=420, dim=16, hidden_dim=24, n_layers=2, n_heads=2)
    ),
}
OURS = (
    KeptLongformerModel,
    KeptLongformerForMaskedLM,
    KeptLongformerForICDPrompting,
    KeptLongformerForICDMatching,
    KeptLongformerForHSAP,
    KeptLongformerForBlocks,
)
CODES = ICDCodeSet(["401.9", "038.9"])
READABLE = "kept_longformer, kept_longformer_matching, longformer"
SUPPORTED = f"bert, roberta, xlm-roberta, camembert, {READABLE}"


@pytest.fixture(params=FOREIGN)
def foreign(request, tmp_path, roberta_tokenizer):
    FOREIGN[request.param]().save_pretrained(tmp_path)
    roberta_tokenizer.save_pretrained(tmp_path)
    return request.param, tmp_path


def test_architectures_that_cannot_be_prompted(foreign):
    model_type, folder = foreign
    for model_class in OURS:
        with pytest.raises(ValueError, match=f"is of model_type '{model_type}'; .* type {READABLE}.*kept-hf convert"):
            model_class.from_pretrained(folder)
        with pytest.raises(ValueError, match=f"is of model_type '{model_type}'; .* type {SUPPORTED}"):
            load_base(model_class, BaseArguments(str(folder)))
    with pytest.raises(ValueError, match=f"is of model_type '{model_type}'; .* type {SUPPORTED}"):
        load_task(ModelArguments(str(folder)), CODES)
    with pytest.raises(ValueError, match=f"is of model_type '{model_type}'; .* type bert, roberta"):
        convert_to_kept_longformer(str(folder))
    for load in (MSMNForICDCoding, MSMNFirstStage):
        with pytest.raises(ValueError, match=f"is of model_type '{model_type}'; pass a checkpoint of type msmn"):
            load.from_pretrained(folder)


def test_the_command_convert(foreign, tmp_path, capsys):
    model_type, folder = foreign
    with pytest.raises(SystemExit):
        convert_command.main(["--model", str(folder), "--output_dir", str(tmp_path / "new"), "--max_length", "99"])
    assert f"is of model_type '{model_type}'; pass a checkpoint of type {SUPPORTED}" in capsys.readouterr().err


def test_a_foreign_encoder_is_welcome_where_only_vectors_are_wanted(foreign):
    _, folder = foreign
    retriever = dense._retriever(StageInputs(CODES, encoder=str(folder)))
    assert torch.isfinite(retriever.encode(["fever"])).all()


SCORERS = "kept_longformer, kept_longformer_matching"


@pytest.mark.parametrize("model_type", ["bert", "longformer"])
def test_classifiers_of_random_weights(tmp_path, processor, capsys, model_type):
    """What transformers' Auto class makes of other checkpoints."""
    if model_type == "bert":
        BertModel(BertConfig(**SMALL)).save_pretrained(tmp_path)
    else:
        stock_longformer(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"is of model_type '{model_type}'; pass a checkpoint of type {SCORERS}"):
        KeptFirstStage.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"is of model_type '{model_type}'; pass a checkpoint of type {SCORERS}"):
        pipeline("icd-coding", model=str(tmp_path), processor=processor, device="cpu")
    with pytest.raises(SystemExit):
        evaluate_command.main([str(tmp_path), "--corpus", "demo", "--output_dir", str(tmp_path / "new")])
    assert f"is of model_type '{model_type}'; pass a checkpoint of type msmn, {SCORERS}" in capsys.readouterr().err


def stock_longformer(folder):
    config = LongformerConfig(**SMALL, attention_window=4, max_position_embeddings=40)
    model = randomize(LongformerModel(config))
    model.save_pretrained(folder)
    return model


def test_a_longformer_without_a_head(tmp_path):
    """What asks the masks needs one; where it is trained, or of no use, it may be new."""
    stock = stock_longformer(tmp_path)
    for model_class in (KeptLongformerForICDPrompting, KeptLongformerForMaskedLM, KeptLongformerForHSAP):
        message = (
            r"lacks 6 of the \d+ weights of the model, which would be random: lm_head\.bias, lm_head\.decoder\.bias"
        )
        with pytest.raises(ValueError, match=message):
            model_class.from_pretrained(tmp_path)
    for model_class in (KeptLongformerModel, KeptLongformerForICDMatching, KeptLongformerForBlocks):
        loaded = model_class.from_pretrained(tmp_path).base_model.state_dict()
        assert torch.equal(loaded["embeddings.word_embeddings.weight"], stock.embeddings.word_embeddings.weight)
    head = KeptLongformerForBlocks.from_pretrained(tmp_path).lm_head
    assert not head.bias.any() and head.decoder.bias is head.bias, "transformers leaves what lay in memory"


def test_a_checkpoint_of_other_names(tmp_path):
    """Weights of a BERT whose configuration says Longformer."""
    stock_longformer(tmp_path)
    weights = {f"bert.{name}": value for name, value in BertModel(BertConfig(**SMALL)).state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=r"lacks (\d+) of the \1 weights of the model, .*: lm_head\.bias, .*, …\. Pass"
    ):
        KeptLongformerForICDPrompting.from_pretrained(tmp_path)


def test_a_bert_that_lacks_weights(tmp_path, bert_tokenizer):
    BertModel(BertConfig(**SMALL | {"vocab_size": len(bert_tokenizer)})).save_pretrained(tmp_path)
    bert_tokenizer.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    for name in ("pooler.dense.weight", "pooler.dense.bias"):
        del weights[name]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    convert_to_kept_longformer(str(tmp_path), 20, 4)
    dense._retriever(StageInputs(CODES, encoder=str(tmp_path)))
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    message = r"lacks 1 of the \d+ weights .*: encoder\.layer\.1\.output\.dense\.weight"
    with pytest.raises(ValueError, match=message):
        convert_to_kept_longformer(str(tmp_path), 20, 4)
    with pytest.raises(ValueError, match=message):
        dense._retriever(StageInputs(CODES, encoder=str(tmp_path)))


def test_a_bert_that_says_it_has_a_head(tmp_path, bert_tokenizer):
    BertModel(BertConfig(**SMALL | {"vocab_size": len(bert_tokenizer)})).save_pretrained(tmp_path)
    bert_tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["BertForMaskedLM"]}))
    with pytest.raises(ValueError, match=r"lacks 6 of the \d+ weights .*: cls\.predictions\.bias"):
        convert_to_kept_longformer(str(tmp_path), 20, 4)


def test_late_interaction_has_no_head_to_prompt(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "prompting")
    matching = KeptLongformerForICDMatching.from_pretrained(tmp_path / "prompting")
    matching.save_pretrained(tmp_path / "matching")
    assert type(AutoModel.from_pretrained(tmp_path / "matching")) is KeptLongformerForICDMatching
    with pytest.raises(ValueError, match=r"lacks 6 of .* lm_head\.bias"):
        load_base(KeptLongformerForICDPrompting, BaseArguments(str(tmp_path / "matching")))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(tiny_model, tmp_path, value):
    with torch.no_grad():
        tiny_model.longformer.encoder.layer[1].output.dense.weight[3, 2] = value
    tiny_model.save_pretrained(tmp_path)
    for auto in (AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification):
        with pytest.raises(ValueError, match=r"NaN or infinity in 1 of its weights: .*layer\.1\.output\.dense\.weight"):
            auto.from_pretrained(tmp_path)


def test_an_msmn_without_its_weights(tmp_path):
    config = MSMNConfig(vocab_size=9, num_synonyms=1, id2label={0: "I10"}, embedding_size=4, attention_size=4)
    model = MSMNForICDCoding(config)
    model.set_label_terms(torch.tensor([[3, 4]]))
    model.save_pretrained(tmp_path)
    assert AutoModel.from_pretrained(tmp_path).config.term_length == 2
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in weights.items() if name not in ("term_input_ids", "query.weight")}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 2 of the \d+ weights .*: query\.weight, term_input_ids"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)
    weights["query.weight"][:] = float("nan")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"NaN or infinity in 1 of its weights: query\.weight"):
        MSMNFirstStage.from_pretrained(tmp_path)
