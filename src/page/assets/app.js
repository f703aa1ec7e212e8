// Fetches the same page again and puts its content in place, without taking anything from the reader's hands:
// not while something is focused or selected, never moving what is on the screen, keeping what is unfolded.
"use strict";
(() => {
  const seconds = Number(document.body.dataset.refresh);
  const main = document.getElementById("main");
  const live = document.getElementById("live");
  const clock = document.getElementById("clock");
  if (!seconds || !main || !live) return;
  let lostSince = "";
  let isRunning = false;

  const say = (state, text) => {
    live.className = state;
    if (live.textContent !== text) live.textContent = text;
  };

  const isHeld = () => {
    const focused = document.activeElement;
    if (focused && focused !== main && main.contains(focused)) return true;
    const selection = document.getSelection();
    return Boolean(selection && !selection.isCollapsed && main.contains(selection.anchorNode));
  };

  // The first row on the screen: it shall stay where it is.
  const anchor = () => {
    for (const row of main.querySelectorAll("[data-key]")) {
      const box = row.getBoundingClientRect();
      if (box.bottom > 0) return box.top < innerHeight ? { key: row.dataset.key, top: box.top } : null;
    }
    return null;
  };

  const replace = (page) => {
    const open = new Set([...main.querySelectorAll("details[open][id]")].map((details) => details.id));
    const place = scrollY > 0 ? anchor() : null;
    const left = scrollY;
    main.replaceChildren(...document.adoptNode(page.getElementById("main")).childNodes);
    for (const id of open) {
      const details = document.getElementById(id);
      if (details) details.open = true;
    }
    const row = place && main.querySelector(`[data-key="${CSS.escape(place.key)}"]`);
    if (row) scrollBy(0, row.getBoundingClientRect().top - place.top);
    else scrollTo(scrollX, left);
    document.title = page.title;
  };

  const refresh = async () => {
    if (document.hidden || isRunning) return;
    isRunning = true;
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(10000) });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (!page.getElementById("main")) throw new Error("not a page");
      lostSince = "";
      if (isHeld()) {
        say("held", "Held while you read");
      } else {
        replace(page);
        clock.textContent = page.getElementById("clock").textContent;
        say("on", "Live");
      }
    } catch {
      lostSince ||= new Date().toISOString().slice(11, 19);
      say("lost", `Connection lost since ${lostSince} UTC`);
    } finally {
      isRunning = false;
    }
  };

  setInterval(refresh, seconds * 1000);
  document.addEventListener("visibilitychange", refresh);
})();
