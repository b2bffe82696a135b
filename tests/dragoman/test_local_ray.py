"""A Ray of one's own that could not be noted down is none that stays."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from dragoman.ray_fleet import local_ray
from dragoman.ray_fleet.local_ray import LocalRay
from speculation.errors import DragomanError


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # nodes outlive who starts them
def test_a_full_disk_leaves_no_node_behind(tmp_path: Path, dragoman_home: Path, monkeypatch: pytest.MonkeyPatch):
    node = tmp_path / "node"
    node.write_text("#!/bin/sh\nexec sleep 600\n")
    node.chmod(0o755)
    monkeypatch.setattr(local_ray, "sys", SimpleNamespace(executable=str(node)))
    monkeypatch.setattr(local_ray, "_wait_for", lambda *arguments: None)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    dragoman_home.mkdir()
    (dragoman_home / "ray.json").symlink_to("/dev/full")
    before = set(psutil.Process().children())
    with pytest.raises(DragomanError, match=r"cannot be written: No space left.*set DRAGOMAN_HOME"):
        LocalRay.start([{}, {}], num_cpus=1)
    left = set(psutil.Process().children()) - before
    assert not [child for child in left if child.status() != psutil.STATUS_ZOMBIE]
    assert LocalRay.running() is None
