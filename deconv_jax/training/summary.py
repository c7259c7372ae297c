"""Reports and learning curves as text."""


def curve_text(rows: list[dict]) -> str:
    """The learning curve as text."""
    lines = ["artists".ljust(9) + "system".ljust(30) + "balanced accuracy by clip   by song"]
    for row in rows:
        cells = [f"{row[k]:.3f} [{row[f'{k}_low']:.3f} {row[f'{k}_high']:.3f}]" for k in ("by_clip", "by_song")]
        lines.append(f"{row['artists']!s:9}{row['system']:30}{cells[0]:28}{cells[1]}")
    return "\n".join(lines)


def report_text(report: dict) -> str:
    """The report's main numbers as text; reports from before there were intervals have none. "" of no report."""
    if not report:
        return ""
    results = {"network": report["test"]} | report["baselines"]
    difference = report.get("difference", {})
    lines = []
    for kind, what in (("by_clip", "clips"), ("by_song", "songs")):
        lines.append(f"{report['test'][kind]['n']} test {what}".ljust(30) + "accuracy             balanced accuracy")
        for name, result in results.items():
            cells = []
            for measure in ("accuracy", "balanced_accuracy"):
                cell = f"{result[kind][measure]:.3f}"
                if "interval" in result[kind]:
                    cell += " [{:.3f} {:.3f}]".format(*result[kind]["interval"][measure])
                cells.append(cell)
            lines.append(f"  {name:28}{cells[0]:21}{cells[1]}")
        found = difference.get(kind, {})
        # Reports from before every baseline was compared have the best one only.
        each = found.get("each", {found["baseline"]: found} if found else {})
        for name, one in each.items():
            ahead, (low, high) = one["balanced_accuracy"], one["interval"]
            lines.append(f"  network - {name:38} {ahead:+.3f} [{low:+.3f} {high:+.3f}]")
    if difference:
        lines.append(f"[ ]: 95 % intervals over {difference['units']} {difference['resampled']}; too narrow if few")
    return "\n".join(lines)
