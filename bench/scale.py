"""Measures the cost of an event by the number of events, partitions and workers, and by the size of produced batches. The first
run after a build is the slowest and is not counted.
"""

import argparse
import os

from harness import catch_up, create, delete, fill, say, settings

MILLION = 1_000_000


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=5 * MILLION, help="of a case that names no other number")
    parser.add_argument("--most", type=int, default=50 * MILLION)
    parser.add_argument("--devices", type=int, default=1_000)
    options = parser.parse_args()
    cases = [
        ("warming up", dict(events=MILLION)),
        ("4 partitions", {}),
        *((f"{partitions} partitions", dict(partitions=partitions)) for partitions in (1, 64, 256)),
        ("4 partitions, 2 workers", dict(workers=2)),
        ("4 partitions, produced in batches of 10", dict(batch=10)),
        *((f"4 partitions, {events:,} events", dict(events=events)) for events in (MILLION, options.most)),
        ("4 partitions again", {}),
    ]
    print("| | CPU-s per million | events/s, wall | resident, MiB |\n| --- | --- | --- | --- |", flush=True)
    for at, (title, case) in enumerate(cases):
        events, partitions = case.get("events", options.events), case.get("partitions", 4)
        name = f"scale{os.getpid()}-{at}"
        create(name, partitions=partitions)
        batch = {"KAFKA__PROPERTIES__BATCH_NUM_MESSAGES": case["batch"]} if "batch" in case else {}
        fill(name, settings(name, **batch), events, options.devices)
        used, taken, resident = catch_up(name, name, events, partitions, DETECTOR__WORKERS=case.get("workers", 1))
        delete(name)
        say(f"{title}: {used / events * MILLION:.3f} CPU-s per million")
        if at > 0:
            print(f"| {title} | {used / events * MILLION:.3f} | {events / taken:,.0f} | {resident / 2**20:,.0f} |", flush=True)


main()
