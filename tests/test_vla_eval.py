"""The configuration for AllenAI's vla-eval: read by vla-eval itself, and a checkpoint served with it."""

import inspect
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs" / "vla_eval"


def test_benchmarks_are_what_vla_eval_reads() -> None:
    from vla_eval.cli.config_loader import load_config
    from vla_eval.config import EvalConfig, ServerConfig
    from vla_eval.registry import resolve_import_string

    config = load_config(str(CONFIGS / "libero.yaml"))
    assert ServerConfig.from_dict(config["server"]).url == "ws://127.0.0.1:8000"
    suites = {}
    for entry in config["benchmarks"]:
        benchmark = EvalConfig.from_dict(entry)
        assert set(entry) <= set(inspect.signature(EvalConfig).parameters)
        known = inspect.signature(resolve_import_string(benchmark.benchmark)).parameters
        assert set(benchmark.params) <= set(known)
        suites[benchmark.params["suite"]] = (benchmark.params["max_steps"], benchmark.episodes_per_task)
        assert benchmark.params["send_state"] and benchmark.params["send_wrist_image"]
    # LeRobot's steps: `TASK_SUITE_MAX_STEPS` in lerobot.envs.libero, which can't be imported without LIBERO.
    steps = {"libero_spatial": 280, "libero_object": 280, "libero_goal": 300, "libero_10": 520}
    assert suites == {name: (number, 50) for name, number in steps.items()}


def test_a_checkpoint_is_served(make_policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vla_eval.model_servers import serve

    for part in make_policy():
        part.save_pretrained(tmp_path)
    served = []
    monkeypatch.setattr(serve, "serve", lambda server, **where: served.append((server, where)))
    options = [
        f"--config={CONFIGS / 'gem_server.yaml'}",
        f"--args.checkpoint={tmp_path}",
        "--args.device=cpu",
    ]
    monkeypatch.setattr(sys, "argv", ["vla_eval_server.py", *options])
    runpy.run_path(str(ROOT / "examples" / "vla_eval_server.py"), run_name="__main__")
    server, where = served[0]
    assert where == {"host": "127.0.0.1", "port": 8000}
    assert server.get_observation_params() == {"send_state": True, "send_wrist_image": True}
    observation = {
        "images": {name: np.zeros((256, 256, 3), np.uint8) for name in ("agentview", "wrist")},
        "states": np.zeros(8, np.float32),
        "task_description": "pick up the milk and place it in the basket",
    }
    actions = server.predict(observation, None)["actions"]
    assert actions.shape == (4, 7) and np.isfinite(actions).all()
