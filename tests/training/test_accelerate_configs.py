"""The configurations in examples/accelerate: every key takes effect, and what they start trains as one process does.

There is no GPU here, so all processes run on the CPU with gloo. accelerate shards on GPUs only; `SHARD_ON_CPU` changes
the one value by which it decides, and all else of the FSDP runs is accelerate's and torch's own code.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import make_dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin, prepare_multi_gpu_env
from launching import ROOT, launch, logged_losses
from safetensors.torch import load_file

from kept_hf import KeptLongformerForICDPrompting
from kept_hf.models.longformer_layers import KeptLongformerLayer
from kept_hf.training.checks import check_sharding, keep_global_batch

CONFIGS = {path.stem: path for path in sorted((ROOT / "examples" / "accelerate").glob("*.yaml"))}
SHARD_ON_CPU = '''
"""Run a script with accelerate's FSDP on the CPU, and write down what is sharded."""
import os
import runpy
import sys
from pathlib import Path

import torch.distributed.fsdp
from accelerate.state import PartialState

initialize, fully_shard = PartialState.__init__, torch.distributed.fsdp.fully_shard


def on_cpu(self, *args, **kwargs):
    initialize(self, *args, **kwargs)
    if self.distributed_type == "MULTI_CPU":
        self.distributed_type = type(self.distributed_type)("MULTI_GPU")


def recording(module, **kwargs):
    modules = module if isinstance(module, list) else [module]
    with Path(__file__).with_name("sharded_" + os.environ["RANK"]).open("a") as record:
        print(*(type(part).__name__ for part in modules), file=record)
    return fully_shard(module, **kwargs)


PartialState.__init__, torch.distributed.fsdp.fully_shard = on_cpu, recording
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
'''


def launch_arguments(name: str, *options: str):
    """What `accelerate launch` makes of a configuration and options."""
    parser = launch_command_parser()
    return _validate_launch_command(parser.parse_args(["--config_file", str(CONFIGS[name]), *options, "train.py"]))[0]


def launch_configured(name: str, *script: str) -> list[str]:
    """`accelerate launch --config_file …`, once for each node, all on this machine. Returns what each node printed."""
    nodes = load_config_from_file(str(CONFIGS[name])).num_machines
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    with ExitStack() as stack:
        # Files, since a pipe that nobody empties would stop a node.
        logs = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(nodes)]
        processes = []
        for rank, log in enumerate(logs):
            place = ["--machine_rank", str(rank), "--main_process_ip", "127.0.0.1"] if nodes > 1 else []
            command = [*launcher, "--config_file", str(CONFIGS[name]), "--main_process_port", port, *place, *script]
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
            processes.append(process)
            stack.callback(process.terminate)  # the launcher ends its workers
        codes = [process.wait(timeout=300) for process in processes]
        printed = []
        for log in logs:
            log.seek(0)
            printed.append(log.read())
    assert codes == [0] * nodes, "\n".join(text[-4000:] for text in printed)
    return printed


def test_there_is_one_for_each_case():
    assert set(CONFIGS) == {"ddp_1node", "ddp_2nodes", "ddp_cpu", "fsdp_1node", "fsdp_2nodes"}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_key_takes_effect(name):
    # accelerate refuses unknown keys at the top, but takes any key in fsdp_config, and overlooks a key whose option on
    # the command line has a default, such as same_network.
    config = load_config_from_file(str(CONFIGS[name]))
    assert isinstance(config, ClusterConfig)
    args, known = launch_arguments(name), vars(launch_command_parser().parse_args(["train.py"]))
    values = yaml.safe_load(CONFIGS[name].read_text(encoding="utf-8"))
    assert values.pop("compute_environment") == "LOCAL_MACHINE"
    assert (args.multi_gpu, args.use_fsdp) == {"MULTI_GPU": (True, False), "FSDP": (False, True)}[
        values.pop("distributed_type")
    ]
    for key, value in {**values.pop("fsdp_config", {}), **values}.items():
        assert key in known, key
        assert getattr(args, key) == value, key


@pytest.mark.parametrize("name", CONFIGS)
def test_command_line_wins(name):
    options = ["--num_processes", "8", "--machine_rank", "1", "--main_process_ip", "10.0.0.1"]
    args = launch_arguments(name, *options, "--main_process_port", "0")
    assert (args.num_processes, args.machine_rank, args.main_process_ip) == (8, 1, "10.0.0.1")
    prepare_multi_gpu_env(args)
    assert args.nproc_per_node == str(8 // args.num_machines)
    if args.num_machines > 1:
        assert (args.nnodes, args.node_rank) == ("2", 1) and args.rdzv_endpoint.startswith("10.0.0.1:")


@pytest.mark.parametrize("name", ["fsdp_1node", "fsdp_2nodes"])
def test_fsdp_plugin_wraps_the_layers(name, monkeypatch, tiny_model):
    args = launch_arguments(name, "--main_process_port", "0")
    for key, value in prepare_multi_gpu_env(args).items():
        if "FSDP" in key:
            monkeypatch.setenv(key, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    assert plugin.state_dict_type.name == "FULL_STATE_DICT"
    assert not plugin.cpu_ram_efficient_loading and not plugin.activation_checkpointing
    assert type(plugin.cpu_offload).__name__ == "OffloadPolicy"  # the one that does nothing
    plugin.set_auto_wrap_policy(tiny_model)
    assert plugin.auto_wrap_policy.keywords["transformer_layer_cls"] == {KeptLongformerLayer}
    plugin.set_mixed_precision("bf16")
    assert plugin.mixed_precision_policy.param_dtype == torch.bfloat16


def test_the_model_names_the_layers_to_wrap(tiny_model):
    """For configurations and scripts that do not name them: transformers' own name is not in this model."""
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="transformer_based_wrap")
    plugin.set_auto_wrap_policy(tiny_model)
    assert plugin.auto_wrap_policy.keywords["transformer_layer_cls"] == {KeptLongformerLayer}


def arguments_of(world_size, per_device, global_batch, matching=0):
    """Training and data arguments, as `keep_global_batch` reads and copies them."""
    values = {
        "global_batch_size": global_batch,
        "world_size": world_size,
        "per_device_train_batch_size": per_device,
        "train_batch_size": per_device,
        "gradient_accumulation_steps": 7,
    }
    data = {"matching_examples": matching, "matching_batch_size": 8}
    return tuple(make_dataclass("Arguments", fields)(**fields) for fields in (values, data))


@pytest.mark.parametrize(
    ("world_size", "per_device", "global_batch", "steps"), [(1, 1, 2, 2), (2, 1, 2, 1), (4, 2, 32, 4), (2, 1, None, 7)]
)
def test_global_batch_sets_the_accumulation(world_size, per_device, global_batch, steps):
    given = arguments_of(world_size, per_device, global_batch, matching=100)
    training, data = keep_global_batch(*given)
    assert (given[0].gradient_accumulation_steps, given[1].matching_batch_size) == (7, 8)
    assert training.gradient_accumulation_steps == steps
    assert data.matching_batch_size == (8 if global_batch is None else 8 // world_size)


@pytest.mark.parametrize(
    ("world_size", "per_device", "global_batch", "matching", "expected"),
    [
        (
            4,
            1,
            2,
            0,
            "global_batch_size=2 is not a multiple of the 4 prompts .* per_device_train_batch_size=1 on 4",
        ),
        (2, 3, 16, 0, "global_batch_size=16 is not a multiple of the 6 prompts"),
        (2, 1, 0, 0, "global_batch_size=0"),
        (2, 1, -2, 0, "global_batch_size=-2"),
        (3, 1, 3, 9, "matching_batch_size=8 cannot be divided among 3 processes"),
        (16, 1, 16, 9, "matching_batch_size=8 cannot be divided among 16 processes"),
    ],
)
def test_global_batch_that_does_not_divide(world_size, per_device, global_batch, matching, expected):
    with pytest.raises(ValueError, match=expected):
        keep_global_batch(*arguments_of(world_size, per_device, global_batch, matching))


@pytest.mark.parametrize(
    ("distributed_type", "peft", "scorer", "expected"),
    [
        ("MULTI_CPU", None, "prompting", "accelerate shards on GPUs only"),
        ("MULTI_GPU", "lora", "prompting", "peft='lora' is not supported"),
        ("MULTI_GPU", None, "matching", "scorer='matching' is not supported"),
    ],
)
def test_sharding_that_would_not_happen(monkeypatch, distributed_type, peft, scorer, expected):
    training = SimpleNamespace(fsdp=None, distributed_state=SimpleNamespace(distributed_type=distributed_type))
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    arguments = SimpleNamespace(peft=peft, scorer=scorer)
    assert check_sharding(training, arguments) is False
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match=expected):
        check_sharding(training, arguments)


@pytest.fixture(scope="module")
def run_arguments(train_arguments):
    """Four steps of 8 notes each, the same ones for any number of processes."""
    options = ["--global_batch_size", "8", "--train_sampling_strategy", "sequential"]
    return [*train_arguments, *options, "--hidden_dropout_prob", "0", "--attention_probs_dropout_prob", "0"]


@pytest.fixture(scope="module")
def alone(run_arguments, tmp_path_factory) -> Path:
    """The folder of a run in one process."""
    folder = tmp_path_factory.mktemp("alone")
    launch(*run_arguments, "--output_dir", str(folder))
    assert results_of(folder)["world_size"] == 1
    assert results_of(folder)["settings"]["gradient_accumulation_steps"] == 2
    return folder


def results_of(folder: Path) -> dict:
    return json.loads((folder / "all_results.json").read_text(encoding="utf-8"))


def assert_equal_runs(folder: Path, alone: Path) -> None:
    """Two processes with the losses, the weights and the scores of one."""
    results, expected = results_of(folder), results_of(alone)
    assert results["world_size"] == 2
    assert results["settings"]["gradient_accumulation_steps"] == 1
    assert len(logged_losses(folder)) == 4
    assert logged_losses(folder) == pytest.approx(logged_losses(alone), rel=1e-4)
    assert results["test_auc_micro"] == pytest.approx(expected["test_auc_micro"], abs=1e-4)
    model, loading = KeptLongformerForICDPrompting.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values())
    assert model.config.architectures == ["KeptLongformerForICDPrompting"]
    assert model.config.threshold == pytest.approx(expected["threshold"], abs=1e-3)
    weights, expected = load_file(folder / "model.safetensors"), load_file(alone / "model.safetensors")
    assert weights.keys() == expected.keys()
    for name, value in weights.items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("name", ["ddp_cpu", pytest.param("ddp_2nodes", marks=pytest.mark.slow)])
def test_copies_train_as_one_process(name, run_arguments, alone, tmp_path):
    launch_configured(name, *run_arguments, "--output_dir", str(tmp_path))
    assert_equal_runs(tmp_path, alone)


@pytest.mark.parametrize("name", ["fsdp_2nodes", pytest.param("fsdp_1node", marks=pytest.mark.slow)])
def test_shards_train_as_one_process(name, run_arguments, alone, tmp_path):
    folder, script = tmp_path / "run", tmp_path / "shard_on_cpu.py"
    script.write_text(SHARD_ON_CPU)
    launch_configured(name, str(script), *run_arguments, "--output_dir", str(folder))
    # The tied embeddings and decoder are one group, each layer is one, the rest is the model's.
    groups = ["KeptLongformerLayer", "Embedding Linear", "KeptLongformerForICDPrompting"]
    for rank in range(2):
        assert (tmp_path / f"sharded_{rank}").read_text().splitlines() == groups
    assert (folder / "checkpoint-4" / "pytorch_model_fsdp.bin").exists()
    assert_equal_runs(folder, alone)
    assert {path.name for path in alone.iterdir()} - {path.name for path in folder.iterdir()} == {"training_args.bin"}
    assert {path.name for path in folder.iterdir()} <= {path.name for path in alone.iterdir()}


@pytest.mark.slow
def test_sharded_run_resumes_after_the_matching_stage(train_arguments, tmp_path):
    folder, script = tmp_path / "run", tmp_path / "shard_on_cpu.py"
    script.write_text(SHARD_ON_CPU)
    arguments = [str(script), *train_arguments, "--matching_examples", "16", "--activation_checkpointing", "True"]
    before = launch_configured("fsdp_1node", *arguments, "--output_dir", str(folder))
    results = results_of(folder)
    after = launch_configured("fsdp_1node", *arguments, "--output_dir", str(folder))
    assert "Stage 1" in before[0] and "Resuming from" in after[0] and "Stage 1" not in after[0]
    assert results_of(folder)["test_auc_micro"] == pytest.approx(results["test_auc_micro"], abs=1e-6)
