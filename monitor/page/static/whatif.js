// What if: asks the daemon as the slider moves, one question at a time, and shows its exact answer beside the present.
import {bar, chip, money, node, number, percent, room, setBar, setChip, write} from "./format.js";
import {keyed, worstPool} from "./account.js";

const AGAIN_MS = 2000;

export class WhatIf {
  constructor(root, id, body) {
    this.id = id;
    this.busy = this.again = false;
    const document_ = body.document, positions = document_.account.positions ?? [];
    const instruments = [...new Set(positions.map((position) => position.instrument))];
    const assets = [...new Set([...(document_.account.balances ?? []).map((balance) => balance.asset), "USDT"])];
    const ask = () => this.ask();
    const options = (names) => names.map((name) => node("option", {value: name, text: name}));
    this.scope = node("select", {id: "what-scope", onchange: ask}, node("option", {value: "", text: "All prices"}), ...options(body.underlyings));
    this.slider = node("input", {id: "what-move", type: "range", min: "-50", max: "50", step: "0.5", value: "0", oninput: ask});
    this.moved = node("output", {for: "what-move", class: "moved", text: "0 %"});
    this.instrument = node("input", {id: "what-instrument", list: "what-instruments", value: instruments[0] ?? "", onchange: ask, spellcheck: "false", autocomplete: "off"});
    this.quantity = node("input", {id: "what-quantity", inputmode: "decimal", placeholder: "0", oninput: ask, autocomplete: "off"});
    this.asset = node("select", {id: "what-asset", onchange: ask}, ...options(assets));
    this.deposit = node("input", {id: "what-deposit", inputmode: "decimal", placeholder: "0", oninput: ask, autocomplete: "off"});
    this.closes = node("div", {class: "closes"}, ...instruments.map((name) => node("label", {}, node("input", {type: "checkbox", value: name, onchange: ask}), ` ${name}`)));
    this.error = node("p", {class: "error", role: "alert"});
    this.level = chip("unknown");
    this.bar = bar();
    this.facts = node("dl", {class: "facts"});
    this.prices = node("tbody");
    this.source = node("pre", {tabindex: "0"});
    const row = (text, forId, ...inputs) => node("div", {class: "try"}, node("label", {for: forId, text}), node("span", {class: "inputs"}, ...inputs));
    root.replaceChildren(
      row("Move", "what-move", this.scope), node("div", {class: "slide"}, this.slider, this.moved),
      row("Trade", "what-quantity", this.instrument, this.quantity, node("datalist", {id: "what-instruments"}, ...options(instruments))),
      row("Deposit", "what-deposit", this.asset, this.deposit),
      instruments.length ? node("div", {class: "try"}, node("span", {text: "Close"}), this.closes) : "",
      this.error,
      node("div", {class: "answer", "aria-live": "polite"}, this.level, this.bar), this.facts,
      node("div", {class: "sheet"}, node("table", {}, node("thead", {}, node("tr", {}, node("th", {scope: "col", text: "Instrument"}), node("th", {scope: "col", class: "n", text: "Mark"}), node("th", {scope: "col", class: "n", text: "Liquidation price"}))), this.prices)),
      node("details", {}, node("summary", {text: "The document that was evaluated"}), node("p", {class: "hint", text: "margin-monitor evaluate on it gives the same digits."}), this.source),
      node("button", {type: "button", class: "quiet", text: "Back to the present", onclick: () => this.reset()}));
    this.slider.setAttribute("aria-label", "Move of prices in percent");
    this.scope.setAttribute("aria-label", "Which prices move");
    this.instrument.setAttribute("aria-label", "Instrument to trade");
    this.asset.setAttribute("aria-label", "Asset to deposit");
    this.ask();
  }

  parameters() {
    const pairs = [["account", this.id]];
    const move = Number(this.slider.value);
    write(this.moved, `${move > 0 ? "+" : ""}${move} %`.replace("-", "−"));
    if (move) pairs.push(["move", this.scope.value ? `${this.scope.value}:${move}` : String(move)]);
    if (this.quantity.value.trim() && this.instrument.value.trim()) pairs.push(["trade", `${this.instrument.value.trim()}:${this.quantity.value.trim()}`]);
    if (this.deposit.value.trim()) pairs.push(["deposit", `${this.asset.value}:${this.deposit.value.trim()}`]);
    for (const box of this.closes.querySelectorAll(":checked")) pairs.push(["close", box.value]);
    return new URLSearchParams(pairs);
  }

  reset() {
    this.slider.value = "0"; this.quantity.value = this.deposit.value = "";
    for (const box of this.closes.querySelectorAll(":checked")) box.checked = false;
    this.ask();
  }

  live() { if (!this.busy && performance.now() - (this.asked ?? 0) > AGAIN_MS) this.ask(); }

  async ask() {
    const parameters = this.parameters();
    if (this.busy) { this.again = true; return; }
    this.busy = true;
    this.asked = performance.now();
    try {
      const answer = await fetch(`/api/what-if?${parameters}`);
      const body = await answer.json();
      if (answer.status === 429) this.again = true;
      else if (!answer.ok) write(this.error, body.error);
      else { write(this.error, ""); this.show(body); }
    } catch { write(this.error, "no answer from the daemon"); }
    this.busy = false;
    if (this.again) { this.again = false; setTimeout(() => this.ask(), 20); }
  }

  show(body) {
    const pools = body.account.pools, pool = worstPool(pools);
    const level = body.account.unknown != null || !pool ? "unknown" : pool.level;
    setChip(this.level, level);
    setBar(this.bar, pool ?? {}, level);
    this.bar.dataset.exact = pool?.margin_ratio ?? "";
    const unit = pool ? ` ${pool.currency}` : "", [down, up] = room(level, body.moves[pool?.pool], percent);
    const known = level !== "unknown";
    const facts = [["Equity", known ? money(Number(pool.equity)) + unit : "–", pool?.equity], ["Maintenance", known ? money(Number(pool.maintenance_margin)) + unit : "–", pool?.maintenance_margin],
      ["If the market falls", down], ["If it rises", up]];
    keyed(this.facts, facts, ([name]) => name, ([name]) => node("div", {}, node("dt", {text: name}), node("dd")), (element, [, text, exact]) => { write(element.lastChild, text); if (exact != null) element.lastChild.title = exact; });
    const rows = pools.flatMap((each) => each.positions.map((position) => ({...position, pool: each.pool})));
    keyed(this.prices, rows, (row) => `${row.pool} ${row.instrument} ${row.side}`, (row) => node("tr", {}, node("th", {scope: "row", text: row.instrument}), node("td", {class: "n"}), node("td", {class: "n"})),
      (element, row) => { write(element.children[1], row.mark_price == null ? "–" : number(Number(row.mark_price))); write(element.children[2], row.liquidation_price == null ? "none" : number(Number(row.liquidation_price))); });
    this.source.textContent = JSON.stringify(body.document, null, 1);
  }
}
