"""Measures the detector's memory: per series, by its number of values, and of its queues, by the number of partitions.

The process catches up with a backlog. Its memory is then compared with that after the same number of events of a thousand
series. Peaks are the high-water mark of the kernel.
"""

import argparse
import os
import re
import time
from pathlib import Path

from harness import create, delete, detector, fill, memory, metrics, prepare, say, settings, until

FEW = 1_000
EVENTS = 5_000_000


def peak(pid):
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def measure(devices, events, partitions=4):
    """Returns resident and peak bytes after all events are judged."""
    name = f"bench{os.getpid()}_{devices}_{events}_{partitions}"
    env = settings(name, TOPICS__RAW_EVENTS=name)
    create(name, partitions=partitions)
    prepare(name, env, partitions)
    fill(name, env, events, devices, anomalies=0)
    with detector(env) as process:
        until(lambda: metrics()["anomaly_events_total"] >= events, process)
        # The allocator returns freed memory to the system after some time.
        time.sleep(10)
        found = memory(process.pid), peak(process.pid)
    delete(name)
    say(f"{devices:,} series, {events:,} events, {partitions} partitions: {found[0] / 2**20:,.0f} MiB, peak {found[1] / 2**20:,.0f}")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=1_000_000)
    parser.add_argument("--values", default="5,100", help="of each device, by comma")
    parser.add_argument("--partitions", default="1,4,256", help="by comma")
    options = parser.parse_args()
    print("| | resident, MiB | peak, MiB | bytes per series |\n| --- | --- | --- | --- |")
    few = {}
    for partitions in map(int, options.partitions.split(",")):
        few[partitions] = resident, most = measure(FEW, EVENTS, partitions)
        print(f"| {FEW:,} series, {partitions} partitions | {resident / 2**20:,.0f} | {most / 2**20:,.0f} | |", flush=True)
    few = few.get(4) or measure(FEW, EVENTS)
    for values in map(int, options.values.split(",")):
        resident, most = measure(options.devices, options.devices * values)
        each = (resident - few[0]) / options.devices
        print(f"| {options.devices:,} series of {values} values | {resident / 2**20:,.0f} | {most / 2**20:,.0f} | {each:,.0f} |", flush=True)


main()
