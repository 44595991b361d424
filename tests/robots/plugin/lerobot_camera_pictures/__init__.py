"""A camera of LeRobot's that shows the same picture again and again: `{type: pictures, width: 64, height: 64}`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from lerobot.cameras import Camera, CameraConfig


@CameraConfig.register_subclass("pictures")
@dataclass(kw_only=True)
class PicturesCameraConfig(CameraConfig):
    """`brightness` of the picture, 0 to 255, and the number of `frames` after which the camera is gone."""

    width: int = 64
    height: int = 64
    fps: int = 30
    brightness: int = 120
    frames: int | None = None


class PicturesCamera(Camera):
    def __init__(self, config: PicturesCameraConfig) -> None:
        super().__init__(config)
        self.config = config
        self._shown, self._connected = 0, False

    @property
    def is_connected(self) -> bool:
        return self._connected

    @staticmethod
    def find_cameras() -> list[dict[str, Any]]:
        return []

    def connect(self, warmup: bool = True) -> None:
        self._connected = True

    def read(self) -> np.ndarray:
        self._shown += 1
        if self.config.frames is not None and self._shown > self.config.frames:
            raise TimeoutError("The camera is gone.")
        picture = np.full((self.config.height, self.config.width, 3), self.config.brightness, np.uint8)
        picture[: self.config.height // 4] //= 2  # so that up is up
        return picture

    def async_read(self, timeout_ms: float = 200) -> np.ndarray:
        return self.read()

    def read_latest(self, max_age_ms: int = 500) -> np.ndarray:
        return self.read()

    def disconnect(self) -> None:
        self._connected = False
