// One line of the event feed.
import {clock, node, NAMES, number, ratio, SHAPES} from "./format.js";

export function eventLine(event) {
  const level = event.unknown != null ? "unknown" : event.level ?? "unknown";
  const at = event.decided_at_ns ? clock(event.decided_at_ns / 1e6) : "";
  const what = event.kind === "blind" ? "blind spell" : event.kind === "numbers" ? "numbers" : NAMES[level];
  const cause = event.cause?.instrument ? ` · ${event.cause.instrument}${event.cause.price != null ? ` ${number(Number(event.cause.price))}` : ""}` : event.cause?.kind ? ` · ${event.cause.kind}` : "";
  const from = event.previous && event.previous !== event.level ? `from ${NAMES[event.previous].toLowerCase()}` : "";
  return node("li", {"data-level": level},
    node("time", {text: at}),
    node("span", {class: "shape", "aria-hidden": "true", text: SHAPES[level]}),
    node("span", {class: "what"}, node("b", {text: what}), event.account ? node("a", {href: `#/account/${encodeURIComponent(event.account)}`, text: event.account}) : null),
    node("small", {text: event.unknown ?? [from, event.margin_ratio != null ? `ratio ${ratio(Number(event.margin_ratio))}` : ""].filter(Boolean).join(", ") + cause}));
}
