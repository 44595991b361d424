"""The commands that the pages show, and what a block of them needs."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r'^```bash(?: title="([^"]*)")?\n(.*?)^```', re.MULTILINE | re.DOTALL)

# What is in a command that needs it. Models and files of `tiny` run on CPUs; `gem_vla` without a file is `2b`.
_SIGNS = {
    "GPU": r"_[28]b|=[28]b\b|gpu-check|-m gpu\b|--policy\.type=gem_vla(?!.*tiny)|policy_device=cuda|--multi_gpu|fsdp_8x"
    r"|lerobot-(?:train|eval)\b.*outputs/train/(?!so101\b|gem_tiny|gem_vla_tiny)",
    "Hub": r"(?<![\w/])(?:you|me|zzzrw|Qwen)/\w|(?:^|\s)hf\s|--job\.",
    "robot": r"--robot\.|--teleop\.|lerobot-find-|lerobot-gem-server|robot_client|lerobot-rollout",
    "cluster": r"--executor=slurm",
}


@dataclass(frozen=True)
class Command:
    """A command of a page.

    Attributes:
        page: Path of the page, from the repository's root.
        words: Its words, as a shell would split them.
        is_abridged: Options are left out of it, where `…` stands.
    """

    page: str
    words: tuple[str, ...]
    is_abridged: bool

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def blocks() -> Iterator[tuple[str, str, str]]:
    """Page, title and text of each block of commands."""
    for page in PAGES:
        for title, text in BLOCK.findall(page.read_text()):
            yield str(page.relative_to(ROOT)), title, text


def commands(page: str, text: str) -> Iterator[Command]:
    """The commands of a block."""
    text = text.replace("\\\n", " ").replace("$(which lerobot-train)", "lerobot-train")
    text = re.sub(r"\$\(lerobot-gem-config (\w+)\)", r"configs/policy/\1.yaml", text)
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            del words[0]
        if words:
            yield Command(page, tuple(words), any("…" in word for word in words))


def needs(page: str, text: str) -> str:
    """The title of a block: what its commands need beside a CPU."""
    lines = [" ".join(command.words) for command in commands(page, text)]
    return ", ".join(need for need, sign in _SIGNS.items() if any(re.search(sign, line) for line in lines))


def mark() -> None:
    """Give each block of docs/ the title that says what it needs; the site shows it."""
    for page in (ROOT / "docs").rglob("*.md"):
        name = str(page.relative_to(ROOT))

        def titled(block: re.Match[str], name: str = name) -> str:
            title = f' title="{needs(name, block[2])}"' if needs(name, block[2]) else ""
            return f"```bash{title}\n{block[2]}```"

        page.write_text(BLOCK.sub(titled, page.read_text()))


if __name__ == "__main__":
    mark()
