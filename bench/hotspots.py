"""Reads the stacks that bench/sampling takes: which functions the CPU time is in. Pure."""

from collections import Counter


def summary(stacks: str, count: int) -> str:
    """The functions with the most time of their own, each with its share, the share with all it calls, and its lines.

    `stacks`: lines of `outermost;...;innermost;line N count`. What was sampled during imports is left out.
    """
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    lines: Counter[tuple[str, str]] = Counter()
    for sampled in stacks.splitlines():
        stack, _, number = sampled.rpartition(" ")
        *frames, line = stack.split(";")
        if not frames or any(frame.startswith("<frozen importlib") for frame in frames):
            continue
        times = int(number)
        own[frames[-1]] += times
        lines[frames[-1], line.removeprefix("line ")] += times
        for frame in set(frames):
            whole[frame] += times
    total = own.total()
    rows = [f"{total} samples", "  own  whole"]
    for function, times in own.most_common(count):
        hot = [f"{line} ({share / total:.1%})" for (of, line), share in lines.most_common() if of == function][:3]
        rows.append(f"{times / total:6.1%} {whole[function] / total:6.1%}  {function}  lines {', '.join(hot)}")
    return "\n".join(rows)
