"""OpenCV as the decoders use it, silent and on one core; decoders import ``cv2`` from here."""

import os

# OpenCV and its ffmpeg read these variables once, when OpenCV is imported. They must print nothing:
# avsnn records the reason of every failure instead.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2

# avsnn runs one worker per core: more threads in a worker would only compete for the core.
cv2.setNumThreads(1)

__all__ = ["cv2"]
