# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from monai_crossd._options import look_up_option

WORDS = ("ct", "mr", "us")


@pytest.mark.parametrize(("option", "supported"), [("ct", WORDS), (3, (2, 3)), ("Wide", ["Wide", "wide"])])
def test_a_word_is_returned(option, supported):
    assert look_up_option(option, supported) == option
    assert look_up_option(option, dict.fromkeys(supported, 7)) == 7


@pytest.mark.parametrize(
    ("option", "near"), [("CT", "ct"), ("Mr", "mr"), (" us", "us"), ("US ", "us"), ("cte", "ct"), ("mrt", "mr")]
)
def test_the_nearest_word_is_named(option, near):
    with pytest.raises(ValueError, match=f"did you mean '{near}'"):
        look_up_option(option, WORDS)


def test_another_word_gets_the_list():
    with pytest.raises(ValueError, match="Available options are"):
        look_up_option("positron", WORDS)
