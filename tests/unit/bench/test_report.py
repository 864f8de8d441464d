from bench import report

CPU = report.Quantity("cpu", "us", "bare", 1.4)
LATE = report.Quantity("late", "ms", None, 50.0)


def test_percentile_is_the_nearest_rank():
    ordered = [float(number) for number in range(1, 201)]
    assert report.percentile(ordered, 0.5) == 100
    assert report.percentile(ordered, 0.99) == 198
    assert report.percentile(ordered, 1.0) == 200
    assert report.percentile([7.0], 0.01) == 7


def test_summary_turns_microseconds_into_milliseconds():
    assert report.summary([3000, 1000, 2000]) == {"p50": 2.0, "p99": 3.0, "max": 3.0, "count": 3}
    assert report.summary([]) == {}


def test_a_ratio_is_taken_within_each_round():
    # The second round was twice as slow for both; the medians alone would give 60 / 40.
    line = report.line(CPU, {"bare": [40.0, 80.0, 40.0], "product": [52.0, 104.0, 60.0]}, "product")
    assert line.medians == {"bare": 40.0, "product": 60.0}
    assert line.ratio == 1.3
    assert line.is_met is True


def test_a_bar_is_missed_by_the_ratio_or_by_the_number():
    assert report.line(CPU, {"bare": [10.0], "product": [15.0]}, "product").is_met is False
    assert report.line(LATE, {"bare": [10.0], "product": [51.0]}, "product").is_met is False
    assert report.line(LATE, {"bare": [60.0], "product": [50.0]}, "product").is_met is True


def test_nothing_is_judged_without_its_numbers():
    assert report.line(CPU, {"product": [15.0]}, "product").is_met is None
    assert report.line(LATE, {"bare": [15.0]}, "product").is_met is None
    assert report.line(report.Quantity("calls", ""), {"product": [3.0]}, "product").is_met is None


def test_the_table_shows_numbers_ratio_bar_and_verdict():
    lines = [
        report.line(CPU, {"bare": [40.0], "product": [60.0]}, "product"),
        report.line(LATE, {"bare": [2.5], "product": [4.25]}, "product"),
    ]
    assert report.table(lines, ("bare", "product")).splitlines() == [
        "      unit  bare  product        ratio            bar",
        "cpu   us      40       60  1.50 x bare  <= 1.4 x bare  MISSED",
        "late  ms    2.50     4.25                       <= 50     met",
    ]
