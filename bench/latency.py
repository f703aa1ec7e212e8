"""Measures the time from an event to its anomaly under a light load: this detector compared with Kafka Streams, in one run.

A thousand events a second; four of them are abnormal, each of a device of its own, by which it is known again. The clock runs
from the producer's call to the anomaly in a read-committed consumer, to its row in PostgreSQL and to the dashboard's stream.
The producer and each observer are processes of their own, with one clock.
"""

import argparse
import http.client
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager

import psycopg
from confluent_kafka import Consumer, Producer, TopicPartition

from harness import BOOTSTRAP, WORK, create, delete, detector, metrics, ourselves, percentile, prepare, psql, say, settings
from harness import streams, until

RATE = 1_000  # events a second
EVERY = 250  # events, of which one is abnormal: what noise alone gives
VALUES = 40  # before it, of each device
DASHBOARD = 24081
WARM_UP = 50  # anomalies that do not count


def event(device, value):
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + ".000Z"
    return json.dumps({"device_id": device, "metric_name": "temperature", "metric_value": value, "timestamp": at})


def usual(i):
    """Returns a value within two deviations."""
    return 20 + (i * 7919 % 1000) / 1000


def publish(topic, anomalies, sent):
    """Sends learning values, waits for the signal, then sends events; returns when each abnormal event was sent."""
    producer = Producer({"bootstrap.servers": BOOTSTRAP, "linger.ms": 0, "partitioner": "murmur2_random"})
    put = lambda device, value: producer.produce(topic, key=device, value=event(device, value))
    for i in range(VALUES * anomalies):
        put(f"d-{i % anomalies:05d}", usual(i))
        if i % 10_000 == 0:
            producer.flush()
    producer.flush()
    sent.send("learnt")
    sent.recv()
    times, begun = {}, time.monotonic()
    for i in range(EVERY * anomalies):
        time.sleep(max(0, begun + i / RATE - time.monotonic()))
        if i % EVERY:
            put(f"d-{i % 97:05d}", usual(i))
        else:
            device = f"d-{i // EVERY:05d}"
            times[device] = time.monotonic()
            put(device, 1e6)
        producer.poll(0)
    producer.flush()
    sent.send(times)


def consume(topic, seen):
    consumer = Consumer({
        "bootstrap.servers": BOOTSTRAP, "group.id": "bench-latency", "isolation.level": "read_committed", "enable.auto.commit": False,
    })
    partitions = consumer.list_topics(topic, 10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
    times = {}
    while not seen.poll():
        if (message := consumer.poll(0.05)) and not message.error():
            times.setdefault(json.loads(message.value())["device_id"], time.monotonic())
    seen.send(times)


def store(schema, seen):
    """Reads new rows by their offsets, with an index."""
    times, env = {}, psql()
    query = f"""select device_id, source_offset from {schema}.anomalies
        where source_partition = %s and source_offset > %s order by source_offset"""
    with psycopg.connect(
        host=env["PGHOST"], port=env["PGPORT"], dbname=env["PGDATABASE"], user=env["PGUSER"], password=env["PGPASSWORD"], autocommit=True
    ) as connection:
        last = [-1] * 4
        while not seen.poll(0.001):
            for partition in range(4):
                for device, offset in connection.execute(query, [partition, last[partition]]).fetchall():
                    times.setdefault(device, time.monotonic())
                    last[partition] = offset
    seen.send(times)


def follow(seen):
    """Reads the event stream of the dashboard."""
    connection = http.client.HTTPConnection("127.0.0.1", DASHBOARD, timeout=60)
    connection.request("GET", "/events")
    lines, times = connection.getresponse(), {}
    while not seen.poll():
        # The server sends a comment at intervals, so that the connection stays open.
        line = lines.readline()
        for device in re.findall(rb'"device":"(d-\d+)"', line):
            times.setdefault(device.decode(), time.monotonic())
    seen.send(times)


@contextmanager
def process(of, *arguments):
    near, far = multiprocessing.get_context("fork").Pipe()
    child = multiprocessing.get_context("fork").Process(target=of, args=(*arguments, far), daemon=True)
    child.start()
    try:
        yield near
    finally:
        child.terminate()
        child.join()


def measure(topic, output, anomalies, observers, subject):
    """Returns the milliseconds of each anomaly, by observer."""
    with process(publish, topic, anomalies) as publisher:
        publisher.recv()
        with subject():
            time.sleep(15)
            watching = {name: process(*what) for name, what in {"topic": (consume, output), **observers}.items()}
            pipes = {name: one.__enter__() for name, one in watching.items()}
            time.sleep(3)
            publisher.send("go")
            sent = publisher.recv()
            time.sleep(3)
            seen = {}
            for name, pipe in pipes.items():
                pipe.send("enough")
                seen[name] = pipe.recv()
            for one in watching.values():
                one.__exit__(None, None, None)
    counted = sorted(sent)[WARM_UP:]
    for name, times in seen.items():
        if missing := [device for device in counted if device not in times]:
            say(f"{name}: {len(missing)} of {len(counted)} never came")
    return {
        name: [(times[device] - sent[device]) * 1e3 for device in counted if device in times] for name, times in seen.items()
    }


@contextmanager
def peer(topic, mode):
    shutil.rmtree(WORK / "rocksdb", ignore_errors=True)
    running = subprocess.Popen(streams(topic, 1 << 40, mode))
    try:
        yield
    finally:
        running.kill()
        running.wait()


@contextmanager
def dashboard(env):
    running = ourselves("--role", "dashboard", env=env | {
        "ANOMALY__DASHBOARD__LISTEN": f"127.0.0.1:{DASHBOARD}", "ANOMALY__METRICS__LISTEN": "off",
    })
    try:
        yield
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(30)


@contextmanager
def ready(env):
    with detector(env) as running, dashboard(env):
        until(lambda: metrics()["anomaly_events_total"] > 0, running, 60)
        yield


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--anomalies", type=int, default=550, help=f"of which {WARM_UP} do not count")
    parser.add_argument("--only", default="exactly_once,at_least_once,streams", help="by comma")
    options = parser.parse_args()
    rows = {}
    for delivery in ("exactly_once", "at_least_once"):
        if delivery in options.only.split(","):
            say(f"anomaly, {delivery}")
            name = f"bench-{delivery}-{os.getpid()}".replace("-", "_")
            create(name)
            # Snapshots in the state topic need transactions.
            state = "topic" if delivery == "exactly_once" else "history"
            env = settings(name, TOPICS__RAW_EVENTS=name, DETECTOR__DELIVERY=delivery, DETECTOR__STATE=state, LOG__LEVEL="error")
            prepare(name, env)
            observers = {"row": (store, name), "stream": (follow,)}
            rows[f"anomaly, {delivery}"] = measure(name, f"{name}-anomalies", options.anomalies, observers, lambda: ready(env))
    if "streams" in options.only:
        say("Kafka Streams, exactly once")
        topic = f"bench-streams-{os.getpid()}"
        delete("bench-exactly_once")
        time.sleep(1)
        create(topic, "bench-exactly_once")
        rows["Kafka Streams, exactly once"] = measure(
            topic, "bench-exactly_once", options.anomalies, {}, lambda: peer(topic, "exactly_once")
        )
    print(f"\n{RATE} events/s, {options.anomalies - WARM_UP} anomalies; ms\n")
    print("| | until | p50 | p99 | most | seen |\n| --- | --- | --- | --- | --- | --- |")
    for name, seen in rows.items():
        for until_what, times in seen.items():
            if times:
                figures = (percentile(times, 0.5), percentile(times, 0.99), max(times))
                print(f"| {name} | {until_what} | " + " | ".join(f"{one:.1f}" for one in figures) + f" | {len(times)} |")


main()
