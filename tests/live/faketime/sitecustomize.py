"""For processes under libfaketime 0.9.10, under which `time.sleep` fails: it misreads the absolute times of `clock_nanosleep`."""

import select
import time
from typing import SupportsIndex


def _sleep(seconds: float | SupportsIndex) -> None:
    select.select([], [], [], float(seconds))


time.sleep = _sleep
