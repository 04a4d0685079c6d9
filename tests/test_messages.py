"""Lists of names."""

from cifarpipe.config.messages import listed


def test_long_lists_are_cut() -> None:
    assert listed([]) == ""
    assert listed(["a"]) == "a"
    assert listed(list("abcdef")) == "a, b, c, d, e, f"
    assert listed(list("abcdefgh")) == "a, b, c, d, e, f and 2 more"
