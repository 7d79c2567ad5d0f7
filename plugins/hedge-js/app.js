// A hedge in ten lines: makes a second call when the first has no answer after 20 ms. Use
// `plugins/hedge` instead in production: it learns the delay, keeps a budget and handles errors.

import * as calls from "../../sdk/js/executor.js";
import * as hostler from "../../sdk/js/hostler.js";

export const executor = calls.executor({
  submit(request, inputs, model) {
    const first = model.start(inputs);
    if (calls.waitAny([first], 20) !== null) return calls.outcome(first);
    hostler.count("hedges");
    const second = model.start(inputs);
    const [winner, loser] = calls.waitAny([first, second]) === 0 ? [first, second] : [second, first];
    calls.cancel(loser);
    return calls.outcome(winner);
  },
});
