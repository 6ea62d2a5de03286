# SPDX-License-Identifier: Apache-2.0
"""MONAI's look-up of a word, which finds none that is written in other letters."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from monai.utils import look_up_option as look_up

__all__ = ["look_up_option"]


def look_up_option(option: Any, supported: Collection) -> Any:
    """MONAI's ``look_up_option``; of "CT" and the words ct, mr and us it says ct, where MONAI's says us.

    Args:
        option: the word.
        supported: words, or a dictionary by words.

    Returns:
        The word, or its value in the dictionary.

    Raises:
        ValueError: When it is not among them, with the nearest one.

    Example:
        >>> look_up_option("CT", ("ct", "mr", "us"))
        Traceback (most recent call last):
        ValueError: By 'CT', did you mean 'ct'?
        'CT' is not a valid value: words are written in small letters and without spaces.
        Available options are ['ct', 'mr', 'us'].
    """
    if isinstance(option, str) and option not in supported:
        for word in supported:
            if str(word) == option.strip().lower():
                raise ValueError(
                    f"By {option!r}, did you mean {word!r}?\n"
                    f"{option!r} is not a valid value: words are written in small letters and without spaces.\n"
                    f"Available options are {sorted(map(str, supported))}."
                )
    return look_up(option, supported)
