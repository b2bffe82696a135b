"""All files of an installation, before any of them is written."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from drafter_service.loading import LOOKUP_MODEL
from dragoman.devices import runs_on_cpu
from dragoman.edge.asked import Asked
from dragoman.edge.credentials import Credentials, given_credentials, requested_credentials, with_own_key
from dragoman.edge.environment_file import environment_file
from dragoman.edge.files import File
from dragoman.edge.layout import Layout
from dragoman.edge.program import program_of
from dragoman.edge.sight import Sight
from dragoman.edge.unit import OLDEST_SYSTEMD, Unit
from dragoman.edge.walk import walk
from dragoman.serving import dialled_address
from language_models.embedded import EMBEDDED
from language_models.weights import check_name
from speculation.errors import DragomanError, InputError
from transport.identity import Identity, Role

#: Who may open a GPU's devices, on Debian, Ubuntu and NVIDIA's Jetson.
_GPU_GROUPS = ("video", "render")


@dataclass(frozen=True, slots=True)
class Plan:
    """``files``: unit, settings and credentials, in the order in which they are written: the unit last."""

    layout: Layout
    credentials: Credentials
    files: tuple[File, ...]


def plan_of(asked: Asked, systemd: int | None) -> Plan:
    """``systemd``: its version; None: unknown. Raises InputError, ModelError, DragomanError, and writes nothing."""
    if systemd is not None and systemd < OLDEST_SYSTEMD:
        remedy = "take a newer release of the system: Debian 12, Ubuntu 22.04, JetPack 6"
        raise DragomanError(f"systemd {systemd} gives services no credentials: {OLDEST_SYSTEMD} does", remedy=remedy)
    layout, sight = Layout(asked.root or Path("/"), asked.name), Sight(bind=asked.bind_paths)
    credentials = _credentials(asked, layout)
    model = _model(asked, layout, sight)
    on_gpu = model != LOOKUP_MODEL and not runs_on_cpu(asked.settings.device)
    unit = Unit(
        layout=layout,
        program=program_of(asked.program, layout, sight),
        options=credentials.options,
        credentials=credentials.names,
        memory_max=asked.memory_max,
        gpu_groups=_gpu_groups(layout) if on_gpu else None,
        compiles=model != LOOKUP_MODEL,
        bound=sight.bound,
        systemd=systemd,
    )
    settings = asked.settings.model_copy(update={"model": model}).model_dump()
    settings |= {"verifier": asked.verifier, "coordinator": asked.coordinator, "name": asked.name}
    settings |= {"verbose": asked.verbose, "allow_plaintext": asked.security.allow_plaintext}
    own = (
        File(layout.environment_file, environment_file(layout.unit, settings).encode()),
        File(layout.unit_file, unit.text.encode()),
    )
    plan = Plan(layout, credentials, (*credentials.files, *own))
    for file in plan.files:
        layout.below(file.path)  # is none that leaves the root
    return plan


def _credentials(asked: Asked, layout: Layout) -> Credentials:
    """Checked as the drafter will check them. Raises InputError."""
    security = asked.security
    for option in ("tokens", "tls_revoked"):
        if (value := getattr(security, option)) is not None:
            problem = "is for servers, and a drafter is none"
            raise InputError(option.replace("_", "-"), value, problem, remedy="leave it out")
    if asked.verifier is None and asked.coordinator is None:
        raise InputError("verifier", None, "is missing", remedy="add --verifier HOST:PORT or --coordinator HOST:PORT")
    if not asked.request:
        security = with_own_key(security, layout)
        dialled_address(asked.verifier, asked.coordinator, security)
        return given_credentials(security, layout)
    for option in ("tls_cert", "tls_key", "token_file"):
        if (value := getattr(security, option)) is not None:
            remedy = "first with --request alone, then again with the certificate that the authority made"
            raise InputError(option.replace("_", "-"), value, "comes with --request", remedy=remedy)
    # Without what is to come, the address is all that can be checked.
    checked = security.model_copy(update={"allow_plaintext": True})
    dialled_address(asked.verifier, asked.coordinator, checked)
    return requested_credentials(security, layout, Identity(Role.DRAFTER, asked.name or socket.gethostname()))


def _model(asked: Asked, layout: Layout, sight: Sight) -> str:
    """As the unit is to name it. Raises InputError, ModelError."""
    model = asked.settings.model
    path, mark, pin = model.partition("@")
    local = Path(path).expanduser()
    if not (local.is_absolute() or local.exists()):
        if model != LOOKUP_MODEL:
            check_name(model)
        if path in EMBEDDED and asked.program is None and asked.root is None:
            EMBEDDED[path].data_files()  # the service could not install them
        return model
    absolute = Path.cwd() / local  # `..` after a link is not for a look at the words alone
    end = walk("model", absolute, layout.root).end
    # A hub's cache has links with a model's name to files without: then the name counts.
    here = layout.root / (end if end.suffix == absolute.suffix else absolute).relative_to("/")
    check_name(str(here) + mark + pin)
    sight.need("model", absolute, root=layout.root, remedy="copy it to /opt/dragoman/models")
    return str(end if ".." in absolute.parts else absolute) + mark + pin


def _gpu_groups(layout: Layout) -> list[str]:
    """Those that the machine has: systemd starts no service with a group that is not there."""
    try:
        known = {line.partition(":")[0] for line in layout.below(Path("/etc/group")).read_text("utf-8").splitlines()}
    except OSError:
        return []
    return [group for group in _GPU_GROUPS if group in known]
