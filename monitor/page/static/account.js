// One account: its pools, positions and prices of liquidation, its ratio over time, what if, the terms, its events.
import {RatioChart} from "./chart.js";
import {eventLine} from "./events.js";
import {bar, chip, money, node, number, percent, room, setBar, setChip, write} from "./format.js";
import {WhatIf} from "./whatif.js";

const EXPLAIN_MS = 2000;

export class Account {
  constructor(root) {
    this.root = root;
    this.id = null;
    this.thresholds = null;
  }

  open(id) {
    if (id === this.id) return;
    this.id = id;
    this.chart?.destroy();
    this.chart = this.whatIf = null;
    this.root.replaceChildren();
    if (id === null) return;
    const part = (name, title, ...children) => node("section", {class: `card ${name}`, "aria-label": title}, node("h2", {text: title}), ...children);
    this.head = node("div", {class: "account-head"}, node("a", {class: "back", href: "#/", "aria-label": "Back to all accounts", text: "←"}), node("h1", {text: id}), chip("unknown"), node("small"));
    this.pools = node("div", {class: "pools"});
    this.positions = node("tbody");
    this.plot = node("div", {class: "plot"});
    this.tries = node("div", {class: "tries"});
    this.lines = node("ol", {class: "events"});
    this.terms = node("div", {class: "terms"});
    this.details = node("details", {class: "card", ontoggle: () => this.explain()}, node("summary", {text: "Every term of it"}), this.terms);
    this.root.append(this.head, this.pools,
      node("div", {class: "columns"},
        node("div", {},
          part("positions", "Positions", node("div", {class: "sheet"}, node("table", {}, node("thead", {}, node("tr", {}, ...["Instrument", "Quantity", "Mark", "Notional", "Profit", "Maintenance", "Liquidation price", "Distance"].map((name, at) => node("th", {scope: "col", class: at ? "n" : "", text: name})))), this.positions))),
          part("history", "Margin ratio over time", this.plot),
          this.details),
        node("div", {}, part("what-if", "What if", this.tries), part("log", "Events of this account", this.lines))));
    this.load(id);
  }

  async load(id) {
    const path = `/api/accounts/${encodeURIComponent(id)}`;
    const [full, past] = await Promise.all([fetch(path), fetch(`${path}/history`)]).catch(() => []);
    if (this.id !== id || !full) return;
    if (!full.ok) { this.root.append(node("p", {class: "empty", text: (await full.json()).error})); return; }
    const body = await full.json();
    if (this.id !== id) return;
    this.show(body);
    this.lines.replaceChildren(...body.events.map(eventLine));
    if (!body.events.length) this.lines.append(node("li", {class: "none", text: "None in the last 2,000."}));
    this.seen = new Set(body.events.map((event) => event.id));
    this.chart = new RatioChart(this.plot, (await past.json()).points, this.thresholds);
    this.whatIf = new WhatIf(this.tries, id, body);
  }

  events(events) {
    if (!this.seen) return;
    for (const event of events.filter((each) => each.account === this.id && !this.seen.has(each.id)).reverse()) {
      this.seen.add(event.id);
      this.lines.querySelector(".none")?.remove();
      this.lines.prepend(eventLine(event));
    }
  }

  show(body) {
    if (body === null || body.id !== this.id) return;
    const worst = worstPool(body.pools);
    const level = body.hold != null || body.pools.some((pool) => pool.unknown != null) ? "unknown" : worst?.level ?? "healthy";
    setChip(this.head.children[2], level);
    write(this.head.lastChild, `${body.venue} · ${body.group ?? "no group"}${body.hold ? ` · ${body.hold}` : ""}`);
    keyed(this.pools, body.pools, (pool) => pool.pool, makePool, fillPool);
    const positions = body.pools.flatMap((pool) => pool.positions.map((position) => ({...position, pool: pool.pool, isUnknown: pool.unknown != null})));
    keyed(this.positions, positions, (row) => `${row.pool} ${row.instrument} ${row.side}`, makePosition, fillPosition);
    if (this.chart && worst) this.chart.add(Date.now() / 1000, level === "unknown" || worst.margin_ratio == null ? null : Number(worst.margin_ratio));
    this.whatIf?.live(body);
    if (this.details.open && performance.now() - (this.explained ?? 0) > EXPLAIN_MS) this.explain();
  }

  async explain() {
    if (!this.details.open) return;
    this.explained = performance.now();
    const answer = await fetch(`/api/accounts/${encodeURIComponent(this.id)}/explain`).catch(() => null);
    if (!answer?.ok) return;
    const {sections} = await answer.json();
    this.terms.replaceChildren(...sections.map(({title, rows}) => node("section", {}, node("h3", {text: title}),
      node("div", {class: "sheet"}, node("table", {}, node("tbody", {}, ...rows.map(([what, value, how]) => node("tr", {}, node("th", {scope: "row", text: what.trim(), class: what.startsWith(" ") ? "below" : ""}), node("td", {class: "n", text: value}), node("td", {class: "how", text: how})))))))));
  }
}

const RANK = ["healthy", "watch", "margin_call", "liquidation", "bankrupt"];

export function worstPool(pools) {
  return [...pools].sort((a, b) => RANK.indexOf(b.level) - RANK.indexOf(a.level) || Number(b.margin_ratio ?? 0) - Number(a.margin_ratio ?? 0))[0];
}

export function keyed(parent, items, key, make, fill) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, at) => {
    const name = key(item);
    let child = known.get(name);
    if (!child) { child = make(item); child.dataset.key = name; }
    known.delete(name);
    fill(child, item);
    if (parent.children[at] !== child) parent.insertBefore(child, parent.children[at] ?? null);
  });
  for (const child of known.values()) child.remove();
}

function makePool() {
  const fact = (name) => node("div", {}, node("dt", {text: name}), node("dd"));
  return node("article", {class: "card pool"}, node("h2", {}, node("span"), chip("unknown")), bar(), node("dl", {class: "facts"}, ...["Equity", "Maintenance", "Headroom", "If the market falls", "If it rises", "Cure"].map(fact)));
}

function fillPool(card, pool) {
  const level = pool.unknown != null ? "unknown" : pool.level ?? "unknown";
  card.dataset.level = level;
  write(card.firstChild.firstChild, pool.pool);
  setChip(card.firstChild.lastChild, level);
  setBar(card.children[1], pool, level);
  const unit = ` ${pool.currency}`, known = level !== "unknown";
  const sum = (text) => known && text != null ? money(Number(text)) + unit : "–";
  const reduce = pool.cure?.reduce?.find((part) => part.quantity != null);
  const cure = !known ? pool.unknown ?? "–" : level === "healthy" ? "none needed" : [pool.cure?.deposit != null ? `deposit ${money(Number(pool.cure.deposit))}${unit}` : "", reduce ? `or ${number(Number(reduce.quantity))} ${reduce.instrument}` : ""].filter(Boolean).join(" ") || "–";
  [sum(pool.equity), sum(pool.maintenance_margin), sum(pool.headroom), ...room(level, pool.pool_liquidation, percent), cure].forEach((text, at) => write(card.lastChild.children[at].lastChild, text));
}

function makePosition() { return node("tr", {}, node("th", {scope: "row"}, node("span"), node("small")), ...Array.from({length: 7}, () => node("td", {class: "n"}))); }

function fillPosition(row, position) {
  const side = Number(position.quantity) > 0 ? "long" : "short";
  row.dataset.side = side;
  write(row.firstChild.firstChild, position.instrument);
  write(row.firstChild.lastChild, `${side}${position.pool.startsWith("isolated") ? " · isolated" : ""}`);
  const known = !position.isUnknown, value = (text) => text == null ? null : Number(text);
  [number(value(position.quantity)), number(value(position.mark_price)), money(value(position.notional)), money(value(position.unrealized_pnl)), money(value(position.maintenance_margin)),
    !known ? "unknown" : position.liquidation_price == null ? "none" : number(value(position.liquidation_price)), known ? percent(value(position.distance)) : "–"].forEach((text, at) => write(row.children[at + 1], text));
  row.children[4].dataset.way = Number(position.unrealized_pnl) < 0 ? "worse" : "better";
}
