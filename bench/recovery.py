"""Measures many series with full windows: the cost of an event, the memory of a series, and how soon a killed detector has
caught up.

Each series gets its values one after the other. Then the detector is stopped while 5,000,000 events arrive, and it is killed
while more events arrive.
"""

import argparse
import os
import subprocess
import time

from confluent_kafka import Consumer, TopicPartition

from harness import BOOTSTRAP, cpu, create, detector, ends, fill, memory, metrics, ourselves, prepare, say, settings, until

MORE = 5_000_000


def lag(topic, group):
    """Returns the number of records that are not committed yet."""
    there = ends(topic)
    consumer = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": group})
    committed = consumer.committed([TopicPartition(topic, p) for p in there], 10)
    consumer.close()
    return sum(there.values()) - sum(max(one.offset, 0) for one in committed)


def resumed(process, begun):
    """Returns the seconds until the first event is judged."""
    until(lambda: metrics()["anomaly_events_total"] > 0, process, pause=0.02)
    return time.monotonic() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=1_000_000)
    parser.add_argument("--values", type=int, default=100, help="of each device")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--rate", type=int, default=20_000, help="events a second while it is killed")
    options = parser.parse_args()
    run = f"bench{os.getpid()}"
    topic, rows = f"{run}-events", []
    env = settings(run, TOPICS__RAW_EVENTS=topic)
    create(topic, partitions=options.partitions)
    prepare(run, env, options.partitions)

    def row(name, value):
        rows.append((name, value))
        say(f"{name}: {value}")

    with detector(env) as process:
        until(lambda: metrics() is not None, process)
        time.sleep(3)
        empty = memory(process.pid)
    count = options.devices * options.values
    say(f"producing {count:,} events of {options.devices:,} devices")
    _, taken = fill(topic, env, count, options.devices, anomalies=0)
    size = 117 * count
    say(f"{count / taken:,.0f} events/s")
    begun = time.monotonic()
    with detector(env) as process:
        until(lambda: metrics()["anomaly_events_total"] >= count, process)
        row("learning: CPU-s per million", f"{cpu(process.pid) / count * 1e6:.3f}")
        row("learning: events/s", f"{count / (time.monotonic() - begun):,.0f}")
        written = -1
        while written != (now := metrics()["anomaly_snapshot_bytes_total"]):
            written = now
            time.sleep(5)
        full = memory(process.pid)
        row("memory: MiB", f"{full / 2**20:,.0f} (empty: {empty / 2**20:,.0f})")
        row("memory: bytes per series, of all beyond the empty process", f"{(full - empty) / options.devices:,.0f}")
        row("windows written, MB", f"{written / 1e6:,.0f}, {written / size * 100:.1f} % of the input's")
    fill(topic, env, MORE, options.devices, anomalies=0)
    begun = time.monotonic()
    with detector(env) as process:
        row("restart to the first event, s", f"{resumed(process, begun):.2f}")
        before, from_there, begun = cpu(process.pid), metrics()["anomaly_events_total"], time.monotonic()
        row("restart: CPU-s", f"{before:.2f}")
        until(lambda: metrics()["anomaly_events_total"] >= MORE, process)
        judged = MORE - from_there
        row("full windows: CPU-s per million", f"{(cpu(process.pid) - before) / judged * 1e6:.3f}")
        row("full windows: events/s", f"{judged / (time.monotonic() - begun):,.0f}")
        row("full windows: MB written", f"{metrics()['anomaly_snapshot_bytes_total'] / 1e6:,.0f}")
        live = ourselves("--role", "producer", env=env | {
            "ANOMALY__TOPICS__RAW_EVENTS": topic, "ANOMALY__PRODUCER__DEVICES": str(options.devices),
            "ANOMALY__PRODUCER__RATE": str(options.rate), "ANOMALY__METRICS__LISTEN": "off",
        }, stdout=subprocess.DEVNULL)
        time.sleep(90)
        row(f"at {options.rate:,} events/s for 90 s: MB written", f"{metrics()['anomaly_snapshot_bytes_total'] / 1e6:,.0f}")
        process.kill()
        process.wait()
    begun = time.monotonic()
    with detector(env) as process:
        row("killed: to the first event, s", f"{resumed(process, begun):.2f}")
        until(lambda: lag(topic, run) < options.rate / 2, process, pause=0.05)
        row("killed: to less than half a second's events behind, s", f"{time.monotonic() - begun:.2f}")
    live.terminate()
    live.wait(30)
    print(f"\n{options.devices:,} series, {options.values} values each, {options.partitions} partitions\n\n| | |\n| --- | --- |")
    for name, value in rows:
        print(f"| {name} | {value} |")


main()
