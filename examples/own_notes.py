"""Train on notes of your own: a JSONL file with their codes, a CSV file with the codes' descriptions.

    python examples/own_notes.py

The notes here are made up, and so few that nothing is learnt; replace the files by yours.
"""

import json
from pathlib import Path

from transformers import Trainer, TrainingArguments

from kept_hf import DataCollatorForICDPrompting, KeptLongformerForICDPrompting, KeptProcessor
from kept_hf.corpora import load_corpus
from kept_hf.training import CheckPublication, prompt_rows
from kept_hf.training.conversion import convert_to_kept_longformer, converted_to
from kept_hf.training.weights import PACKAGED_WEIGHTS, weights_path

BASE = weights_path(PACKAGED_WEIGHTS)  # MiniLM
FOLDER = Path("outputs/own-notes")
MAX_LENGTH = 512
ATTENTION_WINDOW = 64
POSITION_PERIOD = 128
TRAINING = {"max_steps": 5, "per_device_train_batch_size": 4, "report_to": "none", "use_cpu": True}
CODES = {"I10": "Essential (primary) hypertension", "R05.9": "Cough, unspecified", "R50.9": "Fever, unspecified"}
NOTES = [
    ("Blood pressure remains high on two drugs.", ["I10"]),
    ("Coughing for a week, no fever.", ["R05.9"]),
    ("Febrile to 39 degrees, cough with sputum.", ["R05.9", "R50.9"]),
    ("Hypertensive since youth. Came with fever.", ["I10", "R50.9"]),
]


def write_files() -> None:
    """Files as the corpus "own" reads them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(FOLDER / "notes.jsonl", "w", encoding="utf-8") as file:
        for number in range(24):
            text, codes = NOTES[number % len(NOTES)]
            note = {"note_id": f"note-{number}", "patient_id": f"patient-{number // 2}", "text": text, "codes": codes}
            file.write(json.dumps(note) + "\n")
    lines = ["code,description", *(f'{code},"{description}"' for code, description in CODES.items())]
    (FOLDER / "codes.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Write the files, read them, train."""
    write_files()
    # One file is split by patient; {"train": FILE, "validation": FILE, "test": FILE} are splits of your own.
    corpus = load_corpus("own", data_files=FOLDER / "notes.jsonl", codes_file=FOLDER / "codes.csv")
    print({split: len(notes) for split, notes in corpus.dataset.items()}, corpus.code_set)

    base, tokenizer = convert_to_kept_longformer(BASE, MAX_LENGTH, ATTENTION_WINDOW, POSITION_PERIOD)
    processor = KeptProcessor(tokenizer, corpus.code_set, max_length=MAX_LENGTH)
    model = converted_to(KeptLongformerForICDPrompting, base, prompt_loss="two_way", **processor.config_overrides())
    model.config.data_license = corpus.card.license
    trainer = Trainer(
        model,
        TrainingArguments(output_dir=str(FOLDER / "model"), **TRAINING),
        data_collator=DataCollatorForICDPrompting(processor),
        train_dataset=prompt_rows(corpus.dataset["train"], processor),
        callbacks=[CheckPublication()],  # for push_to_hub=True
    )
    trainer.train()
    model.save_pretrained(FOLDER / "model")
    processor.save_pretrained(FOLDER / "model")


if __name__ == "__main__":
    main()
