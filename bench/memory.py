"""Measures the detector's memory: per series, by its number of values, and of its queues, by the number of partitions.

The process catches up with a backlog. Peaks are the high-water mark of the kernel.

The bytes per series are the difference to a thousand series, divided by the number of series. In the rows for it, the
allocator returns freed memory to the system at once. By default it keeps some for reuse, and the amount varies by tens of
MiB from run to run.
"""

import argparse
import os
import re
import time
from pathlib import Path

from harness import create, delete, detector, fill, memory, metrics, prepare, say, settings, until

FEW = 1_000
EVENTS = 5_000_000
# Costs CPU time, so only for measuring.
AT_ONCE = {"MIMALLOC_PURGE_DELAY": "0"}


def peak(pid):
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def measure(devices, events, partitions=4, allocator=None):
    """Returns resident and peak bytes after all events are judged. `allocator` holds variables of the allocator."""
    name = f"bench{os.getpid()}_{devices}_{events}_{partitions}{'_at_once' if allocator else ''}"
    env = settings(name, TOPICS__RAW_EVENTS=name)
    create(name, partitions=partitions)
    prepare(name, env, partitions)
    fill(name, env, events, devices, anomalies=0)
    with detector(env | (allocator or {})) as process:
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
    for partitions in map(int, options.partitions.split(",")):
        resident, most = measure(FEW, EVENTS, partitions)
        print(f"| {FEW:,} series, {partitions} partition{'s' if partitions > 1 else ''} | {resident / 2**20:,.0f} | {most / 2**20:,.0f} | |", flush=True)
    few, most = measure(FEW, EVENTS, allocator=AT_ONCE)
    print(f"| {FEW:,} series, 4 partitions, freed memory returned at once | {few / 2**20:,.0f} | {most / 2**20:,.0f} | |", flush=True)
    for values in map(int, options.values.split(",")):
        resident, most = measure(options.devices, options.devices * values, allocator=AT_ONCE)
        each = (resident - few) / options.devices
        print(f"| {options.devices:,} series of {values} values, the same | {resident / 2**20:,.0f} | {most / 2**20:,.0f} | {each:,.0f} |", flush=True)


main()
