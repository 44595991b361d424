"""Small files in the layouts in which public benchmarks are published; the pictures and questions are ours."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SIZE = (64, 64)


def picture(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", SIZE, (shade, shade, shade)).save(buffer, format="PNG")
    return buffer.getvalue()


def write_video(path: Path, frames: int) -> None:
    """Frame i is as bright as i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for shade in range(frames):
            image = np.full((*SIZE, 3), 2 * shade, dtype=np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


VSI_RECORDS: list[dict[str, Any]] = [
    {"question_type": "object_counting", "ground_truth": "4", "options": None},
    {"question_type": "room_size_estimation", "ground_truth": "20.0", "options": None},
    {"question_type": "object_rel_direction_easy", "ground_truth": "A", "options": ["A. left", "B. right"]},
    {
        "question_type": "object_rel_direction_hard",
        "ground_truth": "B",
        "options": ["A. front-left", "B. front-right", "C. back-left", "D. back-right"],
    },
    {
        "question_type": "obj_appearance_order",
        "ground_truth": "C",
        "options": ["A. sofa, tv", "B. tv, lamp", "C. lamp, sofa", "D. lamp, tv"],
    },
]


def vsi_bench(root: Path) -> Path:
    """`test.jsonl`, with a video of one scene and a folder of frames of another."""
    root.mkdir()
    scenes = ["scannet/scene0000_00", "arkitscenes/41069025"]
    write_video(root / f"{scenes[0]}.mp4", 50)
    (root / scenes[1]).mkdir(parents=True)
    for place in range(5):
        (root / scenes[1] / f"frame_{place:04d}.png").write_bytes(picture(10 * place))
    lines = []
    for number, record in enumerate(VSI_RECORDS):
        dataset, scene = scenes[number % 2].split("/")
        more = {"id": number, "dataset": dataset, "scene_name": scene, "question": f"What of {number}?"}
        lines.append(json.dumps({**more, **record}))
    (root / "test.jsonl").write_text("\n".join(lines) + "\n")
    return root


CV_RECORDS = [
    ("2D", "Count", "ADE20K", "(A)"),
    ("2D", "Relation", "ADE20K", "(B)"),
    ("2D", "Count", "COCO", "(B)"),
    ("3D", "Depth", "Omni3D", "(A)"),
    ("3D", "Distance", "Omni3D", "(B)"),
]


def cv_bench(root: Path) -> Path:
    """`test_2d.parquet` and `test_3d.parquet` with their images."""
    root.mkdir()
    for side in ("2D", "3D"):
        records = [
            {
                "idx": number,
                "type": side,
                "task": task,
                "image": {"bytes": picture(number), "path": None},
                "question": "Which?",
                "choices": ["one", "two"],
                "answer": answer,
                "prompt": "Which? Select from the following choices.\n(A) one\n(B) two",
                "filename": f"{side}/{number}.png",
                "source": source,
            }
            for number, (of, task, source, answer) in enumerate(CV_RECORDS)
            if of == side
        ]
        pq.write_table(pa.Table.from_pylist(records), root / f"test_{side.lower()}.parquet")
    return root


def embspatial(root: Path) -> Path:
    """`embspatial_bench.json`, images in base64."""
    root.mkdir()
    records = [
        {
            "data_source": source,
            "scene_id": "scene",
            "question_id": f"{source}_{number}",
            "question": "Which object is closest?",
            "relation": relation,
            "image": base64.b64encode(picture(number)).decode(),
            "answer_options": ["door", "cabinet", "table", "cart"],
            "answer": answer,
            "objects": [{"name": "door", "bbox": [1, 2, 3, 4]}],
        }
        for number, (source, relation, answer) in enumerate(
            [("mp3d", "close", 2), ("ai2thor", "under", 1), ("scannet", "close", 0)]
        )
    ]
    (root / "embspatial_bench.json").write_text(json.dumps(records))
    return root


ROBOSPATIAL_RECORDS = [
    ("configuration", "Is the bowl left of the mug?", "yes"),
    ("configuration", "Is the mug left of the bowl?", "no"),
    ("compatibility", "Can the mug fit right of the bowl?", "Yes"),
    ("context", "Pinpoint points left of the bowl.", "[(0.2, 0.2), (0.6, 0.2), (0.6, 0.7), (0.2, 0.7)]"),
]


def robospatial_home(root: Path) -> Path:
    """`data/<category>-*.parquet` with images, as on the Hub."""
    (root / "data").mkdir(parents=True)
    for category in ("configuration", "compatibility", "context"):
        records = [
            {
                "category": category,
                "question": question,
                "answer": answer,
                "img": {"bytes": picture(number), "path": "image.png"},
                "depth_image": None,
                "mask": None,
            }
            for number, (of, question, answer) in enumerate(ROBOSPATIAL_RECORDS)
            if of == category
        ]
        pq.write_table(pa.Table.from_pylist(records), root / "data" / f"{category}-00000-of-00001.parquet")
    return root


WRITERS = {
    "vsi_bench": vsi_bench,
    "cv_bench": cv_bench,
    "embspatial": embspatial,
    "robospatial_home": robospatial_home,
}
