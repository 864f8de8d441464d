"""Secrets are not printed, copied to disk, or compared in a way that tells them."""

import copy
import pickle

import msgspec
import pytest

from qwen_proxy.ground.secret import Secret

VALUE = "canary-7731"


class Holder(msgspec.Struct):
    secret: Secret


def test_no_way_of_printing_shows_it():
    secret = Secret(VALUE)
    ways = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>20}",
        "%s" % secret,  # noqa: UP031
        f"{[secret]}",
        f"{Holder(secret)}",
    ]
    assert not [way for way in ways if VALUE in way]
    assert str(secret) == "***"


def test_it_is_revealed_on_demand():
    assert Secret(VALUE).reveal() == VALUE


def test_it_is_neither_pickled_nor_copied():
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            way(Secret(VALUE))


def test_equality_and_hash():
    assert Secret(VALUE) == Secret(VALUE)
    assert Secret(VALUE) != Secret("other")
    assert Secret(VALUE) != VALUE
    assert len({Secret(VALUE), Secret(VALUE)}) == 1
    assert Secret("ä") == Secret("ä")


def test_an_empty_one_is_false():
    assert not Secret("")
    assert Secret(VALUE)
