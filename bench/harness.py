"""Code shared by the benchmarks: topics, events, and the processes of this detector and its peers, on the box of bench/run."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
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
    """Returns the number of records by partition, for topics without transactions."""
    consumer = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": "bench"})
    partitions = consumer.list_topics(topic, 10).topics[topic].partitions
    sizes = {p: consumer.get_watermark_offsets(TopicPartition(topic, p), 10)[1] for p in partitions}
    consumer.close()
    return sizes


def read(topic):
    """Returns all committed values of a topic."""
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
    """Returns the positions of the input records that were judged abnormal."""
    found = set()
    for anomaly in read(topic):
        source = anomaly.get("source", anomaly)
        found.add((source["partition"], source["offset"]))
    return found


# --- processes -----------------------------------------------------------------------------------------------------


def settings(name, **more):
    """Returns the environment of this program for topics of that name."""
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
    """Creates the topics and tables of a run."""
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
    """Returns the sum of each metric by its name."""
    sums = Counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{METRICS}/metrics", timeout=5) as answer:
        for line in answer.read().decode().splitlines():
            if match := re.match(r"(\w+)(?:\{.*\})? ([0-9.e+-]+)$", line):
                sums[match[1]] += float(match[2])
    return sums


def cpu(pid):
    """Returns CPU time in seconds, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid):
    """Returns the resident bytes of a process."""
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
    """Waits for a condition; fails if the process ends earlier."""
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
    """Publishes events with anomaly-producer; returns its CPU seconds and wall time."""
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


def catch_up(name, topic, events, partitions=4, **more):
    """Runs the detector from the earliest offset to the last row in PostgreSQL, with snapshots and metrics. Returns CPU seconds,
    seconds to the last event, and resident bytes. The CPU time includes the sink's remaining work."""
    env = settings(name, TOPICS__RAW_EVENTS=topic, **more)
    prepare(name, env, partitions)
    begun = time.monotonic()
    with detector(env) as process:
        until(lambda: metrics()["anomaly_events_total"] >= events, process)
        taken = time.monotonic() - begun
        until(lambda: metrics()["anomaly_sink_rows_total"] >= metrics()["anomaly_anomalies_total"], process)
        return cpu(process.pid), taken, memory(process.pid)


def streams(topic, events, mode):
    """Returns the command of the Kafka Streams peer, which writes to `bench-MODE`."""
    jars = f"{WORK}/streams/streams-1.jar:{WORK}/streams/jars/*"
    return ["java", "-Xmx2g", "-cp", jars, "Peer", BOOTSTRAP, topic, f"bench-{mode}", str(events), str(WORK / "rocksdb"), mode]


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]
