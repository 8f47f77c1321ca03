# /// script
# requires-python = ">=3.10"
# dependencies = [
#   "numpy>=2.2,<3; python_version < '3.11'",
#   "numpy>=2.4,<3; python_version >= '3.11'",
#   "scikit-learn>=1.5",
#   "pillow>=10.1",
# ]
# ///
"""Measure objects and sort them into kinds.

The demo's second environment (a current numpy, with scikit-learn).

Runs in a worker of that environment and nowhere else. What it gets was made with another version of
numpy, in another process; both sides agree on plain data: zlib-compressed pixels with their size.
"""

from __future__ import annotations

import time
import zlib
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from whereabouts import whereabouts

Array = Any

FEATURES = ("size", "elongation", "brightness", "texture")


def measure(found: dict[str, Any]) -> dict[str, Any]:
    """Measure every object of one segmented picture.

    Args:
        found: ``height``, ``width``, ``picture`` and ``labels``, as ``segment.py`` returns them.

    Returns:
        ``rows``: one list of four numbers per object, in the order of the labels: area (pixels),
        eccentricity of the ellipse with the same second moments (0 round .. 1 line), mean
        brightness and its standard deviation within the object (both 0..1); ``where``.
    """
    started = time.time()
    shape = (found["height"], found["width"])
    labels = np.frombuffer(zlib.decompress(found["labels"]), np.int32).reshape(shape)
    picture = np.frombuffer(zlib.decompress(found["picture"]), np.uint8).reshape(*shape, 3)
    gray = picture @ np.array([0.2125, 0.7154, 0.0721]) / 255
    count = int(labels.max())
    inside = labels > 0
    index = labels[inside] - 1
    area = np.bincount(index, minlength=count).astype(float)
    bright = _mean(index, gray[inside], area)
    texture = np.sqrt(np.maximum(_mean(index, gray[inside] ** 2, area) - bright**2, 0))
    rows = np.column_stack([area, _eccentricity(inside, index, area), bright, texture])
    return {"rows": rows.tolist(), "where": whereabouts(started)}


def _mean(index: Array, values: Array, area: Array) -> Array:
    """Average the pixels' ``values`` over each object."""
    return np.bincount(index, weights=values, minlength=len(area)) / np.maximum(area, 1)


def _eccentricity(inside: Array, index: Array, area: Array) -> Array:
    """Compute the eccentricity of each object from its second central moments.

    A pixel is a unit square, which adds 1/12 to each.
    """
    y, x = (axis.astype(float) for axis in np.nonzero(inside))
    dy = y - _mean(index, y, area)[index]
    dx = x - _mean(index, x, area)[index]
    yy, xx, xy = (
        _mean(index, dy * dy, area) + 1 / 12,
        _mean(index, dx * dx, area) + 1 / 12,
        _mean(index, dx * dy, area),
    )
    spread = np.sqrt((xx - yy) ** 2 / 4 + xy**2)
    major, minor = (xx + yy) / 2 + spread, (xx + yy) / 2 - spread
    return np.sqrt(np.clip(1 - minor / major, 0, 1))


def cluster(tables: list[list[list[float]]], kinds: int) -> dict[str, Any]:
    """Sort the objects of all pictures into kinds.

    Every feature counts relative to the object's own picture, so that a kind is not simply a
    picture.

    Args:
        tables: the ``rows`` of every picture.
        kinds: how many kinds to make.

    Returns:
        ``kinds`` (for each picture a list: the kind of each of its objects, the most frequent kind
        being 0), ``names``, ``sizes``, ``score`` (silhouette, -1..1), ``points`` (for each object
        x, y of the first two principal components, all pictures in order), ``axes`` (for each
        feature its name and its direction in that plane), ``explained`` (share of the variance of x
        and y), ``where``.
    """
    started = time.time()
    scaled = np.concatenate([_relative(np.array(table)) for table in tables if table])
    scaled = np.clip((scaled - scaled.mean(axis=0)) / scaled.std(axis=0), -3, 3)
    model = KMeans(n_clusters=kinds, n_init=8, random_state=3).fit(scaled)
    order = np.argsort(-np.bincount(model.labels_, minlength=kinds))
    rank = np.argsort(order)[model.labels_]
    plane = PCA(n_components=2).fit(scaled)
    ends = np.cumsum([len(table) for table in tables])[:-1]
    return {
        "kinds": [part.tolist() for part in np.split(rank, ends)],
        "names": _names(model.cluster_centers_[order]),
        "sizes": np.bincount(rank, minlength=kinds).tolist(),
        "score": float(silhouette_score(scaled, rank, sample_size=1500, random_state=3)),
        "points": plane.transform(scaled).tolist(),
        "axes": [
            [name, *direction]
            for name, direction in zip(FEATURES, plane.components_.T.tolist(), strict=True)
        ],
        "explained": plane.explained_variance_ratio_.tolist(),
        "where": whereabouts(started),
    }


def _relative(table: Array) -> Array:
    """Standardise one picture's features.

    A feature in which its objects hardly differ is not scaled up.
    """
    area, eccentricity, bright, texture = table.T
    columns = ((np.log2(area), 0.4), (eccentricity, 0.12), (bright, 0.02), (texture, 0.01))
    return np.column_stack(
        [(values - values.mean()) / max(float(values.std()), least) for values, least in columns]
    )


def _names(centres: Array) -> list[str]:
    """Name each kind by what sets it most apart, with as many words as it takes to be unique."""
    words = (("small", "large"), ("round", "long"), ("dark", "bright"), ("plain", "patterned"))
    names: list[str] = []
    for centre in centres:
        by_weight = [int(feature) for feature in np.argsort(-np.abs(centre))]
        for count in (2, 3, 4):
            name = ", ".join(
                words[feature][int(centre[feature] > 0)] for feature in sorted(by_weight[:count])
            )
            if name not in names:
                break
        names.append(name)
    return names
