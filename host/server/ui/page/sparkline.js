// A small chart of one series.

import { setAttribute, svg } from "./dom.js";

const [WIDTH, HEIGHT] = [120, 24];

export function line() {
  const area = svg("path", { class: "area" });
  const path = svg("path", { class: "line" });
  const element = svg(
    "svg",
    {
      class: "sparkline",
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      "aria-hidden": "true",
    },
    area,
    path,
  );
  return {
    element,
    show(values) {
      if (values.length < 2) return;
      const top = Math.max(...values, 1e-9);
      const points = values.map((value, index) => {
        const x = (index / (values.length - 1)) * WIDTH;
        return `${x.toFixed(1)} ${(HEIGHT - 1 - (value / top) * (HEIGHT - 3)).toFixed(1)}`;
      });
      setAttribute(path, "d", `M${points.join("L")}`);
      setAttribute(area, "d", `M${points.join("L")}L${WIDTH} ${HEIGHT}L0 ${HEIGHT}Z`);
    },
  };
}
