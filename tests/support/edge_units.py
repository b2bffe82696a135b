"""Units that `dragoman edge install` wrote, read as systemd reads them."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path


class InstalledUnit:
    """One below ``root``."""

    def __init__(self, root: Path, name: str | None = None) -> None:
        self.service = "dragoman-drafter" if name is None else f"dragoman-drafter-{name}"
        self.path = root / f"etc/systemd/system/{self.service}.service"
        self.text = self.path.read_text("utf-8")
        self._root = root

    def values(self, setting: str) -> list[str]:
        """Of all lines of that setting."""
        found = (line.partition("=") for line in self.text.splitlines() if not line.startswith("#"))
        return [value for name, _, value in found if name == setting]

    @property
    def environment_file(self) -> Path:
        """Where it is below the root."""
        return self._root / self.values("EnvironmentFile")[0].removeprefix("/")

    def environment(self, credentials: Path, data: Path) -> dict[str, str]:
        """Of the service: of the unit and of its file. ``data``: stands for /var/cache and /var/lib."""
        plain = " ".join(self.values("Environment")).replace("%C", str(data)).replace("%S", str(data))
        lines = [line for line in self.environment_file.read_text("utf-8").splitlines() if not line.startswith("#")]
        pairs = [*shlex.split(plain), *(word for line in lines for word in shlex.split(line))]
        return dict(pair.split("=", 1) for pair in pairs) | {"CREDENTIALS_DIRECTORY": str(credentials)}

    def command(self, credentials: Path) -> list[str]:
        """What is started, program first."""
        return shlex.split(self.values("ExecStart")[0].replace("${CREDENTIALS_DIRECTORY}", str(credentials)))

    def load_credentials(self, folder: Path) -> None:
        """As systemd does: the named files, for their owner to read, and nothing else."""
        folder.mkdir(mode=0o700)
        for line in self.values("LoadCredential"):
            name, _, source = line.partition(":")
            shutil.copyfile(self._root / source.removeprefix("/"), folder / name)
            (folder / name).chmod(0o400)


def analyzed(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`systemd-analyze ARGUMENTS`."""
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


def analyzer_version() -> int:
    """Of systemd-analyze; 0: there is none."""
    if shutil.which("systemd-analyze") is None:
        return 0
    return int(analyzed("--version").stdout.split()[1])
