"""Measures catching up from the earliest offset: this detector compared with its peers, in one run.

CPU is that of the measured process alone, user and system, from its start to its last event; the broker's and PostgreSQL's
are not in it. Wall time includes the start.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time

from harness import BOOTSTRAP, HERE, LIMIT, WORK, catch_up, create, delete, ends, fill, places, say, settings, streams


def measure_peer(command, output):
    delete(output)
    time.sleep(1)
    create(output)
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, timeout=LIMIT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, time.monotonic() - begun, None if output == "bench-count" else places(output)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--devices", type=int, default=1_000)
    parser.add_argument("--only", help="peers, by comma; none: only ourselves")
    options = parser.parse_args()
    topic, run = "bench-events", f"bench{os.getpid()}"
    env = settings(run, TOPICS__RAW_EVENTS=topic)
    create(topic)
    say(f"producing {options.events:,} events of {options.devices:,} devices")
    used, taken = fill(topic, env, options.events, options.devices)
    rows = [("producer (ours)", used, taken, None)]
    there = sum(ends(topic).values())
    simple = lambda program, name: [*program, BOOTSTRAP, topic, f"bench-{name}", str(there)]
    peers = {
        "count": ("librdkafka, counting only", simple([WORK / "count/release/count"], "count")),
        "go": ("Go, franz-go, encoding/json", simple([WORK / "go-peer"], "go")),
        "tuned": ("Python, orjson, running sums", simple([sys.executable, HERE / "peers/python/tuned.py"], "tuned")),
        "cached": ("Kafka Streams, cached, exactly once", streams(topic, there, "cached")),
        "exactly_once": ("Kafka Streams, exactly once", streams(topic, there, "exactly_once")),
        "default": ("Kafka Streams, default", streams(topic, there, "default")),
        "seed": ("the seed's design in Python", simple([sys.executable, HERE / "peers/python/seed.py"], "seed")),
    }
    say("anomaly: exactly once, snapshots, sink, metrics")
    used, taken, resident = catch_up(run, topic, there)
    ours = places(f"{run}-anomalies")
    rows.append(("anomaly, all on", used, taken, ours))
    say(f"{used / there * 1e6:.3f} CPU-s per million, {there / taken:,.0f}/s, {len(ours):,} anomalies, {resident / 2**20:.0f} MiB")
    for name in options.only.split(",") if options.only else peers:
        if name == "none":
            continue
        title, command = peers[name]
        say(title)
        shutil.rmtree(WORK / "rocksdb", ignore_errors=True)
        used, taken, found = measure_peer(command, f"bench-{name}")
        say(f"{used / there * 1e6:.3f} CPU-s per million, {there / taken:,.0f}/s")
        rows.append((title, used, taken, found))
        if found is not None and found != ours:
            say(f"it differs from us: {len(found - ours)} more, {len(ours - found)} fewer")
    print(f"\n{there:,} events, {options.devices:,} devices, {len(ours):,} anomalies\n")
    print("| | CPU-s per million | to ours | events/s, wall | anomalies |\n| --- | --- | --- | --- | --- |")
    least = rows[1][1]
    for title, used, taken, found in rows:
        same = "" if found is None else "the same" if found == ours else f"{len(found ^ ours)} differ"
        print(f"| {title} | {used / there * 1e6:.3f} | {used / least:.1f} | {there / taken:,.0f} | {same} |")


main()
