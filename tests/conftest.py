"""Settings of every test run. The kernels that execute the notebooks inherit them."""

import os

os.environ.setdefault("COURSE_DEVICE", "cpu")       # the same figures whether or not there is a GPU
os.environ.setdefault("OMP_NUM_THREADS", "2")       # the cores that the course's limits are meant for
