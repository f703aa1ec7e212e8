"""Compares the dashboard with the seed's design, on one database, in one run; started by `bench/run dashboard`.

Rows are committed as the sink commits them: with its offset, its totals left out, and its notice. From there to the screen is
measured in Chromium, by an observer in the page; for many readers, by streams of our own.
"""

import asyncio
import gzip
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import psycopg
from selenium import webdriver

from harness import ANOMALY, HERE, ROOT, percentile, say

SCHEMA = "bench_dashboard"
OURS, THEIRS = 24071, 24072
ROWS = 200_000
TICK = os.sysconf("SC_CLK_TCK")


def setting(name):
    return os.environ[f"ANOMALY__POSTGRES__{name}"]


def database():
    password = Path(setting("PASSWORD_FILE")).read_text().strip()
    return (
        f"host={setting('HOST')} port={setting('PORT')} dbname={setting('DBNAME')} user={setting('USER')} "
        f"password={password} options='-c search_path={SCHEMA} -c timezone=UTC'"
    )


INSERT = """insert into anomalies
    select 'raw_events', 0, 0, n, 0, 'point', 2, %(device)s || case when %(many)s then '-' || n %% 200 else '' end, 'temperature', 24.6,
        now() - interval '1 hour' * %(hours)s * (1 - (n - %(first)s)::float8 / %(count)s), 'sigma', 28.2, 3, 21.45, 21.1, 21.8, 21.45, 0.11, 28.2,
        '{}', 'high', case when n %% 5 = 0 then 'critical' else 'warning' end, null, 100,
        (select array_agg(21.45 + (i %% 7 - 3) * 0.05) from generate_series(1, 100) i), null, null, null, now(), 1, n
    from generate_series(%(first)s, %(first)s + %(count)s - 1) n"""


class Sink:
    """Commits rows as the sink does."""

    def __init__(self):
        self.connection = psycopg.connect(database())
        self.connection.execute("insert into sink_offsets (sink_group, topic, partition, next_offset) values ('s', 'a', 0, 0)")
        self.next = 0

    def commit(self, device, count=1, hours=0.0):
        row = {"device": device, "first": self.next, "count": count, "hours": hours, "many": count > 1}
        self.connection.execute(INSERT, row)
        self.next += count
        self.connection.execute("update sink_offsets set next_offset = %s", [self.next])
        self.connection.execute("select pg_notify('anomalies', '')")
        self.connection.commit()
        return time.time()


def cpu(pid):
    """Returns the CPU seconds of a process and its children."""
    total = 0
    for one in tree(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def memory(pid):
    """Returns the MiB in use of a process and its children."""
    text = "".join(Path(f"/proc/{one}/status").read_text() for one in tree(pid))
    return sum(int(kb) for kb in re.findall(r"VmRSS:\s+(\d+)", text)) / 1024


def tree(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(below for child in children for below in tree(int(child)))]


@contextmanager
def running(command, env, url):
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.time() + 60
        while True:
            try:
                urllib.request.urlopen(url, timeout=2).read()
                break
            except OSError:
                if time.time() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.1)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()


@contextmanager
def browser():
    profile = tempfile.mkdtemp()
    options = webdriver.ChromeOptions()
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--window-size=1440,900"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    driver.set_script_timeout(120)
    try:
        yield driver
    finally:
        driver.quit()
        shutil.rmtree(profile, ignore_errors=True)


# Milliseconds from the navigation to the frame that first shows a row, whether the server or the script added it.
FIRST = """const look = () => {
    if (document.body && /bulk-\\d+/.test(document.body.innerText)) window.firstShown = performance.now();
    else requestAnimationFrame(look);
}; requestAnimationFrame(look);"""
WATCH = """window.seen = {};
const look = () => { for (const name of document.body.innerText.match(/live-\\w+/g) || []) window.seen[name] ??= Date.now() / 1000; };
new MutationObserver(look).observe(document.body, {subtree: true, childList: true, characterData: true}); look();"""


def visible(url, sink, rows, tag):
    """Measures the first load in a new browser, then the seconds from the commit of each row to its text on the page."""
    with browser() as driver:
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": FIRST})
        start = time.time()
        driver.get(url)
        while not (first := driver.execute_script("return window.firstShown")):
            time.sleep(0.02)
            if time.time() - start > 60:
                raise RuntimeError(f"{url} shows no row")
        first /= 1000
        # The stream lasts as long as the page, so it does not belong to the load.
        entries = """return performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))
            .filter(e => !e.name.includes('/events')).map(e => [e.name, e.transferSize])"""
        time.sleep(2)
        requests = driver.execute_script(entries)
        say(f"requests: {', '.join(name for name, _ in requests)}"[:300])
        sizes = [size for _, size in requests]
        driver.execute_script(WATCH)
        time.sleep(3)
        committed = {}
        for i in range(rows):
            committed[f"live-{tag}{i:03d}"] = sink.commit(f"live-{tag}{i:03d}")
            time.sleep(random.uniform(0.3, 1.2))
        time.sleep(8)
        seen = driver.execute_script("return window.seen")
        missing = [name for name in committed if name not in seen]
        if missing:
            say(f"{len(missing)} of {rows} rows were never seen at {url}")
        waits = [seen[name] - at for name, at in committed.items() if name in seen]
        return {"first": first, "requests": len(sizes), "bytes": sum(sizes), "waits": waits, "missing": len(missing)}


def loads(url, count):
    """Measures the milliseconds of answers over one connection after another, and the compressed bytes of one answer."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        request = urllib.request.Request(url, headers={"accept-encoding": "gzip"})
        body = urllib.request.urlopen(request, timeout=10).read()
        times.append((time.perf_counter() - start) * 1000)
    return times, len(body), len(gzip.decompress(body))


async def streams(port, count, process, sink):
    """Measures many subscribers of the event stream: seconds from commit to each subscriber, MiB, and share of a core."""
    before = memory(process.pid)
    readers = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n")
        readers.append((reader, writer))
    waits, committed = [], {}

    async def follow(reader):
        async for line in reader:
            for name in re.findall(rb'"device":"(wide-\d+)"', line):
                at = committed.get(name.decode())
                if at:
                    waits.append(time.time() - at)

    tasks = [asyncio.create_task(follow(reader)) for reader, _ in readers]
    await asyncio.sleep(8)
    after = memory(process.pid)
    start, used = time.time(), cpu(process.pid)
    for i in range(40):
        name = f"wide-{i}"
        # The commit happens slightly later than this time.
        committed[name] = time.time()
        await asyncio.to_thread(sink.commit, name)
        await asyncio.sleep(0.5)
    await asyncio.sleep(2)
    share = (cpu(process.pid) - used) / (time.time() - start)
    for task, (_, writer) in zip(tasks, readers):
        task.cancel()
        writer.close()
    return {"waits": waits, "memory": after - before, "cpu": share, "expected": 40 * count}


def row(name, *values):
    print(f"| {name} | " + " | ".join(values) + " |")


def main():
    with psycopg.connect(database().split(" options=")[0], autocommit=True) as admin:
        admin.execute(f"drop schema if exists {SCHEMA} cascade")
    env = os.environ | {"ANOMALY__POSTGRES__SCHEMA": SCHEMA, "ANOMALY__METRICS__LISTEN": "off", "ANOMALY__LOG__LEVEL": "error"}
    subprocess.run([ANOMALY, "migrate", "--config", ROOT / "etc"], env=env, check=True, stdout=subprocess.DEVNULL)
    sink = Sink()
    say(f"{ROWS} rows")
    sink.commit("bulk", ROWS, hours=24.0)
    sink.connection.execute("analyze anomalies")
    sink.connection.commit()
    rows = int(os.environ.get("BENCH_ROWS", "40"))
    ours_env = env | {"ANOMALY__DASHBOARD__LISTEN": f"127.0.0.1:{OURS}"}
    url = f"http://127.0.0.1:{OURS}/"
    with running([ANOMALY, "--role", "dashboard", "--config", ROOT / "etc"], ours_env, url + "robots.txt") as process:
        ours = visible(url, sink, rows, "a")
        times, packed, plain = loads(url, 300)
        # Meanwhile the process returns the memory of the loads, which would hide the memory of the streams.
        time.sleep(12)
        empty = memory(process.pid)
        wide = asyncio.run(streams(OURS, 1000, process, sink))
    their_env = os.environ | {"DATABASE": database()}
    command = [sys.executable, "-m", "streamlit", "run", HERE / "peers/streamlit/app.py", "--server.port", str(THEIRS),
               "--server.headless", "true", "--browser.gatherUsageStats", "false"]
    url = f"http://127.0.0.1:{THEIRS}/"
    with running(command, their_env, url) as process:
        theirs = visible(url, sink, rows, "b")
        their_memory = memory(process.pid)
    print()
    row("", "anomaly", "the seed's design")
    print("| --- | --- | --- |")
    row("first load: requests", str(ours["requests"]), str(theirs["requests"]))
    row("first load: kB, as sent", f"{ours['bytes'] / 1000:.1f}", f"{theirs['bytes'] / 1000:.1f}")
    row("first anomaly visible, new browser, ms", f"{ours['first'] * 1000:.0f}", f"{theirs['first'] * 1000:.0f}")
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        values = [f"{percentile(one['waits'], share) * 1000:.0f}" for one in (ours, theirs)]
        row(f"commit to visible, {name}, ms", *values)
    row("rows never seen", str(ours["missing"]), str(theirs["missing"]))
    row("memory, one reader, MiB", f"{empty:.0f}", f"{their_memory:.0f}")
    row("page: p50, p99, ms", f"{statistics.median(times):.1f}, {percentile(times, 0.99):.1f}", "")
    row("page: kB packed, plain", f"{packed / 1000:.1f}, {plain / 1000:.1f}", "")
    row("1,000 streams: commit to reader p50, p99, ms", f"{percentile(wide['waits'], 0.5) * 1000:.0f}, {percentile(wide['waits'], 0.99) * 1000:.0f}", "")
    row("1,000 streams: rows delivered of", f"{len(wide['waits'])} of {wide['expected']}", "")
    row("1,000 streams: MB more, share of a core at 2 rows/s", f"{wide['memory'] * 1.048576:.1f}, {wide['cpu'] * 100:.1f} %", "")


main()
