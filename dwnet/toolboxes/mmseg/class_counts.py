"""How many images of a segmentation data set show each class."""
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from mmcv.transforms import LoadAnnotations

from dwnet.data.checks import leaves


def images_with_classes(dataset: Any) -> list[int]:
    """Reads all label images as the pipeline of the data set does; images that cannot be read do not count."""
    counts = np.zeros(len(dataset.metainfo['classes']), int)
    with ThreadPoolExecutor() as threads:
        for part in leaves(dataset):
            loading = next(step for step in part.pipeline.transforms if isinstance(step, LoadAnnotations))

            def labels_of(index: int, part: Any = part, loading: LoadAnnotations = loading) -> np.ndarray:
                try:
                    return np.unique(loading(part.get_data_info(index))['gt_seg_map'])
                except Exception:  # the training has named the file
                    return np.array([], int)

            for labels in threads.map(labels_of, range(len(part))):
                counts[labels[labels < len(counts)]] += 1
    return counts.tolist()
