// Drives every page of the site server in headless Chromium: no error on the
// console, no request that leaves the machine, nothing that accessibility
// checks object to, all of it within reach of a keyboard; and a picture of
// each page, light, dark and in a narrow window.
//   node pages.js SOCKET OUT [axe.min.js]
"use strict";
const { spawn } = require("node:child_process");
const fs = require("node:fs");
const http = require("node:http");
const net = require("node:net");
const os = require("node:os");
const path = require("node:path");

const [socket, out, axe] = process.argv.slice(2);
fs.mkdirSync(out, { recursive: true });
// Of one page, and of all of them: a page that hangs, or a machine that is too slow, is a problem and not a wait.
const PAGE_MS = 60_000;
const ALL_MS = 600_000;

const within = (ms, what, promise) => {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error(`${what}: not done after ${ms / 1000} s`)), ms)));
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

const ask = (target) => new Promise((resolve, reject) => {
  http.get({ socketPath: socket, path: target, headers: { Host: "localhost" } }, (answer) => {
    let text = "";
    answer.on("data", (part) => (text += part)).on("end", () => resolve(text));
  }).on("error", reject);
});

// Chromium cannot speak to a Unix socket.
const forward = () => new Promise((resolve) => {
  const server = net.createServer((from) => {
    const to = net.connect(socket);
    from.pipe(to).pipe(from);
    from.on("error", () => to.destroy());
    to.on("error", () => from.destroy());
  }).listen(0, "127.0.0.1", () => resolve(server));
});

class Browser {
  constructor() {
    this.profile = fs.mkdtempSync(path.join(os.tmpdir(), "inquest-browser-"));
    this.child = spawn("chromium", ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
      "--remote-debugging-pipe", "--no-first-run", "--disable-background-networking",
      `--user-data-dir=${this.profile}`, "--window-size=1280,1000", "about:blank"],
    { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
    this.next = 0;
    this.waiting = new Map();
    this.heard = () => {};
    let text = "";
    this.child.stdio[4].on("data", (part) => {
      text += part;
      const messages = text.split("\0");
      text = messages.pop();
      for (const message of messages.map((m) => JSON.parse(m))) {
        const wait = this.waiting.get(message.id);
        if (!wait) { this.heard(message); continue; }
        this.waiting.delete(message.id);
        if (message.error) wait.reject(new Error(message.error.message)); else wait.resolve(message.result);
      }
    });
  }
  send(method, params = {}, sessionId = this.session) {
    const id = ++this.next;
    this.child.stdio[3].write(JSON.stringify({ id, method, params, sessionId }) + "\0");
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }
  async open() {
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank" }, undefined);
    this.session = (await this.send("Target.attachToTarget", { targetId, flatten: true }, undefined)).sessionId;
    for (const domain of ["Page", "Runtime", "Log", "Network"]) await this.send(`${domain}.enable`);
  }
  async evaluate(expression) {
    const { result, exceptionDetails } =
      await this.send("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }
  async press(key, code, text) {
    for (const type of ["keyDown", "keyUp"]) {
      await this.send("Input.dispatchKeyEvent", { type, key, code: key, windowsVirtualKeyCode: code, text: type === "keyDown" ? text : undefined });
    }
  }
  async keyboard(say) {
    for (let n = 0; n < TABS; n++) {
      await this.press("Tab", 9);
      const at = await this.evaluate(focused);
      if (!at) break;
      if (n === 0 && !at.skip && await this.evaluate("!!document.querySelector('nav')")) say("Tab does not come to the way to the content first");
      if (!at.seen) say(`nobody sees that this has the focus: ${at.what}`);
      if (n === TABS - 1) return; // A long list; what comes first is what matters.
    }
    for (const what of await this.evaluate(missed)) say(`no Tab comes to ${what}`);
  }
  async picture(file) {
    const { data } = await this.send("Page.captureScreenshot", { captureBeyondViewport: true });
    fs.writeFileSync(file, Buffer.from(data, "base64"));
  }
  end() {
    this.child.kill();
    this.child.once("exit", () => fs.rmSync(this.profile, { recursive: true, force: true }));
  }
}

// What Tab comes to, in its order, until it leaves the page: all that can be used, seen where it is.
const TABS = 150;
const focused = `(() => {
  const e = document.activeElement;
  if (!e || e === document.body) return null;
  const style = getComputedStyle(e);
  const seen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
  e.setAttribute("data-met", "");
  return { what: e.outerHTML.slice(0, 120), seen, skip: e.classList.contains("skip") };
})()`;
const missed = `[...document.querySelectorAll("a[href], button, input, select, summary")]
  .filter((e) => !e.hasAttribute("data-met") && e.tabIndex >= 0 && e.checkVisibility())
  .map((e) => e.outerHTML.slice(0, 120))`;

// What a keyboard or a screen reader needs, where axe-core is not there.
const own = `(() => {
  const wrong = [];
  const name = (e) => (e.getAttribute("aria-label") || e.textContent || "").trim();
  if (!document.documentElement.lang) wrong.push("no language");
  if (!document.title) wrong.push("no title");
  if (document.querySelectorAll("h1").length !== 1) wrong.push("not one h1");
  let last = 0;
  for (const h of document.querySelectorAll("h1,h2,h3,h4")) {
    const level = Number(h.tagName[1]);
    if (level > last + 1 && !(last === 2 && level === 4)) wrong.push("a heading is skipped before: " + h.textContent);
    last = level;
  }
  for (const a of document.querySelectorAll("a:not([tabindex='-1']), button")) if (!name(a)) wrong.push("no name: " + a.outerHTML);
  for (const i of document.querySelectorAll("input, select")) if (!i.closest("label")) wrong.push("no label: " + i.outerHTML);
  for (const s of document.querySelectorAll("svg:not([aria-hidden])")) {
    if (!["img", "group"].includes(s.getAttribute("role")) || !(s.hasAttribute("aria-label") || s.hasAttribute("aria-labelledby"))) wrong.push("a picture without words");
  }
  for (const t of document.querySelectorAll("thead th")) if (!t.scope) wrong.push("a column without scope: " + t.textContent);
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) wrong.push("twice: #" + id);
  if (document.querySelector("script:not([src]), [style], [onclick], [onload]")) wrong.push("script or style in the page");
  if (document.documentElement.scrollWidth > innerWidth + 1) wrong.push("wider than the window");
  return [...new Set(wrong)];
})()`;

// One page, in every way that somebody may look at it.
async function look(browser, origin, page, picture, say, remark) {
  const expected = /no\/such|nonsense/.test(page);
  let loaded = () => {};
  browser.heard = ({ method, params }) => {
    if (method === "Page.loadEventFired") loaded();
    if (method === "Runtime.exceptionThrown") say(params.exceptionDetails.text);
    if (method === "Runtime.consoleAPICalled" && ["error", "warning"].includes(params.type)) say(JSON.stringify(params.args));
    if (method === "Log.entryAdded" && params.entry.level === "error" && !(expected && /status of 40/.test(params.entry.text))) say(params.entry.text);
    if (method === "Network.requestWillBeSent" && !params.request.url.startsWith(origin)) say(`asks for ${params.request.url}`);
  };
  for (const scheme of ["light", "dark", "narrow"]) {
    const narrow = scheme === "narrow";
    const features = [{ name: "prefers-color-scheme", value: narrow ? "light" : scheme }];
    await browser.send("Emulation.setEmulatedMedia", { features });
    const size = { width: narrow ? 400 : 1280, height: 1000, deviceScaleFactor: 1, mobile: false };
    await browser.send("Emulation.setDeviceMetricsOverride", size);
    const wait = new Promise((resolve) => (loaded = resolve));
    await browser.send("Page.navigate", { url: origin + page });
    await wait;
    await browser.picture(`${picture}-${scheme}.png`);
    for (const wrong of await browser.evaluate(own)) say(`${scheme}: ${wrong}`);
    if (axe) {
      await browser.evaluate(fs.readFileSync(axe, "utf8") + ";0");
      const found = await browser.evaluate("axe.run().then((r) => r.violations.map((v) => [v.impact, v.id + ': ' + v.help + ' ' + v.nodes[0].html]))");
      for (const [impact, violation] of found) {
        if (["serious", "critical"].includes(impact)) say(`axe, ${scheme}: ${violation}`);
        else remark(`axe, ${impact}: ${violation}`);
      }
    }
    if (scheme === "light") await browser.keyboard(say);
  }
}

(async () => {
  const far = "since=2000-01-01&until=2100-01-01";
  // One job of every cause: their pages differ most.
  const answer = await within(PAGE_MS, "the list of failed jobs", ask(`/api/v1/jobs?status=failed&limit=200&${far}`));
  const failed = JSON.parse(answer).jobs;
  if (!failed) throw new Error(`the server did not list failed jobs: ${answer}`);
  const jobs = [...new Map(failed.map((job) => [job.cause, job])).values()].slice(0, 12);
  const asked = ["/", `/?${far}`, "/?since=1d&class=oom", `/failures?${far}`, `/runs?${far}`, `/nodes?${far}`, "/health", "/no/such/page", "/?since=nonsense"];
  for (const job of jobs) {
    const run = `/runs/${[job.cluster, job.user, job.run_id].map(encodeURIComponent).join("/")}`;
    asked.push(run, `${run}/jobs/${job.chunk_id}`, `/fingerprints/${job.fingerprint}?${far}`);
  }
  const pages = [...new Set(asked)];
  const server = await forward();
  const origin = `http://localhost:${server.address().port}`;
  const browser = new Browser();
  let problems = 0;
  const began = Date.now();
  try {
    await browser.open();
    for (const [at, page] of pages.entries()) {
      const from = Date.now();
      const number = String(at).padStart(2, "0");
      const wrong = new Set();
      const remarks = new Set();
      const left = Math.min(PAGE_MS, ALL_MS - (from - began));
      const one = look(browser, origin, page, path.join(out, number), (what) => wrong.add(what), (what) => remarks.add(what));
      let hung = false;
      await within(Math.max(left, 0), page, one).catch((error) => { wrong.add(error.message); hung = true; });
      problems += wrong.size;
      console.log(`${number} ${((Date.now() - from) / 1000).toFixed(1).padStart(5)} s  ${wrong.size} problems  ${page}`);
      for (const what of wrong) console.log(`      PROBLEM  ${what}`);
      for (const what of remarks) console.log(`      remark   ${what}`);
      if (hung) { console.log("      the pages after it were not looked at"); break; }
    }
  } finally {
    browser.end();
    server.close();
  }
  console.log(`${pages.length} pages, ${problems} problems, ${((Date.now() - began) / 1000).toFixed(0)} s, pictures in ${out}`);
  process.exitCode = problems ? 1 : 0;
})().catch((error) => { console.error(error); process.exit(1); });
