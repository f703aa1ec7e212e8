// Updates an open page. Rows come from an event stream that all tabs of the browser share; the rest from a reload in the background.
// It changes nothing while the user has focused or selected something, and rows on the screen keep their places.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const [main, live, clock, news, status] = ["main", "live", "clock", "news", "status"].map(byId);
  const seconds = Number(document.body.dataset.refresh);
  // The path before each address of this site. The server writes the query in canonical form.
  const base = document.body.dataset.base || "";
  const query = new URLSearchParams(document.body.dataset.query);
  // A browser that blocks storage throws an error. A choice then lasts only as long as the page.
  let storage = {};
  try { storage = localStorage || storage; } catch {}
  let waiting = 0, lastStatus = 0, lastHeard = Date.now(), lostSince = "", isRunning = false, health = "";
  // Rows of the stream in the last seconds. A page that was rendered before them must not remove them.
  let recent = [];

  // All times of the page are in the browser's zone or all in UTC. The server writes UTC.
  const isUtc = Boolean(document.body.dataset.tz);
  const two = (n) => String(n).padStart(2, "0");
  const forms = {
    clock: (t) => [t.getHours(), t.getMinutes(), t.getSeconds()].map(two).join(":"),
    minute: (t) => [t.getHours(), t.getMinutes()].map(two).join(":"),
    date: (t) => t.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" }),
    day: (t) => t.toLocaleDateString("en-GB", { day: "numeric", month: "short" }) + (t.getHours() + t.getMinutes() ? ` ${forms.minute(t)}` : ""),
    full: (t) => `${forms.date(t)}, ${forms.clock(t)}`,
    moment: (t) => t.toDateString() === new Date().toDateString() ? forms.clock(t) : `${forms.date(t)} ${forms.clock(t)}`,
    exact: (t) => {
      const [off, sign] = [Math.abs(t.getTimezoneOffset()), t.getTimezoneOffset() > 0 ? "-" : "+"];
      const here = new Date(t - t.getTimezoneOffset() * 60000).toISOString().slice(0, -1);
      return `${here}${sign}${two(Math.floor(off / 60))}:${two(off % 60)}`;
    },
  };
  const local = (root) => {
    if (isUtc) return;
    for (const at of root.querySelectorAll("time[datetime], [data-t]")) {
      const time = new Date(at.dateTime || at.dataset.t), { form } = at.dataset;
      if (isNaN(time)) continue;
      if (at.dateTime && form !== "clock") at.title = at.dateTime;
      at.textContent = form || at.dateTime ? forms[form || "moment"](time)
        : at.textContent.replace(/^.*? UTC/, (was) => was.length > 12 ? forms.moment(time) : forms[was.length > 9 ? "clock" : "minute"](time));
    }
    byId("zone").textContent = `Times in ${Intl.DateTimeFormat().resolvedOptions().timeZone || "your zone"}.`;
  };
  const nowText = () => isUtc ? `${new Date().toISOString().slice(11, 19)} UTC` : forms.clock(new Date());

  const say = (state, text) => {
    live.className = state;
    if (live.textContent !== text) live.textContent = text;
  };

  // The stream of this tab, if it has one, and when another tab last passed on a message.
  let source, lastPassed = 0, trouble = document.body.dataset.late === undefined ? null : ["lost", live.textContent];
  const isOpen = () => source ? source.readyState === 1 : Date.now() - lastPassed < 20000;
  const showState = () => say(...trouble || (isOpen() ? ["on", "Live"] : ["off", live.dataset.every]));

  // A pointer on the rows means that the user reads them, unless it has not moved for a while.
  let pointed = 0;
  addEventListener("pointermove", () => { pointed = Date.now(); });

  const isHeld = () => {
    if (main.querySelector(".rows tr:hover") && Date.now() - pointed < 30000) return true;
    const focused = document.activeElement;
    if (focused && focused !== main && main.contains(focused)) return true;
    if ([...main.querySelectorAll("textarea")].some((note) => note.value)) return true;
    const selection = getSelection();
    return Boolean(selection && !selection.isCollapsed && main.contains(selection.anchorNode));
  };

  // The first row on the screen, which keeps its place.
  const anchor = () => {
    for (const row of main.querySelectorAll("[data-key]")) {
      const box = row.getBoundingClientRect();
      if (box.bottom > 0) return box.top < innerHeight ? { key: row.dataset.key, top: box.top } : null;
    }
    return null;
  };
  const rowsOf = () => main.querySelector("table.rows:not(.one) tbody");
  const rowOf = (key) => main.querySelector(`[data-key="${CSS.escape(key)}"]`);
  const keeping = (change) => {
    const place = scrollY > 0 ? anchor() : null;
    const top = scrollY;
    change();
    const row = place && rowOf(place.key);
    if (row) scrollBy(0, row.getBoundingClientRect().top - place.top);
    else scrollTo(scrollX, top);
  };

  const fresh = (count) => {
    waiting = count;
    news.hidden = !count;
    news.firstElementChild.textContent = `${count} new`;
  };

  const replace = (page, asOf) => {
    const open = [...main.querySelectorAll("details[open][id]")].map((details) => details.id);
    const at = main.querySelector("tr.at")?.dataset.key;
    keeping(() => main.replaceChildren(...document.adoptNode(page.getElementById("main")).childNodes));
    for (const id of open) if (byId(id)) byId(id).open = true;
    if (at) rowOf(at)?.classList.add("at");
    local(main);
    document.title = page.title;
    // A page without an answer has no cursor.
    if (page.body.dataset.cursor) document.body.dataset.cursor = page.body.dataset.cursor;
    fresh(0);
    if (!document.body.dataset.cursor) return;
    const missed = recent.filter((message) => message.at >= asOf).map((message) => message.row);
    // If there are more than a page shows, the page is loaded again.
    insert(missed, missed.length > Math.max(8, rowsOf()?.rows.length || 0) ? 1 : 0);
  };

  const refresh = async () => {
    if (document.hidden || isRunning) return;
    isRunning = true;
    const asOf = Date.now() - AGE;
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(10000) });
      if (answer.redirected) location.reload();
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (!page.getElementById("main")) throw new Error("not a page");
      lostSince = "";
      trouble = isHeld() ? ["held", "Held while you read"] : null;
      if (trouble) return;
      replace(page, asOf);
      if (isLate(page)) {
        later();
        trouble = ["lost", page.getElementById("live").textContent];
      }
      const made = page.getElementById("clock");
      [clock.dateTime, clock.textContent] = [made.dateTime, made.textContent];
      local(clock.parentElement);
    } catch {
      lostSince ||= nowText();
      trouble = ["lost", `Connection lost since ${lostSince}`];
    } finally {
      isRunning = false;
      showState();
    }
  };

  // The server repeats an answer that is younger than this, in milliseconds.
  const AGE = 1000;
  const later = () => setTimeout(refresh, AGE);
  // The page was rendered without an answer in time; the next one may have it.
  const isLate = (page) => page.body.dataset.late !== undefined;

  // Returns whether a row of the stream belongs on this page.
  const wants = (row) => {
    const any = (name, value) => !query.has(name) || query.getAll(name).some((one) => !one || one === value);
    const path = document.body.dataset.path.split("/").map(decodeURIComponent);
    const at = Date.parse(row.time), bound = (name) => Date.parse(query.get(name));
    if (path[1] === "devices" && (path[2] !== row.device || (path[3] && path[3] !== row.metric))) return false;
    return ["device", "metric", "severity", "method", "label"].every((name) => any(name, row[name])) && any("review", "none")
      && (!query.get("q") || row.device.toLowerCase().includes(query.get("q").trim().toLowerCase()))
      && (!query.get("to") || at < bound("to")) && (!query.get("from") || at >= bound("from"));
  };

  const insert = (rows, more) => {
    rows = rows.filter((row) => wants(row) && !rowOf(row.key));
    const table = rowsOf();
    if (!rows.length && !more) return;
    if (!table || more) return later();
    if (isHeld()) return fresh(waiting + rows.length);
    const template = document.createElement("template");
    template.innerHTML = rows.map((row) => row.html).reverse().join("");
    local(template.content);
    const old = [...table.rows];
    // The table keeps its length, so that nothing around it moves.
    const all = [...template.content.children, ...old];
    keeping(() => table.replaceChildren(...(old.length > 8 ? all.slice(0, old.length) : all)));
    if (Date.now() - lastStatus > 10000) {
      lastStatus = Date.now();
      status.textContent = rows.length > 1 ? `${rows.length} new anomalies` : `New anomaly of \u2068${table.querySelector(".device bdi")?.textContent || ""}\u2069`;
    }
  };

  const heard = ({ type, data }) => {
    const at = lastHeard = Date.now();
    const rows = type === "anomaly" ? [data] : type === "batch" ? data.rows.reverse() : [];
    recent = [...recent.filter((message) => at - message.at < 15000), ...rows.map((row) => ({ at, row }))].slice(-100);
    const was = health;
    if (type === "health") health = data.state;
    // If the detection or the database stopped or recovered, the page shows it at once.
    if (was !== health && (was || health === "away")) (isRunning ? later : refresh)();
    if (document.body.dataset.cursor === undefined || !seconds) return;
    if (rows.length) insert(rows, data.more || 0);
    else if (type === "reset") later();
  };

  // One stream per browser, because a browser opens only six connections to a host. The tab with the lock opens the stream
  // and passes on its messages. Without locks (over http, or with blocked storage) each visible tab has its own stream.
  const listen = () => {
    let channel;
    try {
      channel = new BroadcastChannel(`anomaly${base}`);
      channel.onmessage = (message) => { lastPassed = Date.now(); heard(message.data); showState(); };
    } catch {}
    const open = () => {
      source = new EventSource(`${base}/events?cursor=${encodeURIComponent(document.body.dataset.cursor || "")}`);
      source.onopen = showState;
      for (const type of ["anomaly", "batch", "health", "minute", "reset"]) {
        source.addEventListener(type, (event) => {
          const message = { type, data: JSON.parse(event.data) };
          heard(message);
          if (isShared) channel.postMessage(message);
        });
      }
      // A refused event source does not reconnect by itself.
      source.onerror = () => {
        if (source.readyState === 2) setTimeout(isShared ? open : turn, 5000);
        showState();
      };
    };
    const turn = () => {
      if (document.hidden) source?.close();
      else if (source?.readyState !== 0 && !isOpen()) open();
    };
    const alone = () => {
      isShared = false;
      document.addEventListener("visibilitychange", turn);
      turn();
    };
    let isShared = Boolean(channel && navigator.locks);
    if (isShared) navigator.locks.request(`anomaly-stream${base}`, () => new Promise(open)).catch(alone);
    else alone();
    setInterval(() => {
      if (Date.now() - lastHeard > 20000 && !lostSince) refresh();
      showState();
    }, 5000);
  };

  // Keyboard shortcuts.
  const rows = () => [...main.querySelectorAll("tr[data-key]")];
  const go = (selector) => main.querySelector(selector)?.click();
  const move = (step) => {
    const all = rows();
    const at = all.findIndex((row) => row.classList.contains("at"));
    all[at]?.classList.remove("at");
    const next = all[Math.max(0, Math.min(all.length - 1, at + step))];
    next?.classList.add("at");
    next?.scrollIntoView({ block: "nearest" });
  };
  const review = (key) => main.querySelector(`[data-key-of="${key}"]`)?.click();
  const keys = {
    "/": () => byId("find").focus(), j: () => move(1), k: () => move(-1), "?": () => { location.href = `${base}/keys`; },
    Enter: () => main.querySelector("tr.at .go a")?.click(), u: () => [...main.querySelectorAll(".crumbs a")].pop()?.click(),
    a: () => review("a"), t: () => review("t"), f: () => review("f"), e: () => review("e"),
    "[": () => go("footer a[rel=next]"), "]": () => go("footer a[rel=prev]"), " ": () => byId("toggle")?.click(),
    "g o": () => { location.href = `${base}/`; }, "g d": () => { location.href = `${base}/devices`; },
  };
  let before = "";
  document.addEventListener("keydown", (event) => {
    const isField = event.target.closest?.("input, select, textarea, button, summary, [contenteditable]");
    if (isField || event.ctrlKey || event.metaKey || event.altKey || storage.keys === "off") return;
    if (event.key === " " && event.target !== document.body) return;
    if (event.key === "Enter" && event.target.closest?.("a")) return;
    const action = keys[`${before} ${event.key}`] || keys[event.key];
    before = event.key === "g" ? "g" : "";
    if (!action) return;
    event.preventDefault();
    action();
  });
  const choice = byId("keys");
  if (choice) {
    choice.checked = storage.keys !== "off";
    choice.onchange = () => { storage.keys = choice.checked ? "on" : "off"; };
  }

  local(document);
  if (!seconds) return;
  news.firstElementChild.onclick = (event) => { event.preventDefault(); document.activeElement.blur(); scrollTo(0, 0); refresh(); };
  setInterval(refresh, seconds * 1000);
  if (isLate(document)) later();
  document.addEventListener("visibilitychange", refresh);
  if (window.EventSource) listen();
})();
