import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from pathlib import Path

import hub_server
import pyarrow
import pytest
from hub_server import HubServer
from processes import run_program
from pyarrow import parquet

ICD_CODING = Path(hub_server.__file__).parents[1] / "src" / "kept_hf" / "metrics" / "evaluate_modules" / "icd_coding"
ALICE = "token-of-alice"
BOB = "token-of-bob"


@pytest.fixture
def server():
    with HubServer({ALICE: "alice", BOB: "bob"}) as running:
        yield running
    assert running.unknown_requests == []


@pytest.fixture
def client(server, tmp_path):
    """A function that runs a script as alice in a fresh process and returns what it hands to `report`."""

    def run(script, *arguments):
        report = tmp_path / "report.json"
        head = f"import json, sys\nreport = lambda value: json.dump(value, open({str(report)!r}, 'w'))\n"
        run_program(
            [sys.executable, "-c", head + textwrap.dedent(script), *arguments],
            env=server.environment(tmp_path / "hf_home", ALICE),
            cwd=tmp_path,
        )
        return json.loads(report.read_text())

    return run


def write_files(folder, files):
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def get(url, token=None, **headers):
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, headers=headers)) as answer:
        return answer.status, dict(answer.headers), answer.read()


def test_model_round_trip(server, client, tmp_path):
    files = {
        "README.md": b"---\npipeline_tag: text-classification\ntags: [icd-coding]\n---\n# A model\n",
        "config.json": b"{}",
        "deep/er/notes of one.txt": "Ménière\n".encode(),
        "model.safetensors": os.urandom(300_000),
    }
    folder = write_files(tmp_path / "model", files)
    seen = client(
        """
        from huggingface_hub import HfApi, snapshot_download

        api = HfApi()
        url = api.create_repo("alice/x", private=True)
        assert api.create_repo("x", private=True, exist_ok=True) == url
        commit = api.upload_folder(repo_id="alice/x", folder_path=sys.argv[1])
        again = api.upload_folder(repo_id="alice/x", folder_path=sys.argv[1])
        info = api.model_info("alice/x", files_metadata=True)
        report(
            {
                "user": api.whoami()["name"],
                "repo_id": url.repo_id,
                "same": commit.oid == again.oid == info.sha,
                "private": info.private,
                "pipeline_tag": info.pipeline_tag,
                "tags": info.card_data.tags,
                "siblings": {sibling.rfilename: sibling.lfs is not None for sibling in info.siblings},
                "tree": [entry.path for entry in api.list_repo_tree("alice/x")],
                "deep": [entry.path for entry in api.list_repo_tree("alice/x", "deep", recursive=True)],
                "paths": [entry.path for entry in api.get_paths_info("alice/x", ["deep", "config.json", "absent"])],
                "folder": snapshot_download("alice/x"),
            }
        )
        """,
        folder,
    )
    repo = server.repos["model", "alice/x"]
    attributes = repo.files()[".gitattributes"]
    downloaded = Path(seen.pop("folder"))
    assert seen == {
        "user": "alice",
        "repo_id": "alice/x",
        "same": True,
        "private": True,
        "pipeline_tag": "text-classification",
        "tags": ["icd-coding"],
        "siblings": {".gitattributes": False} | {path: path == "model.safetensors" for path in files},
        "tree": [".gitattributes", "README.md", "config.json", "deep", "model.safetensors"],
        "deep": ["deep/er", "deep/er/notes of one.txt"],
        "paths": ["config.json", "deep"],
    }
    assert repo.private
    assert repo.files() == files | {".gitattributes": attributes}
    assert {str(path.relative_to(downloaded)) for path in downloaded.rglob("*") if path.is_file()} == set(repo.files())
    assert all((downloaded / path).read_bytes() == content for path, content in files.items())
    assert sum(method == "PUT" for method, _ in server.requests) == 1


def test_private_repository_is_hidden(server, client):
    seen = client(
        """
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        def outcome(function, *arguments, **options):
            try:
                function(*arguments, **options)
            except HfHubHTTPError as error:
                return [type(error).__name__, error.response.status_code]

        alice = HfApi()
        alice.create_repo("alice/hidden", private=True)
        alice.create_repo("alice/open")
        added = {"path_or_fileobj": b"1", "path_in_repo": "a.txt"}
        alice.upload_file(repo_id="alice/hidden", **added)
        users = {"bob": "token-of-bob", "nobody": False, "stranger": "token-of-nobody"}
        found = {
            user: [
                outcome(HfApi(token=token).repo_info, "alice/hidden"),
                outcome(HfApi(token=token).hf_hub_download, "alice/hidden", "a.txt"),
                outcome(HfApi(token=token).upload_file, repo_id="alice/hidden", **added),
                outcome(HfApi(token=token).upload_file, repo_id="alice/open", **added),
                outcome(HfApi(token=token).model_info, "alice/open"),
            ]
            for user, token in users.items()
        }
        report(found | {"create": outcome(HfApi(token="token-of-bob").create_repo, "alice/third")})
        """
    )
    hidden = [["RepositoryNotFoundError", 404]] * 3
    assert seen == {
        "bob": [*hidden, ["HfHubHTTPError", 403], None],
        "nobody": [*hidden, ["HfHubHTTPError", 401], None],
        "stranger": [["HfHubHTTPError", 401]] * 5,
        "create": ["HfHubHTTPError", 403],
    }
    assert len(server.repos) == 2
    assert len(server.repos["model", "alice/open"].commits) == 1


UPLOAD = """
from huggingface_hub import HfApi

api = HfApi()
api.create_repo("alice/x", private=True, exist_ok=True)
try:
    api.upload_folder(repo_id="alice/x", folder_path=sys.argv[1])
except Exception as error:
    report([type(error).__name__, str(error)])
else:
    report("done")
"""


def test_interrupted_upload_resumes(server, client, tmp_path):
    files = {"a.safetensors": os.urandom(5000), "b.safetensors": os.urandom(6000), "config.json": b"{}"}
    first, second = (hashlib.sha256(files[path]).hexdigest() for path in ("a.safetensors", "b.safetensors"))
    folder = write_files(tmp_path / "model", files)
    server.fail_next(100, path_contains=second, method="PUT")
    assert client(UPLOAD, folder) == ["RuntimeError", "Error while uploading 'b.safetensors' to the Hub."]
    repo = server.repos["model", "alice/x"]
    assert list(repo.files()) == [".gitattributes"] and len(repo.commits) == 1
    assert set(repo.objects) == {first}

    server.heal()
    before = len(server.requests)
    assert client(UPLOAD, folder) == "done"
    uploads = [path for method, path in server.requests[before:] if method == "PUT"]
    assert len(uploads) == 1 and uploads[0].endswith(second)
    assert {path: repo.files()[path] for path in files} == files
    assert len(repo.commits) == 2


def test_client_repeats_after_a_dropped_connection_and_a_500(server, client, tmp_path):
    folder = write_files(tmp_path / "model", {"a.safetensors": os.urandom(5000)})
    server.fail_next(path_contains="/preupload/", status=None)
    server.fail_next(method="PUT", status=500)
    assert client(UPLOAD, folder) == "done"
    assert sum("/preupload/" in path for _, path in server.requests) == 2
    assert sum(method == "PUT" for method, _ in server.requests) == 2


def test_failures_by_number(server):
    server.fail_next(2, path_contains="whoami", status=418, skip=1)
    seen = []
    for _ in range(4):
        try:
            seen.append(get(f"{server.endpoint}/api/whoami-v2", ALICE)[0])
        except urllib.error.HTTPError as error:
            seen.append(error.code)
    assert seen == [200, 418, 418, 200]


def test_revisions(server, client):
    seen = client(
        """
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub.errors import HfHubHTTPError

        def outcome(function, *arguments, **options):
            try:
                function(*arguments, **options)
            except HfHubHTTPError as error:
                return [type(error).__name__, error.response.status_code]

        def upload(content, **options):
            return api.upload_file(repo_id="alice/x", path_or_fileobj=content, path_in_repo="a.txt", **options).oid

        def read(revision):
            return open(api.hf_hub_download("alice/x", "a.txt", revision=revision)).read()

        api = HfApi()
        api.create_repo("alice/x")
        first = upload(b"1")
        api.create_branch("alice/x", branch="feature/one")
        api.create_tag("alice/x", tag="v1")
        second = upload(b"2", parent_commit=first)
        third = upload(b"3", revision="feature/one")
        api.delete_file("a.txt", "alice/x")
        report(
            {
                "read": [read(revision) for revision in (first, second, third, "v1", "feature/one")],
                "exists": api.file_exists("alice/x", "a.txt"),
                "commits": [commit.title for commit in api.list_repo_commits("alice/x")],
                "branches": [branch.name for branch in api.list_repo_refs("alice/x").branches],
                "outcomes": [
                    outcome(snapshot_download, "alice/x", revision="v9"),
                    outcome(api.model_info, "alice/x", revision="v9"),
                    outcome(api.hf_hub_download, "alice/x", "a.txt", revision="v9"),
                    outcome(api.hf_hub_download, "alice/x", "b.txt"),
                    outcome(api.model_info, "gpt2"),
                    outcome(upload, b"4", parent_commit=first),
                    outcome(upload, b"4", revision="v9"),
                    outcome(upload, b"4", create_pr=True),
                ],
            }
        )
        """
    )
    assert seen == {
        "read": ["1", "2", "3", "1", "3"],
        "exists": False,
        "commits": [
            "Delete a.txt with huggingface_hub",
            *["Upload a.txt with huggingface_hub"] * 2,
            "initial commit",
        ],
        "branches": ["main", "feature/one"],
        "outcomes": [
            *[["RevisionNotFoundError", 404]] * 3,
            ["RemoteEntryNotFoundError", 404],
            ["RepositoryNotFoundError", 404],
            ["HfHubHTTPError", 412],
            ["RevisionNotFoundError", 404],
            ["BadRequestError", 400],
        ],
    }


def test_invalid_card_is_refused(client, server):
    seen = client(
        r"""
        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo("alice/x")
        try:
            api.upload_file(repo_id="alice/x", path_or_fileobj=b"---\na: [\n---\n", path_in_repo="README.md")
        except ValueError as error:
            report(str(error))
        """
    )
    assert seen.startswith("Invalid metadata in README.md.\n- Invalid YAML in README.md")
    assert len(server.repos["model", "alice/x"].commits) == 1


def test_ranges(server):
    repo = server.repos["dataset", "alice/x"] = hub_server.HubRepo("dataset", "alice/x", private=True)
    commit = repo.add_commit("main", {"a.bin": hub_server.HubFile(b"0123456789", lfs=True)}, "first")
    url = f"{server.endpoint}/datasets/alice/x/resolve/main/a.bin"
    status, headers, content = get(url, ALICE)
    assert (status, content, headers["X-Repo-Commit"]) == (200, b"0123456789", commit.sha)
    assert headers["ETag"] == headers["X-Linked-ETag"] == f'"{hashlib.sha256(content).hexdigest()}"'
    assert headers["Content-Length"] == headers["X-Linked-Size"] == "10"
    for span, expected, where in (("2-4", b"234", "2-4"), ("7-", b"789", "7-9"), ("-2", b"89", "8-9")):
        status, headers, content = get(url, ALICE, Range=f"bytes={span}")
        assert (status, content, headers["Content-Range"]) == (206, expected, f"bytes {where}/10")
    with pytest.raises(urllib.error.HTTPError, match="416"):
        get(url, ALICE, Range="bytes=10-")


@pytest.mark.slow  # tests/test_hub.py goes the same way
def test_dataset_push_to_hub(server, client):
    seen = client(
        """
        from datasets import Dataset, DatasetDict, load_dataset

        notes = DatasetDict(
            {
                "train": Dataset.from_dict({"text": ["fever", "cough"], "icd_codes": [["401.9"], ["038.9", "584.9"]]}),
                "test": Dataset.from_dict({"text": ["pain"], "icd_codes": [["401.9"]]}),
            }
        )
        notes.push_to_hub("alice/notes", private=True)
        loaded = load_dataset("alice/notes")
        streamed = list(load_dataset("alice/notes", split="train", streaming=True))
        report([loaded["train"].to_dict(), loaded["test"].to_dict(), streamed == notes["train"].to_list()])
        """
    )
    assert seen == [
        {"text": ["fever", "cough"], "icd_codes": [["401.9"], ["038.9", "584.9"]]},
        {"text": ["pain"], "icd_codes": [["401.9"]]},
        True,
    ]
    repo = server.repos["dataset", "alice/notes"]
    assert repo.private
    assert {"README.md", "data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"} <= set(repo.files())


def test_dataset_folder_with_configs(server, client, tmp_path):
    card = """\
    ---
    configs:
    - config_name: full
      data_files:
      - {split: train, path: full/train-*.parquet}
      - {split: test, path: full/test-*.parquet}
    - config_name: rare50
      data_files: rare50/*.parquet
    ---
    """
    folder = write_files(tmp_path / "corpus", {"README.md": textwrap.dedent(card).encode()})
    for path, numbers in (("full/train", [1, 2]), ("full/test", [3]), ("rare50/train", [4])):
        (folder / path).parent.mkdir(exist_ok=True)
        parquet.write_table(pyarrow.table({"hadm_id": numbers}), folder / f"{path}-00000.parquet")
    seen = client(
        """
        from datasets import load_dataset
        from huggingface_hub import HfApi

        HfApi().create_repo("alice/x", repo_type="dataset", private=True)
        HfApi().upload_folder(repo_id="alice/x", repo_type="dataset", folder_path=sys.argv[1])
        loaded = {name: load_dataset("alice/x", name) for name in ("full", "rare50")}
        report({name: {split: rows["hadm_id"][:] for split, rows in x.items()} for name, x in loaded.items()})
        """,
        folder,
    )
    assert seen == {"full": {"train": [1, 2], "test": [3]}, "rare50": {"train": [4]}}


@pytest.mark.slow  # tests/test_hub.py goes the same way
def test_transformers_model(server, client):
    seen = client(
        """
        from transformers import AutoModel, BertConfig, BertModel

        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        model = BertModel(BertConfig(vocab_size=20, max_position_embeddings=10, **sizes))
        model.push_to_hub("alice/bert", private=True)
        loaded = AutoModel.from_pretrained("alice/bert")
        weights = loaded.state_dict()
        equal = all(tensor.equal(weights[name]) for name, tensor in model.state_dict().items())
        report([type(loaded).__name__, equal])
        """
    )
    assert seen == ["BertModel", True]
    assert server.repos["model", "alice/bert"].private
    assert {"config.json", "model.safetensors"} <= set(server.repos["model", "alice/bert"].files())


@pytest.mark.slow  # tests/test_hub.py goes the same way
def test_evaluate_module(server, client):
    seen = client(
        """
        import evaluate
        from huggingface_hub import HfApi

        HfApi().create_repo("alice/icd_coding", repo_type="space", space_sdk="static")
        HfApi().upload_folder(repo_id="alice/icd_coding", repo_type="space", folder_path=sys.argv[1])
        icd_coding = evaluate.load("alice/icd_coding")
        scores, labels = [[2.0, 1.0, -1.0], [0.5, -2.0, 3.0]], [[1, 0, 0], [1, 0, 1]]
        report(icd_coding.compute(predictions=scores, references=labels, ks=[1, 2]))
        """,
        ICD_CODING,
    )
    assert seen["f1_micro"] == pytest.approx(6 / 7)
    assert seen["precision_at_1"] == 1.0
    files = server.repos["space", "alice/icd_coding"].files()
    assert files["README.md"] == (ICD_CODING / "README.md").read_bytes()


def test_command_line():
    command = [sys.executable, hub_server.__file__, "--token", "token-of-carol=carol"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        variables = {}
        while "HF_TOKEN" not in variables:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            variables |= dict(re.findall(r'^export (\w+)="(.*)"', line))
        try:
            user = json.loads(get(f"{variables['HF_ENDPOINT']}/api/whoami-v2", "token-of-carol")[2])
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert user["name"] == "carol"
    assert process.returncode == 0 and out.endswith("stopped\n")
    assert "GET /api/whoami-v2" in err
