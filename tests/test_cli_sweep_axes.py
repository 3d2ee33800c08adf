"""How the values of a swept option are written: lists, ranges, slashes, and what is refused."""

import pytest
from mlpkernels_cli.axes import ONCE, SWEPT, parse_axis
from mlpkernels_cli.settings import FIELDS

from mlpkernels.sweep import Range


@pytest.mark.parametrize(
    "name, text, values",
    [
        ("batch-size", "8,16,32", (8, 16, 32)),
        ("batch-size", " 8 , full,auto ", (8, "full", "auto")),
        ("batch-size", "8,8,16", (8, 16)),
        ("seed", "0:5", (0, 1, 2, 3, 4)),
        ("seed", "0:100:25", (0, 25, 50, 75)),
        ("seed", "7,0:2", (7, 0, 1)),
        ("seed", "3", (3,)),
        ("momentum", "0:0.9:0.3", (0.0, 0.3, 0.6)),
        ("momentum", "lin:0:0.9:4", (0.0, 0.3, 0.6, 0.9)),
        ("momentum", "lin:0:0.9:1", (0.0,)),
        ("learning-rate", "log:1e-4:1e-1:7", (1e-4, 0.000316228, 1e-3, 0.00316228, 1e-2, 0.0316228, 0.1)),
        ("batch-size", "log:8:256:6", (8, 16, 32, 64, 128, 256)),
        ("batch-size", "log:1:4:9", (1, 2, 3, 4)),
        ("hidden", "64,64", ((64, 64),)),
        ("hidden", "64,64/128/none", ((64, 64), (128,), ())),
        ("class-weight", "none/balanced/3=2,5=0.5", ("none", "balanced", "3=2,5=0.5")),
        ("schedule", "constant,step:10:0.5,cosine:2", ("constant", "step:10:0.5", "cosine:2")),
        ("optimizer", "sgd,adam", ("sgd", "adam")),
        ("nesterov", "on,off", (True, False)),
        ("eval-train", "true", (True,)),
        ("dtype", "float32,float64", ("float32", "float64")),
    ],
)
def test_values(name, text, values):
    axis = parse_axis(name, text)
    assert axis.values == values and axis.range is None
    assert [type(value) for value in axis.values] == [type(value) for value in values]
    assert axis.swept == (len(values) > 1)
    assert axis.logarithmic == ("log:" in text)


def test_ranges_to_draw_from():
    assert parse_axis("learning-rate", "log:1e-4:1").range == Range(1e-4, 1, log=True)
    axis = parse_axis("batch-size", "lin:8:64")
    assert axis.range == Range(8, 64, whole=True) and axis.swept and not axis.logarithmic


@pytest.mark.parametrize(
    "name, text, told",
    [
        ("seed", "5:5", "an empty range; an end above 5"),
        ("seed", "5:0", "an empty range"),
        ("seed", "0:5:0", "a step of 0"),
        ("seed", "0:5:-1", "a step of -1"),
        ("seed", "0:5:1:1", "ranges are written FIRST:END"),
        ("seed", ":5", "nothing where a number was wanted"),
        ("seed", "a:b", "a where a number was wanted"),
        ("seed", "0:inf", "inf where a number was wanted"),
        ("seed", "0:1.5", "1.5 where a whole number was wanted"),
        ("seed", "-3:2", "-3: a whole number from 0 was wanted"),
        ("seed", "0:1000000000", "1,000,000,000 values; at most 100,000"),
        ("batch-size", "8,x", "x: a whole number from 1, full or auto was wanted"),
        ("batch-size", "8,,16", "nothing between two separators"),
        ("batch-size", "0:4", "0: a whole number from 1"),
        ("hidden", "64/", "nothing between two separators"),
        ("learning-rate", "log:0:1:3", "a logarithmic range from 0"),
        ("learning-rate", "log:1:0.1:3", "an empty range; an end above 1"),
        ("learning-rate", "log:1:2:0", "0 values; 1 to 100,000"),
        ("learning-rate", "log:1:2:3:4", "ranges are written"),
        ("learning-rate", "log:1:2,3", "log:1:2: how many values?"),
        ("momentum", "lin:0:1:3", "1: a number from 0 and below 1"),
        ("momentum", "lin:0:1", "a number from 0 and below 1"),
        ("optimizer", "sgd,adem", "adem: one of sgd, adam, adamw was wanted, did you mean adam?"),
        ("optimizer", "log:1:2:3", "ranges are for numbers"),
        ("optimizer", "lin:1:2", "ranges are for numbers"),
        ("nesterov", "maybe", "on or off was wanted"),
    ],
)
def test_what_cannot_be_is_named(name, text, told):
    with pytest.raises(ValueError) as caught:
        parse_axis(name, text)
    assert told in str(caught.value)


def test_every_setting_may_be_swept_or_is_of_the_sweep_as_a_whole():
    assert set(ONCE) | set(SWEPT) == set(FIELDS) and not set(ONCE) & set(SWEPT)
