"""OpenCV, each call by the thread that makes it.

The threads of the input work on an image each. OpenCV's own, a pool for the whole process, would
take the cores that TensorFlow and the other ranks compute on. Pixels do not depend on it.
"""

import cv2

cv2.setNumThreads(1)

__all__ = ["cv2"]
