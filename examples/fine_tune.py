"""Fine-tune a model on coded notes with the stock Trainer: what `kept-hf train` does, in one screen.

python examples/fine_tune.py
"""

from pathlib import Path

from transformers import Trainer, TrainingArguments

from kept_hf import DataCollatorForICDPrompting, KeptLongformerForICDPrompting, KeptProcessor
from kept_hf.corpora import load_corpus
from kept_hf.training import CheckPublication, ICDMetrics, prompt_rows
from kept_hf.training.conversion import convert_to_kept_longformer, converted_to
from kept_hf.training.weights import PACKAGED_WEIGHTS, weights_path

BASE = weights_path(PACKAGED_WEIGHTS)  # MiniLM; or "whaleloops/keptlongformer" with from_pretrained below
MAX_LENGTH = 768
ATTENTION_WINDOW = 64
POSITION_PERIOD = 128
CODES_PER_PROMPT = 15
OUTPUT = Path("outputs/fine-tune")
TRAINING = {
    "num_train_epochs": 2,
    "learning_rate": 1.5e-4,
    "per_device_train_batch_size": 8,
    "train_sampling_strategy": "sequential",
    "report_to": "none",
    "use_cpu": True,
}


def main() -> None:
    """Notes, prompts, model, training, evaluation."""
    corpus = load_corpus("demo")  # synthetic notes; splits with the columns note_id, text, codes

    # A BERT becomes a Longformer, whose positions repeat until a note fits.
    base, tokenizer = convert_to_kept_longformer(BASE, MAX_LENGTH, ATTENTION_WINDOW, POSITION_PERIOD)
    processor = KeptProcessor(tokenizer, corpus.code_set, max_length=MAX_LENGTH, codes_per_prompt=CODES_PER_PROMPT)
    model = converted_to(KeptLongformerForICDPrompting, base, prompt_loss="two_way", **processor.config_overrides())
    model.config.data_license = corpus.card.license  # so that models of credentialed notes stay private

    # A row is a prompt: descriptions of some codes, each with a mask, and the note.
    rows = {split: prompt_rows(notes, processor) for split, notes in corpus.dataset.items()}
    trainer = Trainer(
        model,
        TrainingArguments(output_dir=str(OUTPUT), **TRAINING),
        data_collator=DataCollatorForICDPrompting(processor),
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        compute_metrics=ICDMetrics(processor),
        callbacks=[CheckPublication()],  # for push_to_hub=True
    )
    trainer.train()
    metrics = trainer.evaluate()
    for name, value in metrics.items():
        print(f"{name:28} {value:.3f}")

    # The threshold that was best on validation goes with the model; `kept-hf predict --model` takes the folder.
    model.config.threshold = metrics["eval_threshold"]
    model.save_pretrained(OUTPUT)
    processor.save_pretrained(OUTPUT)


if __name__ == "__main__":
    main()
