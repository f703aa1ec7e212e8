"""The design that this project began from: one message at a time, json, a deque and numpy; offsets committed as it goes.

usage: seed.py BOOTSTRAP INPUT OUTPUT EVENTS
"""

import json
import sys
from collections import defaultdict, deque

import numpy as np
from confluent_kafka import Consumer, Producer

WINDOW, MIN_SAMPLES, THRESHOLD = 100, 30, 3.0


def main(bootstrap, topic, output, events):
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": output,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
    })
    producer = Producer({"bootstrap.servers": bootstrap, "compression.type": "lz4"})
    consumer.subscribe([topic])
    windows = defaultdict(lambda: deque(maxlen=WINDOW))
    seen = 0
    while seen < events:
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        seen += 1
        event = json.loads(message.value())
        window = windows[event["device_id"], event.get("metric_name")]
        value = event["metric_value"]
        if len(window) >= MIN_SAMPLES:
            mean, std = np.mean(window), np.std(window)
            if abs(value - mean) > THRESHOLD * std:
                event.update(mean=float(mean), std_dev=float(std), partition=message.partition(), offset=message.offset())
                producer.produce(output, key=message.key(), value=json.dumps(event))
                producer.poll(0)
        window.append(value)
    producer.flush()
    consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
