// The page: one stream of events from the daemon, a board or an account, and a loud word when the stream is dead.
import {Account} from "./account.js";
import {Board} from "./board.js";
import {eventLine} from "./events.js";
import {clock, count, node, setThresholds, write} from "./format.js";

const $ = (id) => document.getElementById(id);
const DEAD_MS = 3500;

let source = null, heard = performance.now(), heardAt = Date.now(), retry = 0;
const board = new Board(() => connect(), (id) => { location.hash = `#/account/${encodeURIComponent(id)}`; });
const account = new Account($("account"));

function connect() {
  source?.close();
  clearTimeout(retry);
  const id = account.id;
  source = new EventSource(`/api/live?${id ? `account=${encodeURIComponent(id)}` : board.parameters()}`);
  const mine = source;
  const on = (kind, take) => source.addEventListener(kind, (event) => {
    if (mine !== source) return;
    heard = performance.now(); heardAt = Date.now();
    alive(true);
    take(JSON.parse(event.data));
  });
  on("status", showStatus);
  on("board", (page) => board.show(page));
  on("events", showEvents);
  on("account", (body) => account.show(body));
  source.onerror = async () => {
    if (mine !== source || mine.readyState !== EventSource.CLOSED) return;
    const answer = await fetch("/api/feeds").catch(() => null);
    if (answer?.status === 401) { location.href = "/login"; return; }
    if (mine === source) retry = setTimeout(connect, 1000);
  };
}

function alive(is) {
  document.body.dataset.link = is ? "live" : "lost";
  const banner = $("lost");
  if (banner.hidden !== is) {
    banner.hidden = is;
    write(banner, is ? "" : `No connection to the daemon since ${clock(heardAt)}. Everything below is what was known then.`);
    document.title = is ? "margin-monitor" : "✕ margin-monitor: no connection";
  }
}

setInterval(() => { if (performance.now() - heard > DEAD_MS) alive(false); }, 250);

function showStatus(status) {
  if (status.thresholds) { setThresholds(status.thresholds); account.thresholds = status.thresholds; }
  board.status(status);
  const trouble = $("trouble"), failed = status.failed.map((check) => check.detail ? `${check.name}: ${check.detail}` : check.name);
  trouble.hidden = !failed.length;
  write(trouble, failed.length ? `Do not rely on all of this: ${failed.join("; ")}` : "");
  const feeds = Object.entries(status.feeds).map(([venue, feed]) => {
    const state = feed.ready ? "ok" : feed.symbols ? "stale" : "down";
    const word = {ok: `${count(feed.symbols)} symbols`, stale: `${feed.stale.length} stale, ${feed.missing.length} missing`, down: "no prices"}[state];
    return node("li", {"data-state": state, title: `${feed.reconnects} reconnects, delay p99 ${(feed.delay_s.p99 * 1000).toFixed(0)} ms`}, node("b", {text: venue}), ` ${word}`);
  });
  const list = $("feeds");
  if (feeds.map((item) => item.outerHTML).join() !== list.innerHTML) list.replaceChildren(...feeds);
  const pace = [["accounts", count(status.accounts)], ["prices/s", count(status.ticks_per_s)], ["tick to event p99", status.latency_ms ? `${status.latency_ms.p99.toFixed(1)} ms` : "–"], ["events", count(status.events)]];
  const dl = $("pace");
  if (!dl.children.length) dl.append(...pace.map(([name]) => node("div", {}, node("dt", {text: name}), node("dd"))));
  pace.forEach(([, value], at) => write(dl.children[at].lastChild, value));
}

const known = new Map();

function showEvents(events) {
  const list = $("events");
  if (!events.length) { list.replaceChildren(node("li", {class: "none", text: "None yet."})); return; }
  const lines = events.map((event) => {
    let line = known.get(event.id);
    if (!line) known.set(event.id, line = eventLine(event));
    return line;
  });
  const wanted = new Set(lines);
  for (const child of [...list.children]) if (!wanted.has(child)) child.remove();
  lines.forEach((line, at) => { if (list.children[at] !== line) list.insertBefore(line, list.children[at] ?? null); });
  const ids = new Set(events.map((event) => event.id));
  for (const id of known.keys()) if (!ids.has(id)) known.delete(id);
  account.events(events);
}

function route() {
  const found = location.hash.match(/^#\/account\/(.+)$/);
  account.open(found ? decodeURIComponent(found[1]) : null);
  $("overview").hidden = Boolean(found);
  $("account").hidden = !found;
  connect();
  if (found) $("main").focus();
  else if (board.focused) requestAnimationFrame(() => board.rows.get(board.focused)?.focus());
}

addEventListener("hashchange", route);
$("help-open").addEventListener("click", () => $("help").showModal());

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const inField = event.target.closest?.("input, select, textarea");
  if (event.key === "Escape") {
    if ($("help").open) return;
    if (account.id) location.hash = "#/";
    else { board.clear(); $("search").blur(); }
    return;
  }
  if (inField) { if (event.target.id === "search" && (event.key === "ArrowDown" || event.key === "Enter")) { event.preventDefault(); board.focused = null; board.step(1); } return; }
  if (event.key === "?") { $("help").showModal(); return; }
  if (account.id) return;
  const keys = {"/": () => $("search").focus(), j: () => board.step(1), ArrowDown: () => board.step(1), k: () => board.step(-1), ArrowUp: () => board.step(-1),
    n: () => board.turn(1), p: () => board.turn(-1), 0: () => board.set({level: ""})};
  const level = "123456".indexOf(event.key);
  const act = event.key === "Enter" ? event.target.matches("#rows tr") && (() => board.onOpen(event.target.dataset.id))
    : level >= 0 ? () => $("levels").children[level].click() : keys[event.key];
  if (act) { event.preventDefault(); act(); }
});

route();
