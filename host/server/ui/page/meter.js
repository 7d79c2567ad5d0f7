// A bar for a share from 0 to 1.

import { setAttribute, svg } from "./dom.js";

export function meter(label) {
  const bar = svg("rect", { class: "bar", height: "10", width: "0" });
  const element = svg(
    "svg",
    {
      class: "meter",
      viewBox: "0 0 100 10",
      preserveAspectRatio: "none",
      role: "meter",
      "aria-label": label,
      "aria-valuemin": "0",
      "aria-valuemax": "100",
    },
    bar,
  );
  return {
    element,
    show(share) {
      const value = Math.round(Math.min(Math.max(share, 0), 1) * 100);
      setAttribute(element, "aria-valuenow", value);
      setAttribute(bar, "width", value);
      setAttribute(bar, "class", value >= 90 ? "bar full" : value >= 70 ? "bar high" : "bar");
    },
  };
}
