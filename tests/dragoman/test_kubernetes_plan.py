"""`dragoman plan --kubernetes`: what the replicas of a fleet file ask of Kubernetes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from dragoman import kubernetes_plan
from dragoman.cli import app
from dragoman.kubernetes_plan import Footprint, footprint
from dragoman.ray_fleet.config import read_fleet
from language_models.footprint import kv_bytes_per_token
from language_models.weights import ModelFiles
from speculation.errors import InputError, UnknownModelError

GIB = 1 << 30


def fleet_file(folder: Path, target: str, **settings: object) -> Path:
    written = {
        "targets": [{"name": "target", "model": target, "num_cpus": 2, "max_sessions": 8, **settings}],
        "drafters": [{"name": "lookup", "model": "lookup", "num_cpus": 0.25}],
    }
    path = folder / "fleet.yaml"
    path.write_text(yaml.safe_dump(written))
    return path


def printed(path: Path, *options: str) -> str:
    done = CliRunner().invoke(app, ["plan", f"--kubernetes={path}", *options])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_what_is_printed_goes_into_a_manifest(tiny_qwen2: Path, tmp_path: Path):
    path = fleet_file(tmp_path, str(tiny_qwen2))
    found = yaml.safe_load(printed(path))
    assert found == json.loads(printed(path, "--json"))
    assert found["target"]["requests"]["cpu"] == "2"
    assert found["target"]["limits"] == {"cpu": "2", "memory": "2Gi"}
    assert found["lookup"] == {"requests": {"cpu": "250m", "memory": "512Mi"}} | {
        "limits": {"cpu": "250m", "memory": "512Mi"}
    }


def test_memory_is_that_of_weights_and_all_sessions(tiny_qwen2: Path, tmp_path: Path):
    [target] = read_fleet(fleet_file(tmp_path, str(tiny_qwen2))).targets
    config = json.loads((tiny_qwen2 / "config.json").read_text())
    heads, layers = config["num_key_value_heads"], config["num_hidden_layers"]
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    per_token = 2 * layers * heads * size
    assert footprint(target, 1000).kv_cache == per_token * 2 * 1000 * 8
    wide = target.model_copy(update={"dtype": "float32"})
    assert footprint(wide, 1000).kv_cache == per_token * 4 * 1000 * 8
    assert footprint(wide, 1000).weights == 2 * (footprint(target, 1).weights or 0) > 0


def test_one_session_is_said_to_be_one(tiny_qwen2: Path, tmp_path: Path):
    assert " for 1 session of " in printed(fleet_file(tmp_path, str(tiny_qwen2), max_sessions=1))


def test_a_gpu_is_asked_for_and_said_how_large(tiny_qwen2: Path, tmp_path: Path):
    path = fleet_file(tmp_path, str(tiny_qwen2), num_gpus=0.5, kv_memory="8GiB", max_sessions=1)
    words = printed(path)
    assert "8.0 GiB of KV memory; a GPU with 10.0 GiB" in words
    assert yaml.safe_load(words)["target"]["limits"]["nvidia.com/gpu"] == 1


def test_gpus_that_hold_a_model_together_are_all_asked_for(tiny_qwen2: Path, tmp_path: Path):
    words = printed(fleet_file(tmp_path, str(tiny_qwen2), num_gpus=2, tensor_parallel=2, kv_memory="8GiB"))
    assert "8.0 GiB of KV memory; 2 GPUs with 10.0 GiB each" in words
    assert yaml.safe_load(words)["target"]["limits"]["nvidia.com/gpu"] == 2


def test_a_model_that_is_elsewhere_leaves_its_memory_open(tmp_path: Path):
    words = printed(fleet_file(tmp_path, "nobody/has-this-model"))
    assert "not on this machine" in words and yaml.safe_load(words)["target"]["limits"] == {"cpu": "2"}


@pytest.mark.parametrize(
    ("size", "gpus", "memory"),
    [
        (Footprint(14 * GIB, 4 * GIB), 0, "23Gi"),  # buffers double as they fill
        (Footprint(14 * GIB, 4 * GIB), 1, "16Gi"),  # keys and values are on the GPU
        (Footprint(14 * GIB, None), 0, None),
        (Footprint(None, 4 * GIB), 1, None),
    ],
)
def test_what_stands_where(size: Footprint, gpus: int, memory: str | None, monkeypatch, capsys, tmp_path: Path):
    path = fleet_file(tmp_path, "some/model", num_gpus=gpus)
    monkeypatch.setattr(kubernetes_plan, "footprint", lambda group, context: size)
    kubernetes_plan.show_resources(path, context=4096, as_json=True)
    assert json.loads(capsys.readouterr().out)["target"]["limits"].get("memory") == memory


def test_a_configuration_that_does_not_say_is_not_guessed(tmp_path: Path):
    for written in ("{}", "[]", "no json", '{"num_attention_heads": 0, "num_hidden_layers": 1, "hidden_size": 4}'):
        (tmp_path / "config.json").write_text(written)
        assert kv_bytes_per_token(ModelFiles("x", str(tmp_path), local=True), torch.bfloat16) is None


def test_mistakes_are_told():
    for options, problem in (
        (["--kubernetes=/nonexistent/fleet.yaml"], InputError),
        (["--kubernetes=deploy/fleet.yaml", "--context=0"], None),
        ([], InputError),
    ):
        done = CliRunner().invoke(app, ["plan", *options])
        assert done.exit_code != 0
        assert problem is None or isinstance(done.exception, problem), done.exception


def test_a_model_that_is_none_is_told(tmp_path: Path):
    done = CliRunner().invoke(app, ["plan", f"--kubernetes={fleet_file(tmp_path, 'nonsense')}"])
    assert isinstance(done.exception, UnknownModelError)
