"""Pictures that move smoothly, as a camera's do, and small files of them."""

import numpy as np

from mirror_analysis.episodes.video_encoder import encode


def moving(time=12, height=48, width=64, seed=0):
    """Waves of grey that run across the picture: [time, height, width, 3]."""
    y, x = np.mgrid[:height, :width]
    t = np.arange(time)[:, None, None]
    wave = 127 + 60 * np.sin((x + 5 * t + 13 * seed) / 9) + 50 * np.cos((y - 3 * t) / 7)
    return np.repeat(wave[..., None], 3, axis=3).astype(np.uint8)


def video(path, *, time=12, fps=10, codec="h264", height=48, width=64, seed=0):
    """Writes such a file and gives its pictures."""
    frames = moving(time, height, width, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    encode(path, frames, fps=fps, codec=codec)
    return frames


def psnr(first, second):
    """Decibels by which the larger signal exceeds the difference."""
    error = np.mean((first.astype(np.float64) - second) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-12))
