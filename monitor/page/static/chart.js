// Margin ratio over time, with the thresholds as lines.
/* global uPlot */

const POINTS = 1800;

export class RatioChart {
  constructor(root, points, thresholds) {
    this.root = root;
    this.data = [points.map(([at]) => at), points.map(([, ratio]) => ratio)];
    this.thresholds = thresholds ?? {};
    this.make();
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.again = () => this.make();
    this.dark.addEventListener("change", this.again);
    this.watch = new ResizeObserver(() => this.plot.setSize(this.size()));
    this.watch.observe(root);
  }

  size() { return {width: Math.max(240, this.root.clientWidth), height: 190}; }

  make() {
    this.plot?.destroy();
    const style = getComputedStyle(document.documentElement), colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const axis = {stroke: colour("faint"), grid: {stroke: colour("line"), width: 1}, ticks: {show: false}, font: "11px system-ui"};
    this.plot = new uPlot({
      ...this.size(), legend: {show: false}, cursor: {y: false}, padding: [8, 8, 0, 0],
      scales: {y: {range: (_plot, low, high) => [Math.max(0, Math.min(low ?? 0, 0.6) - 0.05), Math.max(1.05, Math.min((high ?? 1) + 0.05, 3))]}},
      axes: [axis, {...axis, size: 42, values: (_plot, ticks) => ticks.map((tick) => tick.toFixed(2))}],
      series: [{}, {label: "ratio", stroke: colour("ink"), width: 1.5, points: {show: false}, fill: colour("wash")}],
      hooks: {draw: [(plot) => this.drawThresholds(plot, colour)]},
    }, this.data, this.root);
    this.plot.root.setAttribute("aria-hidden", "true");
  }

  drawThresholds(plot, colour) {
    const {ctx, bbox} = plot;
    ctx.save();
    ctx.setLineDash([4, 4]);
    for (const [name, at] of Object.entries(this.thresholds)) {
      const y = plot.valToPos(at, "y", true);
      if (y < bbox.top || y > bbox.top + bbox.height) continue;
      ctx.strokeStyle = colour(name);
      ctx.beginPath(); ctx.moveTo(bbox.left, y); ctx.lineTo(bbox.left + bbox.width, y); ctx.stroke();
    }
    ctx.restore();
  }

  add(at, ratio) {
    const [times, ratios] = this.data;
    if (times.length && at - times[times.length - 1] < 0.3) return;
    times.push(at); ratios.push(ratio);
    if (times.length > POINTS) { times.shift(); ratios.shift(); }
    this.plot.setData(this.data);
  }

  destroy() {
    this.watch.disconnect();
    this.dark.removeEventListener("change", this.again);
    this.plot.destroy();
  }
}
