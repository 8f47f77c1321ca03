# /// script
# requires-python = ">=3.10"
# dependencies = [
#   "numpy==1.26.*; python_version < '3.13'",
#   "numpy==2.1.*; python_version == '3.13'",
#   "numpy==2.3.*; python_version > '3.13'",
#   "scikit-image==0.22.*; python_version < '3.13'",
#   "scikit-image>=0.25; python_version >= '3.13'",
# ]
# ///
"""Find the objects of one picture.

The demo's first environment (an older numpy, with scikit-image).

Runs in a worker of that environment and nowhere else: the host has neither numpy nor scikit-image,
so what comes in and what goes out is plain data. The pictures are those that the scikit-image wheel
itself ships; nothing is downloaded.
"""

from __future__ import annotations

import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import skimage
from scipy import ndimage
from skimage import color, feature, filters, io, measure, segmentation, util
from whereabouts import whereabouts

Array = Any


def segment(recipe: dict[str, Any]) -> dict[str, Any]:
    """Segment one picture with one setting of the sweep.

    Args:
        recipe: what ``recipes.py`` of the host lists: ``file`` (name in scikit-image's data
            folder), ``signal``, ``background`` (width of the local threshold in pixels, 0 for one
            threshold for all), ``margin``, ``split`` (least distance of two objects' centres in
            pixels), ``smallest`` and ``largest`` (areas in pixels), ``sigma`` (smoothing in pixels:
            the value that the sweep varies).

    Returns:
        ``height``, ``width``; ``picture`` (zlib of uint8, height x width x 3) and ``labels`` (zlib
        of int32, height x width, 0 outside); ``objects``; ``score`` (how well the outlines follow
        edges, for choosing among the sweep); ``where``.
    """
    started = time.time()
    top, left, height, width = recipe["crop"]
    picture = _read(recipe["file"])[top : top + height, left : left + width]
    signal = _signal(picture, recipe["signal"])
    smooth = filters.gaussian(signal, recipe["sigma"])
    labels = _split(_foreground(smooth, recipe), recipe)
    labels = _keep(labels, recipe["smallest"], recipe["largest"])
    return {
        "height": int(labels.shape[0]),
        "width": int(labels.shape[1]),
        "picture": zlib.compress(np.ascontiguousarray(picture).tobytes(), 1),
        "labels": zlib.compress(labels.astype(np.int32).tobytes(), 1),
        "objects": int(labels.max()),
        "score": _score(labels, signal),
        "where": whereabouts(started),
    }


def _read(name: str) -> Array:
    """Read a picture of scikit-image's own data folder as uint8, height x width x 3."""
    picture = io.imread(str(Path(skimage.__file__).parent / "data" / name))
    return util.img_as_ubyte(color.gray2rgb(picture) if picture.ndim == 2 else picture[..., :3])


def _signal(picture: Array, kind: str) -> Array:
    """Reduce a picture to one channel (float, 0..1) in which the objects are bright."""
    if kind == "blue":
        return np.clip((picture[..., 2].astype(float) - picture[..., 0]) / 110 + 0.05, 0, 1)
    gray = color.rgb2gray(picture)
    return 1 - gray if kind == "dark" else gray


def _foreground(smooth: Array, recipe: dict[str, Any]) -> Array:
    """Separate objects from background: boolean, height x width."""
    if recipe["background"]:
        level = (
            filters.threshold_local(smooth, recipe["background"], method="gaussian")
            + recipe["margin"]
        )
    else:
        level = filters.threshold_otsu(smooth) + recipe["margin"]
    mask = _without_specks(smooth > level, recipe["smallest"])
    return ~_without_specks(~mask, recipe["holes"])


def _without_specks(mask: Array, smallest: int) -> Array:
    """Drop the connected parts of fewer than ``smallest`` pixels."""
    parts = measure.label(mask)
    large = np.bincount(parts.ravel()) >= smallest
    large[0] = False
    return large[parts]


def _split(mask: Array, recipe: dict[str, Any]) -> Array:
    """Number the objects.

    Where ``split`` asks for it, cut touching ones apart along the watershed of their distance map.
    """
    if not recipe["split"]:
        return measure.label(mask)
    distance = filters.gaussian(ndimage.distance_transform_edt(mask), 1)
    peaks = feature.peak_local_max(
        distance, min_distance=recipe["split"], threshold_abs=0.5, exclude_border=False
    )
    seeds = np.zeros(mask.shape, dtype=np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return segmentation.watershed(-distance, seeds, mask=mask)


def _keep(labels: Array, smallest: int, largest: int) -> Array:
    """Drop objects of the wrong size and number the rest from 1."""
    areas = np.bincount(labels.ravel())
    wrong = (areas < smallest) | (areas > largest)
    labels = np.where(wrong[labels], 0, labels)
    return segmentation.relabel_sequential(labels)[0]


def _score(labels: Array, signal: Array) -> float:
    """Rate a segmentation without a ground truth.

    Contrast across the outlines, relative to the picture's own contrast.
    """
    if labels.max() == 0:
        return 0.0
    inner = segmentation.find_boundaries(labels, mode="inner")
    outer = segmentation.find_boundaries(labels, mode="outer") & (labels == 0)
    contrast = (
        abs(float(signal[inner].mean()) - float(signal[outer].mean())) if outer.any() else 0.0
    )
    edges = filters.sobel(signal)
    return contrast / float(signal.std()) + float(edges[inner].mean()) / (
        float(edges.mean()) + 1e-9
    )
