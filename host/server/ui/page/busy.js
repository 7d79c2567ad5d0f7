// Buttons that start one act at a time.

/** Runs `update`, which may hide some of these buttons, and keeps the focus among them. */
export function keepFocus(buttons, update) {
  const focused = buttons.includes(document.activeElement) ? document.activeElement : null;
  update();
  if (focused?.hidden) buttons.find((button) => !button.hidden)?.focus();
}

/**
 * Marks these buttons as busy while `act` runs, and refuses further clicks. They stay focusable, so
 * that the keyboard keeps its place.
 */
export async function busy(buttons, act) {
  if (buttons.some((button) => button.getAttribute("aria-disabled") === "true")) return;
  for (const button of buttons) button.setAttribute("aria-disabled", "true");
  try {
    await act();
  } finally {
    for (const button of buttons) button.removeAttribute("aria-disabled");
  }
}
