"""The commands that the pages show, and what a block of them needs."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "results").rglob("*.md")),
    *sorted((ROOT / "lerobot_gem").rglob("*.md")),
]
BLOCK = re.compile(r"^```bash\n(?:# Needs: ([^\n]*)\n)?(.*?)^```", re.MULTILINE | re.DOTALL)
LOOP = re.compile(r"^ *for (\w+) in (\S+).*; do$", re.MULTILINE)

# Programs that compute on a GPU if the models of their inputs are large. All others are work for CPUs: checks, conversions, data.
_WITH_MODELS = {
    "lerobot-train",
    "lerobot-eval",
    "lerobot-rollout",
    "lerobot-gem-preflight",
    "lerobot-gem-depth-viz",
    "lerobot-gem-eval-vqa",
    "torchrun",
    "accelerate",
}
# What the large models are called: `gem_vla` without a preset is `2b`, and a policy that somebody published is; of the checkpoints in outputs/,
# these are `tiny`.
_LARGE = (
    r"_[28]b|=[28]b\b|\b(?:zzzrw|Qwen)/|--policy\.type=gem_vla(?!.*tiny)|--policy\.path=you/"
    r"|outputs/(?!policy\b|demo/|train/(?:so101\b|gem_tiny|gem_vla_tiny))"
)
_OUTPUTS = ("--output", "--job_name=", "--html=")
_ACCOUNTS = r"(?:you|me|zzzrw|Qwen|lerobot)/\w"


@dataclass(frozen=True)
class Command:
    """A command of a page.

    Attributes:
        page: Path of the page, from the repository's root.
        words: Its words, as a shell would split them.
    """

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def blocks() -> Iterator[tuple[str, str, str]]:
    """Page, what its first line says that it needs, and text of each block of commands."""
    for page in PAGES:
        for said, text in BLOCK.findall(page.read_text()):
            yield str(page.relative_to(ROOT)), said, text


def commands(page: str, text: str) -> Iterator[Command]:
    """The commands of a block; those in a loop once, with its first value."""
    text = text.replace("\\\n", " ").replace("$(which lerobot-train)", "lerobot-train")
    text = re.sub(r"\$\(lerobot-gem-config (\w+)\)", r"configs/policy/\1.yaml", text)
    for name, first in LOOP.findall(text):
        text = re.sub(rf"\${name}\b|\${{{name}}}", first, text)
    text = re.sub(r"^ *(?:set -e|done)$", "", LOOP.sub("", text), flags=re.MULTILINE)
    for line in text.replace(" && ", "\n").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            del words[0]
        if words:
            yield Command(page, tuple(words))


def tabled_commands(page: str) -> Iterator[Command]:
    """The commands of a table that has a column of them. A file after a command stands for the one that the command names."""
    is_table = False
    for line in (ROOT / page).read_text().splitlines():
        cells = line.split("|")[1:-1]
        if not cells or not is_table:
            is_table = len(cells) > 1 and cells[1].strip().startswith("command")
        elif spans := re.findall(r"`([^`]+)`", cells[1]):
            whole, *files = spans
            yield from commands(page, whole)
            for file in files:
                yield from commands(
                    page, re.sub(r"configs/policy/\w+\.yaml", f"configs/policy/{file}", whole)
                )


def _given(words: tuple[str, ...]) -> dict[str, str]:
    """Words as options and their values."""
    return dict(word.partition("=")[::2] for word in words[1:])


@cache
def _adapters() -> tuple[str, ...]:
    """Folders of the runs that train an adapter of a model on the Hub: whoever loads the adapter loads that model too."""
    folders = []
    for page, _, text in blocks():
        for command in commands(page, text):
            given = _given(command.words)
            base = given.get("--policy.path") or given.get("--policy.backbone.pretrained", "")
            if re.match(_ACCOUNTS, base) and any(name.startswith("--peft.") for name in given):
                file = given.get("--config_path")
                settings = yaml.safe_load((ROOT / file).read_text()) if file else {}
                folders.append(given.get("--output_dir") or settings["output_dir"])
    return tuple(f"{folder}/" for folder in folders)


def _needs_gpu(words: tuple[str, ...]) -> bool:
    if "--policy.device=cpu" in words or any(word.startswith("--job.") for word in words):
        return False  # a job computes on the Hub's machines
    inputs = " ".join(word for word in words if not word.startswith((*_OUTPUTS, "--dataset.")))
    if re.search(r"gpu-check|-m gpu\b|--multi_gpu|--cluster\.gpus_per_task=[1-9]", inputs):
        return True
    if words[0] in {"lerobot-gem-server", "lerobot-gem-label-depth", "lmms-eval"}:
        return True
    return words[0] in _WITH_MODELS and bool(re.search(_LARGE, inputs))


def _needs_hub(words: tuple[str, ...]) -> bool:
    given = _given(words)
    if words[0] in {"hf", "lmms-eval"} or given.get("--policy.push_to_hub") == "true":
        return True
    if (
        any("label-depth" in word or "label_depth" in word for word in words)
        and "--model.pretrained" not in given
    ):
        return True  # the labeller is downloaded
    here = {
        repo
        for repo, root in (("--dataset.repo_id", "--dataset.root"), ("--repo-id", "--root"))
        if root in given
    }
    read = [
        value or name for name, value in given.items() if name not in here and not name.startswith(_OUTPUTS)
    ]
    return any(re.match(_ACCOUNTS, value) or value.startswith(_adapters()) for value in read) or any(
        name.startswith("--job.") for name in given
    )


def _needs_internet(words: tuple[str, ...]) -> bool:
    is_setup = words[0] == "lerobot-gem-libero-setup" and "--pro" in words  # downloads a package
    return is_setup or words[0] == "pip" or "apt-get" in words


def _needs_robot(words: tuple[str, ...]) -> bool:
    is_program = words[0] == "lerobot-rollout" or words[0].startswith("lerobot-find-")
    return is_program or any(word.startswith(("--robot.", "--teleop.")) for word in words)


def _needs_cluster(words: tuple[str, ...]) -> bool:
    return "--executor=slurm" in words


_NEEDS = {
    "GPU": _needs_gpu,
    "Hub": _needs_hub,
    "internet": _needs_internet,
    "robot": _needs_robot,
    "cluster": _needs_cluster,
}


def needs(page: str, text: str) -> str:
    """What the commands of a block need beside a CPU, and which do if not all."""
    all_words = [command.words for command in commands(page, text)]
    parts = []
    for need, is_needed in _NEEDS.items():
        programs = [_program(words) for words in all_words if is_needed(words)]
        if len(programs) == len(all_words):
            parts.append(need)
        elif programs:
            parts.append(f"{need} ({', '.join(dict.fromkeys(programs))})")
    return ", ".join(parts)


def _program(words: tuple[str, ...]) -> str:
    if words[:2] == ("python", "-m"):
        return words[2].rpartition(".")[2]
    return words[1] if words[0] == "sudo" else words[0]


def mark() -> None:
    """Give each block of docs/ the first line that says what it needs."""
    for page in (ROOT / "docs").rglob("*.md"):
        name = str(page.relative_to(ROOT))

        def marked(block: re.Match[str], name: str = name) -> str:
            needed = needs(name, block[2])
            line = f"# Needs: {needed}\n" if needed else ""
            return f"```bash\n{line}{block[2]}```"

        page.write_text(BLOCK.sub(marked, page.read_text()))


if __name__ == "__main__":
    mark()
