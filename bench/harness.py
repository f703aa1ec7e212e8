"""Measures ourselves beside our peers, on one box, in one run; started by bench/run.

CPU is that of the measured process alone, user and system, from its start to its last event; the broker's and PostgreSQL's
are not in it. Wall time includes the start.
"""

import argparse
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WORK = ROOT / "target/bench"
ANOMALY = ROOT / "target/release/anomaly"
BOOTSTRAP = os.environ["ANOMALY__KAFKA__BOOTSTRAP_SERVERS"]
METRICS = 24064
LIMIT = 1_800  # seconds for one run


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


# --- topics --------------------------------------------------------------------------------------------------------


def create(*names, partitions=4, compacted=False):
    config = {"retention.ms": "-1", "segment.bytes": str(256 << 20)}
    if compacted:
        config = {"cleanup.policy": "compact", "segment.bytes": str(64 << 20), "min.cleanable.dirty.ratio": "0.1"}
    admin = AdminClient({"bootstrap.servers": BOOTSTRAP})
    for future in admin.create_topics([NewTopic(name, partitions, 1, config=config) for name in names]).values():
        future.result()


def delete(*names):
    admin = AdminClient({"bootstrap.servers": BOOTSTRAP})
    for future in admin.delete_topics(list(names)).values():
        try:
            future.result()
        except Exception as e:  # One that never was.
            say(f"while removing topics: {e}")


def ends(topic):
    """Number of records by partition, for topics without transactions."""
    consumer = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": "bench"})
    partitions = consumer.list_topics(topic, 10).topics[topic].partitions
    sizes = {p: consumer.get_watermark_offsets(TopicPartition(topic, p), 10)[1] for p in partitions}
    consumer.close()
    return sizes


def read(topic):
    """All committed values."""
    consumer = Consumer({
        "bootstrap.servers": BOOTSTRAP, "group.id": "bench", "enable.partition.eof": True,
        "isolation.level": "read_committed", "enable.auto.commit": False,
    })
    partitions = consumer.list_topics(topic, 10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
    left = set(partitions)
    while left:
        message = consumer.poll(10)
        if message is None:
            raise RuntimeError(f"{topic} does not end")
        if message.error():
            left.discard(message.partition())
        else:
            yield json.loads(message.value())
    consumer.close()


def places(topic):
    """Which records of the input were called abnormal."""
    found = set()
    for anomaly in read(topic):
        source = anomaly.get("source", anomaly)
        found.add((source["partition"], source["offset"]))
    return found


# --- processes -----------------------------------------------------------------------------------------------------


def settings(name, **more):
    """Environment of ourselves on topics of that name."""
    settings = {
        "TOPICS__ANOMALIES": f"{name}-anomalies", "TOPICS__DEAD_LETTER": f"{name}-dlq", "TOPICS__STATE": f"{name}-state",
        "DETECTOR__GROUP": name, "SINK__GROUP": f"{name}-sink", "DETECTOR__START": "earliest", "DETECTOR__INSTANCE": "bench",
        "DETECTOR__WORKERS": "1", "POSTGRES__SCHEMA": name.replace("-", "_"), "LOG__LEVEL": "warn",
        "METRICS__LISTEN": f"127.0.0.1:{METRICS}", **more,
    }
    return os.environ | {f"ANOMALY__{key}": str(value) for key, value in settings.items()}


def ourselves(*arguments, env, **more):
    return subprocess.Popen([ANOMALY, *arguments, "--config", ROOT / "etc"], env=env, **more)


def prepare(name, env, partitions=4):
    """Topics and tables of a run."""
    subprocess.run(["psql", "-q", "-c", f'create schema if not exists "{name.replace("-", "_")}"'], env=psql(), check=True)
    for command in ("migrate", "topics"):
        with open(WORK / f"{command}.log", "w") as log:
            if ourselves(command, env=env | {"ANOMALY__TOPICS__PARTITIONS": str(partitions)}, stdout=log, stderr=log).wait():
                raise RuntimeError(Path(log.name).read_text())


def psql():
    get = lambda key: os.environ[f"ANOMALY__POSTGRES__{key}"]
    return os.environ | {
        "PGHOST": get("HOST"), "PGPORT": get("PORT"), "PGDATABASE": get("DBNAME"), "PGUSER": get("USER"),
        "PGPASSWORD": Path(get("PASSWORD_FILE")).read_text().strip(),
    }


def metrics():
    """Sums by metric's name."""
    sums = Counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{METRICS}/metrics", timeout=5) as answer:
        for line in answer.read().decode().splitlines():
            if match := re.match(r"(\w+)(?:\{.*\})? ([0-9.e+-]+)$", line):
                sums[match[1]] += float(match[2])
    return sums


def cpu(pid):
    """Seconds, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid):
    """Resident bytes."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


@contextmanager
def detector(env):
    process = ourselves("--role", "detector", env=env)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def until(condition, process, limit=LIMIT, pause=0.1):
    """Waits; fails when the process ends before."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"it ended with {process.returncode}")
        try:
            if condition():
                return
        except OSError:
            pass  # Not listening yet.
        time.sleep(pause)
    raise RuntimeError(f"not done after {limit} s")


def fill(topic, env, events, devices, rate=0, anomalies=0.0014):
    """Events from our own producer; returns its CPU seconds and wall time."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    env = env | {
        "ANOMALY__TOPICS__RAW_EVENTS": topic, "ANOMALY__PRODUCER__DEVICES": str(devices), "ANOMALY__PRODUCER__RATE": str(rate),
        "ANOMALY__PRODUCER__COUNT": str(events), "ANOMALY__PRODUCER__ANOMALY_RATE": str(anomalies),
        "ANOMALY__PRODUCER__START": "2026-01-01T00:00:00Z",
    }
    if ourselves("--role", "producer", env=env).wait(LIMIT):
        raise RuntimeError("the producer failed")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.monotonic() - begun


# --- throughput ----------------------------------------------------------------------------------------------------


def measure_peer(command, output):
    delete(output)
    time.sleep(1)
    create(output)
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, timeout=LIMIT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, time.monotonic() - begun, None if output == "bench-count" else places(output)


def measure_ourselves(name, topic, events, **more):
    """From the earliest offset to the last row in PostgreSQL, with snapshots and metrics."""
    env = settings(name, TOPICS__RAW_EVENTS=topic, **more)
    prepare(name, env)
    begun = time.monotonic()
    with detector(env) as process:
        until(lambda: metrics()["anomaly_events_total"] >= events, process)
        taken = time.monotonic() - begun
        until(lambda: metrics()["anomaly_sink_rows_total"] >= metrics()["anomaly_anomalies_total"], process)
        # The sink's rest is ours as well.
        used, resident = cpu(process.pid), memory(process.pid)
    return used, taken, places(f"{name}-anomalies"), resident


def throughput(options):
    topic, run = "bench-events", f"bench{os.getpid()}"
    env = settings(run, TOPICS__RAW_EVENTS=topic)
    create(topic)
    say(f"producing {options.events:,} events of {options.devices:,} devices")
    used, taken = fill(topic, env, options.events, options.devices)
    rows = [("producer (ours)", used, taken, None)]
    there = sum(ends(topic).values())
    python, jars = WORK / "venv/bin/python", f"{WORK}/streams/streams-1.jar:{WORK}/streams/jars/*"
    streams = lambda mode: ["java", "-Xmx2g", "-cp", jars, "Peer", BOOTSTRAP, topic, f"bench-{mode}", str(there), str(WORK / "rocksdb"), mode]
    simple = lambda program, name: [*program, BOOTSTRAP, topic, f"bench-{name}", str(there)]
    peers = {
        "count": ("librdkafka, counting only", simple([WORK / "count/release/count"], "count")),
        "go": ("Go, franz-go, encoding/json", simple([WORK / "go-peer"], "go")),
        "tuned": ("Python, orjson, running sums", simple([python, HERE / "peers/python/tuned.py"], "tuned")),
        "cached": ("Kafka Streams, cached, exactly once", streams("cached")),
        "exactly_once": ("Kafka Streams, exactly once", streams("exactly_once")),
        "default": ("Kafka Streams, default", streams("default")),
        "seed": ("the seed's design in Python", simple([python, HERE / "peers/python/seed.py"], "seed")),
    }
    say("anomaly: exactly once, snapshots, sink, metrics")
    used, taken, ours, resident = measure_ourselves(run, topic, there)
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


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("throughput", help="catching up from the earliest offset")
    one.add_argument("--events", type=int, default=5_000_000)
    one.add_argument("--devices", type=int, default=1_000)
    one.add_argument("--only", help="peers, by comma; none: only ourselves")
    one.set_defaults(run=throughput)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
