from bench import hotspots

STACKS = """\
main;serve;read;line 7 30
main;serve;read;line 9 10
main;serve;line 3 60
main;<frozen importlib._bootstrap>:_load;line 1 900
"""


def test_functions_are_ranked_by_the_time_of_their_own():
    assert hotspots.summary(STACKS, 1).splitlines() == [
        "100 samples",
        "  own  whole",
        " 60.0% 100.0%  serve  lines 3 (60.0%)",
    ]
    assert hotspots.summary(STACKS, 2).splitlines()[-1] == " 40.0%  40.0%  read  lines 7 (30.0%), 9 (10.0%)"


def test_no_samples_make_an_empty_summary():
    assert hotspots.summary("", 5).splitlines() == ["0 samples", "  own  whole"]
