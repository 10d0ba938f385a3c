import json

import pytest
from huggingface_hub.errors import RepositoryNotFoundError
from pretraining_results import hsap_results

from kept_hf import KeptLongformerForMaskedLM
from kept_hf.hub.hsap_card import make_hsap_card, terms_license
from kept_hf.hub.licenses import combine_licenses
from kept_hf.knowledge import SOURCES
from kept_hf.models import publication as data_access
from kept_hf.models.publication import CREDENTIALED, RESTRICTED, UMLS


def card(folder, **changed):
    (folder / "all_results.json").write_text(json.dumps(hsap_results(**changed)))
    return make_hsap_card(folder, "me/hsap")


def test_card_names_sources_licences_and_results(tmp_path):
    made = card(tmp_path)
    for source in ("icd10cm", "hpo"):
        assert f"- {SOURCES[source].title}. Licence: {SOURCES[source].license}." in made.text
    assert SOURCES["umls"].title not in made.text and "Not to be passed on freely" not in made.text
    assert "| held-out synonyms, accuracy@1 | 2000 | 0.376 | 0.481 |" in made.text or "| 0.377 | 0.481 |" in made.text
    assert "tree distance | 90 | – | -0.700 |" in made.text
    assert "68,368 medical concepts" in made.text and "10.0 minutes" in made.text
    assert 'from_pretrained("me/hsap", pooling="mean")' in made.text
    assert "`learning_rate` 0.0005" in made.text and "no_siblings" not in made.text
    assert "/home" not in str(made), "no path of the machine"
    assert made.data.to_dict()["license"] == "other" and made.data.to_dict()["license_name"].startswith("several")
    assert made.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert "](linking.png)" not in made.text
    (tmp_path / "linking.png").write_bytes(b"")
    assert "](linking.png)" in make_hsap_card(tmp_path).text


def test_card_of_umls(tmp_path):
    made = card(tmp_path, sources=["umls"])
    assert made.data.to_dict()["license_name"] == RESTRICTED[UMLS]
    assert "**Not to be passed on freely.**" in made.text and UMLS in made.text


def test_no_results(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no all_results\.json; make the model with kept-hf pretrain hsap"):
        make_hsap_card(tmp_path)


def test_licence_of_the_weights():
    assert SOURCES["umls"].license == UMLS, "the guard knows it by this name"
    assert terms_license(["icd10cm", "umls", "csv"]) == UMLS
    assert terms_license(["icd10cm"], CREDENTIALED) == CREDENTIALED
    assert terms_license(["umls"], CREDENTIALED) == CREDENTIALED
    assert terms_license(["icd10cm"], "cc-by-4.0") not in RESTRICTED
    assert "own" in terms_license(["own"]) and terms_license(["own"]) not in RESTRICTED
    assert combine_licenses(UMLS, "apache-2.0") == {"license": "other", "license_name": RESTRICTED[UMLS]}


def test_weights_from_umls_are_not_published(tiny_config, monkeypatch):
    class Hub:
        def __init__(self, token=None):
            pass

        def repo_info(self, repo_id, repo_type):
            raise RepositoryNotFoundError("none", response=_Response())

    class _Response:
        headers, request = {}, None

    monkeypatch.setattr(data_access, "HfApi", Hub)
    tiny_config.data_license = terms_license(["icd10cm", "umls"])
    with pytest.raises(PermissionError, match="UMLS Metathesaurus License Agreement"):
        KeptLongformerForMaskedLM(tiny_config).push_to_hub("me/hsap")
