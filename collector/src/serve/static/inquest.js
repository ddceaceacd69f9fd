// The newest failures, asked for again while the page is looked at. Without
// this file every page is complete, only not by itself up to date.
"use strict";
(() => {
  const live = document.querySelector("[data-live]");
  if (!live) return;
  const state = document.querySelector("[data-live-state]");
  const every = 10000;
  const keys = () => new Set([...live.querySelectorAll("tr[data-key]")].map((row) => row.dataset.key));
  const say = (text) => { if (state && state.textContent !== text) state.textContent = text; };
  const look = async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(live.dataset.live, { headers: { Accept: "text/html" }, redirect: "error" });
      if (!answer.ok) { say("not up to date: the server said " + answer.status); return; }
      const before = keys();
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const body = page.querySelector("tbody");
      const old = live.querySelector("tbody");
      if (!body || !old || old.contains(document.activeElement)) return;
      // Rows that stay as they are keep what a reader has marked in them.
      if (body.textContent === old.textContent) { say("up to date by itself"); return; }
      old.replaceWith(document.importNode(body, true));
      for (const row of live.querySelectorAll("tr[data-key]")) {
        if (!before.has(row.dataset.key)) row.classList.add("fresh");
      }
      say("up to date by itself");
    } catch (error) {
      say("not up to date: the server does not answer");
    }
  };
  say("up to date by itself");
  setInterval(look, every);
  document.addEventListener("visibilitychange", look);
})();
