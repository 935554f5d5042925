// Numbers and words as people read them, and small pieces of the document.

export const LEVELS = ["bankrupt", "liquidation", "unknown", "margin_call", "watch", "healthy"];
export const NAMES = {bankrupt: "Bankrupt", liquidation: "Liquidation", unknown: "Unknown", margin_call: "Margin call", watch: "Watch", healthy: "Healthy"};
export const SHAPES = {bankrupt: "✕", liquidation: "◆", unknown: "?", margin_call: "▲", watch: "◐", healthy: "○"};

const whole = new Intl.NumberFormat("en", {maximumFractionDigits: 0});
const two = new Intl.NumberFormat("en", {minimumFractionDigits: 2, maximumFractionDigits: 2});
const some = new Intl.NumberFormat("en", {maximumSignificantDigits: 6});

export const count = (n) => n == null ? "–" : whole.format(n);
export const money = (n) => n == null ? "–" : Math.abs(n) >= 1e6 ? whole.format(n) : two.format(n);
export const number = (n) => n == null ? "–" : some.format(n);
export const ratio = (n) => n == null ? "–" : n >= 100 ? ">100" : Number(n).toFixed(n >= 10 ? 1 : 3);
export const percent = (n, digits = 1) => n == null ? "–" : `${n > 0 ? "+" : n < 0 ? "−" : ""}${Math.abs(n * 100).toFixed(digits)} %`;
export const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");

export function node(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value == null || value === false) continue;
    if (name === "text") made.textContent = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

// Writes only what differs: the page stays still where nothing has changed.
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const levelOf = (row) => row.unknown != null ? "unknown" : row.level ?? "unknown";

export function chip(level) {
  const made = node("span", {class: "chip"}, node("span", {class: "shape", "aria-hidden": "true"}), node("span", {class: "word"}));
  setChip(made, level);
  return made;
}

export function setChip(element, level) {
  if (element.dataset.level === level) return;
  element.dataset.level = level;
  element.firstChild.textContent = SHAPES[level];
  element.lastChild.textContent = NAMES[level];
}

// The bar ends at 1.25; liquidation, at 1, stands at four fifths of it.
export const SCALE = 1.25;

export function bar() {
  return node("span", {class: "ratio"}, node("span", {class: "track", "aria-hidden": "true"}, node("span", {class: "fill"}), ...["watch", "margin_call", "liquidation"].map((name) => node("i", {class: `mark ${name}`}))), node("span", {class: "value"}));
}

export function setBar(element, row, level) {
  const value = row.margin_ratio == null ? null : Number(row.margin_ratio);
  element.dataset.level = level;
  const share = level === "bankrupt" ? 1 : value == null ? 0 : Math.min(1, Math.max(0, value / SCALE));
  element.firstChild.firstChild.style.transform = `scaleX(${share.toFixed(4)})`;
  write(element.lastChild, level === "unknown" ? "unknown" : level === "bankrupt" ? "no equity" : ratio(value));
}

export function setThresholds(thresholds) {
  for (const [name, at] of Object.entries(thresholds)) document.documentElement.style.setProperty(`--${name}-at`, `${Math.min(100, at / SCALE * 100)}%`);
}

// How far the whole market may move: [down, up] as words. Beyond liquidation the same prices are where the pool is safe again.
export function room(level, move, far) {
  if (level === "unknown" || !move) return ["–", "–"];
  const beyond = level === "liquidation" || level === "bankrupt";
  return [move.down, move.up].map((text) => text == null ? (beyond ? "no way back" : "no limit") : beyond ? `back at ${far(Number(text))}` : far(Number(text)));
}
