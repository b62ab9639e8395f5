// Keeps an open page true: told of news, it fetches itself again and takes
// over the parts marked data-live. Without it every page reads as well, and
// says when it was made.
"use strict";
(() => {
  const link = document.getElementById("link");
  const clock = () => new Date().toISOString().slice(11, 19) + " UTC";
  let heard = clock();
  const say = (text, lost) => {
    if (!link || link.textContent === text) return;
    link.textContent = text;
    link.className = lost ? "lost" : "";
  };

  for (const log of document.querySelectorAll("pre[data-tail]")) log.scrollTop = log.scrollHeight;
  for (const a of document.querySelectorAll("a[data-reload]")) {
    a.addEventListener("click", (e) => { e.preventDefault(); location.reload(); });
  }

  // Where news tell of changes there is a number; elsewhere, how often to look.
  const seq = document.body.dataset.seq;
  const every = Number(document.body.dataset.every) || 0;
  if (!every && (seq === undefined || !window.EventSource)) return;

  // What a person has in hand stays there: focus, opened parts, scrolling.
  const nameOf = (e) => e.id || e.getAttribute("href") || e.getAttribute("aria-label") || "";
  const swap = (now, next) => {
    if (now.innerHTML === next.innerHTML) return true;
    const chosen = getSelection();
    if (chosen && !chosen.isCollapsed && now.contains(chosen.anchorNode)) return false;
    const held = now.contains(document.activeElement) ? nameOf(document.activeElement) : "";
    const open = new Set([...now.querySelectorAll("details[open]")].map((d) => d.id));
    const logs = [...now.querySelectorAll("pre")].map((p) =>
      p.scrollHeight - p.scrollTop - p.clientHeight < 8 ? Infinity : p.scrollTop);
    now.replaceChildren(...next.childNodes);
    for (const d of now.querySelectorAll("details")) if (open.has(d.id)) d.open = true;
    [...now.querySelectorAll("pre")].forEach((p, i) => { p.scrollTop = Math.min(logs[i] ?? Infinity, p.scrollHeight); });
    if (held) [...now.querySelectorAll("a,button,pre,summary,input,select")].find((e) => nameOf(e) === held)?.focus({ preventScroll: true });
    return true;
  };

  let source, again, failed = false;
  let waiting = false, last = 0, over = false;
  const looking = () => { if (every) say("Looked at again every " + every + " s.", false); };
  const fetchAgain = async () => {
    waiting = false;
    last = Date.now();
    try {
      const r = await fetch(location.href, { headers: { "x-part": "main" }, signal: AbortSignal.timeout(15000) });
      if (r.status === 401) {
        over = true;
        source?.close();
        say("The session has ended: load the page again to log in.", true);
        return;
      }
      if (!r.ok) {
        say("This page cannot be had now (" + r.status + "): load it again to see why.", true);
        return;
      }
      const page = new DOMParser().parseFromString(await r.text(), "text/html");
      let all = true;
      for (const now of document.querySelectorAll("[data-live]")) {
        const next = page.getElementById(now.id);
        if (next && !swap(now, next)) all = false;
      }
      heard = clock();
      if (source?.readyState === EventSource.OPEN) say("Live.", false);
      looking();
      if (every && all && page.body.dataset.every === undefined) {
        over = true;
        say("Nothing moves here any more.", false);
      }
    } catch {
      // The stream may have lived through it, and then tells nothing anew.
      lost();
      if (!every) setTimeout(soon, 5000);
    }
  };
  // At most once a second, however much happens.
  const soon = () => {
    if (waiting || over) return;
    waiting = true;
    setTimeout(fetchAgain, Math.max(0, 1000 - (Date.now() - last)));
  };
  const lost = () => { if (!over) say("Connection lost, last news at " + heard + ".", true); };

  if (every) {
    const look = async () => {
      if (!document.hidden) await fetchAgain();
      if (!over) setTimeout(look, every * 1000);
    };
    looking();
    setTimeout(look, every * 1000);
    return;
  }

  let newest = seq;
  const listen = () => {
    source = new EventSource("/ui/live?after=" + encodeURIComponent(newest));
    source.onopen = () => {
      say("Live.", false);
      heard = clock();
      // What moved without an event while nobody listened.
      if (failed) soon();
      failed = false;
    };
    source.onmessage = (e) => { newest = e.lastEventId || newest; heard = clock(); soon(); };
    source.addEventListener("progress", () => { heard = clock(); soon(); });
    source.onerror = () => {
      failed = true;
      lost();
      // A refused stream does not come back by itself: it may be the session.
      if (source.readyState === EventSource.CLOSED && !over) {
        clearTimeout(again);
        again = setTimeout(() => { soon(); listen(); }, 5000);
      }
    };
  };
  listen();
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (e) => { if (e.persisted && !over) { failed = true; listen(); } });
})();
