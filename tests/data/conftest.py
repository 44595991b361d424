"""Folders of records in the GEM format, made of small generated images."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@dataclass
class GemFolder:
    """Builds a folder: add records, then write them.

    Attributes:
        root: The folder.
        records: Lines to write: records, or text that is none.
    """

    root: Path
    records: list[dict | str] = field(default_factory=list)

    def image(self, name: str, size: tuple[int, int] = (64, 48), seed: int = 0, mode: str = "RGB") -> str:
        """A smooth picture with some noise, in the format that the name says."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(seed)
        ramp = np.linspace(0, 200, size[0] * 3).reshape(1, size[0], 3)
        pixels = ramp + random.integers(0, 55, (size[1], 1, 3))
        Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(path)
        return name

    def depth(self, image: str, size: tuple[int, int] = (64, 48), bits: int = 16, name: str = "") -> str:
        """A depth map of 0.4 to 3.5 m (of 1 to 250 in 8 bits), with a corner that has none."""
        path = self.root / (name or f"depth/{Path(image).stem}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        ramp = np.linspace(0, 1, size[0] * size[1]).reshape(size[1], size[0])
        values = 400 + 3100 * ramp if bits == 16 else 1 + 249 * ramp
        values[:4, :4] = 0
        Image.fromarray(values.astype(np.uint16 if bits == 16 else np.uint8)).save(path)
        return str(path.relative_to(self.root))

    def add(self, image: str | list[str] | None = None, question: str | None = None, **fields) -> dict:
        """A record with one question, unless `conversations` are given."""
        number = len(self.records)
        record: dict = {"id": number} if image is None else {"id": number, "image": image}
        marks = "<image>\n" * (1 if isinstance(image, str) else len(image or []))
        text = marks + f"What is in picture {number}?" if question is None else question
        record["conversations"] = [
            {"from": "human", "value": text},
            {"from": "gpt", "value": f"Thing {number}."},
        ]
        record |= fields
        self.records.append(record)
        return record

    def write(self, name: str = "gem.jsonl") -> Path:
        """Write the records; returns the folder."""
        if name.endswith(".jsonl"):
            lines = [line if isinstance(line, str) else json.dumps(line) for line in self.records]
            (self.root / name).write_text("\n".join(lines) + "\n")
        else:
            (self.root / name).write_text(json.dumps(self.records))
        return self.root


@pytest.fixture
def folder(tmp_path: Path) -> GemFolder:
    """An empty folder to add records to."""
    root = tmp_path / "gem"
    root.mkdir()
    return GemFolder(root)
