// The table of accounts: rows are kept by account and moved, so that what has not changed does not flicker.
import {bar, chip, count, levelOf, LEVELS, money, NAMES, node, percent, setBar, setChip, SHAPES, write} from "./format.js";

const PAGE = 50;
const $ = (id) => document.getElementById(id);

export class Board {
  constructor(onChange, onOpen) {
    this.query = {search: "", group: "", venue: "", level: "", order: "danger", offset: 0};
    this.rows = new Map();
    this.total = 0;
    this.onChange = onChange;
    this.onOpen = onOpen;
    this.focused = null;
    $("filters").addEventListener("submit", (event) => event.preventDefault());
    let typed;
    $("search").addEventListener("input", () => { clearTimeout(typed); typed = setTimeout(() => this.set({search: $("search").value.trim()}), 120); });
    for (const name of ["group", "venue", "order"]) $(name).addEventListener("change", () => this.set({[name]: $(name).value}));
    $("back").addEventListener("click", () => this.turn(-1));
    $("next").addEventListener("click", () => this.turn(1));
    $("levels").append(...LEVELS.map((level) => node("button", {type: "button", class: "level", "data-level": level, "aria-pressed": "false", onclick: () => this.toggle(level)},
      node("span", {class: "shape", "aria-hidden": "true", text: SHAPES[level]}), node("span", {class: "count", text: "–"}), node("span", {class: "name", text: NAMES[level]}))));
    $("share").append(...LEVELS.map((level) => node("i", {"data-level": level})));
    $("rows").addEventListener("click", (event) => { const row = event.target.closest("tr"); if (row && !event.target.closest("a")) this.onOpen(row.dataset.id); });
    $("rows").addEventListener("focusin", (event) => { this.focused = event.target.closest("tr")?.dataset.id ?? null; });
  }

  parameters() {
    const wanted = {...this.query, limit: PAGE};
    return new URLSearchParams(Object.entries(wanted).filter(([, value]) => value !== "" && value !== 0)).toString();
  }

  set(change) {
    Object.assign(this.query, {offset: 0}, change);
    for (const button of $("levels").children) button.setAttribute("aria-pressed", String(button.dataset.level === this.query.level));
    for (const name of ["search", "group", "venue", "order"]) if (document.activeElement !== $(name)) $(name).value = this.query[name];
    this.onChange();
  }

  toggle(level) { this.set({level: this.query.level === level ? "" : level}); }
  clear() { this.set({search: "", group: "", venue: "", level: "", order: "danger"}); $("search").value = ""; }
  get filtered() { const q = this.query; return Boolean(q.search || q.group || q.venue || q.level || q.offset); }

  turn(by) {
    const offset = Math.max(0, this.query.offset + by * PAGE);
    if (offset < this.total || by < 0) this.set({offset});
  }

  step(by) {
    const rows = [...$("rows").children];
    if (!rows.length) return;
    const at = rows.findIndex((row) => row.dataset.id === this.focused);
    rows[at < 0 ? 0 : Math.min(rows.length - 1, Math.max(0, at + by))].focus();
  }

  status(status) {
    if (!status.levels) return;
    const all = Math.max(1, status.accounts);
    for (const button of $("levels").children) {
      const n = status.levels[button.dataset.level] ?? 0;
      write(button.children[1], count(n));
      button.classList.toggle("none", n === 0);
    }
    for (const part of $("share").children) part.style.flexGrow = String((status.levels[part.dataset.level] ?? 0) / all);
    choices($("group"), status.groups, "All groups");
    choices($("venue"), status.venues, "All venues");
    write($("change-head"), status.change_s >= 90 ? `${Math.round(status.change_s / 60)} min` : `${status.change_s || 0} s`);
  }

  show(page) {
    if (page === null) { this.say("Accounts are being loaded …"); return; }
    this.total = page.total;
    const body = $("rows"), shown = new Set();
    let before = null;
    const focused = body.contains(document.activeElement) ? this.focused : null;
    for (const account of page.accounts) {
      shown.add(account.id);
      let row = this.rows.get(account.id);
      if (!row) this.rows.set(account.id, row = this.make(account.id));
      this.fill(row, account);
      const place = before ? before.nextSibling : body.firstChild;
      if (place !== row) body.insertBefore(row, place);
      before = row;
    }
    for (const [id, row] of this.rows) if (!shown.has(id)) { row.remove(); this.rows.delete(id); }
    if (focused && this.rows.has(focused) && document.activeElement !== this.rows.get(focused)) this.rows.get(focused).focus({preventScroll: true});
    const first = page.total ? page.offset + 1 : 0, last = page.offset + page.accounts.length;
    write($("place"), `${count(first)}–${count(last)} of ${count(page.total)}`);
    $("back").disabled = page.offset === 0;
    $("next").disabled = last >= page.total;
    this.say(page.accounts.length ? "" : this.filtered ? "No account passes these filters. Esc clears them." : "No accounts yet: import some with margin-monitor accounts import.");
  }

  say(text) { $("empty").hidden = !text; write($("empty"), text); }

  make(id) {
    const cell = (name, ...children) => node("td", {class: name}, ...children);
    return node("tr", {tabindex: "0", "data-id": id},
      cell("who", node("a", {href: `#/account/${encodeURIComponent(id)}`, tabindex: "-1", text: id}), node("small")),
      cell("level", chip("healthy")), cell("bar", bar()), cell("n change"), cell("n moves", node("span", {class: "down"}), node("span", {class: "up"})),
      cell("n equity"), cell("n maintenance"));
  }

  fill(row, account) {
    const level = levelOf(account), worst = account.pools[0];
    if (row.dataset.level !== level) {
      if (row.dataset.level) { row.classList.remove("turned"); void row.offsetWidth; row.classList.add("turned"); }
      row.dataset.level = level;
    }
    const [who, chipCell, barCell, change, moves, equity, maintenance] = row.children;
    const pool = worst && worst.pool !== "cross" ? ` · ${worst.pool}` : "";
    const more = account.pools.length > 1 ? ` · ${account.pools.length} pools` : "";
    write(who.lastChild, account.unknown ?? `${account.group ?? "no group"} · ${account.venue}${pool}${more}`);
    setChip(chipCell.firstChild, level);
    setBar(barCell.firstChild, level === "unknown" ? {margin_ratio: null} : account, level);
    const moved = account.change == null || level === "unknown" ? null : Math.abs(account.change) < 0.0005 ? 0 : account.change;
    write(change, moved == null ? "–" : moved === 0 ? "·" : `${moved > 0 ? "▴" : "▾"} ${Math.abs(moved).toFixed(3)}`);
    change.dataset.way = moved == null || moved === 0 ? "" : moved > 0 ? "worse" : "better";
    const beyond = level === "liquidation" || level === "bankrupt", unknown = level === "unknown";
    write(moves.firstChild, unknown || beyond ? "" : account.down == null ? "" : percent(account.down));
    moves.lastChild.toggleAttribute("data-way", !unknown && !beyond && account.up != null);
    write(moves.lastChild, unknown ? "–" : beyond ? "past it" : account.up == null ? (account.down == null ? "none" : "") : percent(account.up));
    const unit = worst?.currency ? ` ${worst.currency}` : "";
    write(equity, unknown || !worst ? "–" : money(worst.equity) + unit);
    write(maintenance, unknown || !worst ? "–" : money(worst.requirement) + unit);
  }
}

function choices(select, names, all) {
  const known = [...select.options].slice(1).map((option) => option.value);
  if (known.length === names.length && known.every((name, at) => name === names[at])) return;
  const chosen = select.value;
  select.replaceChildren(node("option", {value: "", text: all}), ...names.map((name) => node("option", {value: name, text: name})));
  select.value = chosen;
}
