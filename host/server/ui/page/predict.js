// A form that sends one request.

import { clear, errorTerms } from "./announce.js";
import { badge, button, el, field, link, route, setText } from "./dom.js";
import { example } from "./example.js";
import { digits, milliseconds, plural, routeName } from "./format.js";
import { plainTable } from "./table.js";
import { bytesBlock, jsonBlock, tensorList } from "./values.js";

const OUTCOMES = { ok: "good", error: "bad", skipped: "idle" };
/** What was typed for each model, while the page is open. */
const drafts = new Map();
let latest = "";

export function predict(app, { query, signal }) {
  const names = el("datalist", { id: "predict-models" });
  const model = el("input", {
    name: "model",
    list: "predict-models",
    value: query.get("model") ?? latest,
    required: true,
    placeholder: "name, or name:version",
    spellcheck: "false",
    autocomplete: "off",
  });
  const data = el("textarea", {
    name: "data",
    rows: 9,
    spellcheck: "false",
    class: "mono",
    autocomplete: "off",
  });
  const parameters = el("textarea", {
    name: "parameters",
    rows: 2,
    spellcheck: "false",
    class: "mono",
    placeholder: "{}",
  });
  const timeout = el("input", {
    name: "timeout_ms",
    type: "number",
    min: 1,
    step: 1,
    placeholder: "the model's",
  });
  const send = el("button", { type: "submit", class: "primary" }, "Send");
  const cancel = button("Cancel", () => running?.abort(), { hidden: true });
  const elapsed = el("span", { class: "quiet" });
  const specs = el("div", { class: "specs" });
  const answer = el(
    "div",
    { class: "stack" },
    el("p", { class: "quiet" }, "Nothing has been sent yet."),
  );
  let catalog = new Map();
  let running = null;
  let chosen = null;

  const choose = () => {
    app.remember(route("predict", null, { model: model.value }));
    const spec = catalog.get(model.value.trim()) ?? null;
    if (spec === chosen) return;
    chosen = spec;
    latest = model.value;
    if (!spec) {
      specs.replaceChildren();
      return;
    }
    const made = example(spec);
    data.value = drafts.get(model.value) ?? made.text;
    specs.replaceChildren(
      ...specsOf(spec, made.note, app.monitor.status, () => {
        data.value = made.text;
        drafts.delete(model.value);
      }),
    );
  };
  model.addEventListener("input", choose);
  data.addEventListener("input", () => drafts.set(model.value, data.value));

  app.api
    .get("models", signal)
    .then((list) => {
      catalog = readCatalog(list.models);
      names.replaceChildren(...[...catalog.keys()].map((name) => el("option", { value: name })));
      choose();
    })
    .catch((error) => app.announce.error("No list of models", error));

  async function submit(event) {
    event.preventDefault();
    if (running) return;
    let text;
    try {
      text = requestText(model.value.trim(), catalog, data.value, parameters.value, timeout.value);
    } catch (error) {
      app.announce("bad", "Not sent", error.message);
      answer.replaceChildren(el("p", { class: "quiet" }, "The last request was not sent."));
      return;
    }
    clear();
    running = new AbortController();
    const abort = () => running?.abort();
    signal.addEventListener("abort", abort, { once: true });
    const begun = performance.now();
    const tick = setInterval(
      () => setText(elapsed, `${((performance.now() - begun) / 1000).toFixed(1)} s`),
      100,
    );
    send.setAttribute("aria-disabled", "true");
    cancel.hidden = false;
    try {
      const result = await app.api.send("POST", "predict", { text, signal: running.signal });
      show(answer, result, null);
      const name = routeName(result.model, result.version);
      app.announce.quietly(`${name} answered in ${milliseconds(result.elapsed_ms)}.`);
    } catch (error) {
      if (signal.aborted) return;
      if (error.name === "AbortError") {
        answer.replaceChildren(
          el("p", {}, badge("cancelled", "warn"), " The request was cancelled."),
        );
        app.announce.quietly("The request was cancelled.");
      } else {
        show(answer, error.body, error);
        app.announce.quietly(`Error: ${error.message}`);
      }
    } finally {
      clearInterval(tick);
      signal.removeEventListener("abort", abort);
      running = null;
      if (cancel === document.activeElement) send.focus();
      cancel.hidden = true;
      send.removeAttribute("aria-disabled");
      setText(elapsed, "");
      app.monitor.refresh();
    }
  }

  data.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit(event);
  });
  return {
    title: "Predict",
    element: el(
      "div",
      { class: "columns" },
      el(
        "form",
        { class: "card", onsubmit: submit },
        field("Model", model),
        names,
        specs,
        field("Data, as JSON", data),
        el(
          "div",
          { class: "toolbar" },
          field("Parameters, as JSON", parameters),
          field("Timeout in ms", timeout),
        ),
        el(
          "p",
          { class: "actions" },
          send,
          cancel,
          elapsed,
          el("span", { class: "quiet small" }, "Ctrl + Enter in the data sends as well."),
        ),
      ),
      el("section", { class: "card", "aria-label": "Answer" }, el("h2", {}, "Answer"), answer),
    ),
  };
}

/**
 * The names that a request may use: with a version, and without one. A name alone has the tensors of
 * its first version, and `versions` if there are several.
 */
function readCatalog(models) {
  const catalog = new Map();
  for (const [name, all] of Map.groupBy(models, (one) => one.name)) {
    const versions = all.map((one) => one.version);
    catalog.set(name, all.length > 1 ? { ...all[0], versions } : all[0]);
    for (const one of all) catalog.set(routeName(name, one.version), one);
  }
  return catalog;
}

/** The data goes into the body as it was typed, so that its numbers keep all their digits. */
function requestText(name, catalog, data, parameters, timeout) {
  const valid = (text, what) => {
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new Error(`The ${what} are not JSON: ${error.message}`);
    }
  };
  valid(data, "data");
  const spec = catalog.get(name);
  const versioned = spec && name !== spec.name;
  const parts = [`"model":${JSON.stringify(versioned ? spec.name : name)}`];
  if (versioned) parts.push(`"version":${JSON.stringify(spec.version)}`);
  parts.push(`"data":${data}`);
  if (parameters.trim()) {
    valid(parameters, "parameters");
    parts.push(`"parameters":${parameters}`);
  }
  if (timeout) parts.push(`"timeout_ms":${Number(timeout)}`);
  return `{${parts.join(",")}}`;
}

function specsOf(spec, note, status, reset) {
  const limit = spec.timeout_ms ? `, timeout ${milliseconds(spec.timeout_ms)}` : "";
  const live = status?.models.find(
    (one) => one.model === spec.name && one.version === spec.version,
  );
  const row = (side) => (tensor) => [
    tensor.name,
    side,
    tensor.datatype,
    el("code", {}, tensor.rank === "any" ? "[...]" : `[${(tensor.shape ?? []).join(", ")}]`),
  ];
  const rows = [
    ...(spec.inputs ?? []).map(row("input")),
    ...(spec.outputs ?? []).map(row("output")),
  ];
  const links = [
    spec.transformer && link(`Log of ${spec.transformer}`, route("log", spec.transformer)),
    live?.pipeline && link(`Graph of ${live.pipeline}`, route("pipelines", live.pipeline)),
  ].filter(Boolean);
  return [
    spec.versions &&
      el(
        "p",
        { class: "small" },
        `The host chooses among versions ${spec.versions.join(", ")}; write `,
        el("code", {}, routeName(spec.name, spec.version)),
        ` to name one. Below is version ${spec.version}.`,
      ),
    rows.length
      ? plainTable("Inputs and outputs", ["Tensor", "Side", "Datatype", "Shape"], rows, "tight")
      : el("p", { class: "quiet" }, "The model names no inputs or outputs."),
    el("p", { class: "small quiet" }, note),
    el(
      "p",
      { class: "actions small" },
      el("span", { class: "quiet" }, `executor ${spec.executor}${limit}`),
      links,
      button("Reset to the example", reset),
    ),
  ].filter(Boolean);
}

function show(place, body, error) {
  const facts = [
    body?.elapsed_ms !== undefined && `${milliseconds(body.elapsed_ms)} in the host`,
    body?.queue_ms !== undefined && `${milliseconds(body.queue_ms)} in the queue`,
    body?.responses !== undefined && plural(body.responses, "response"),
    body?.is_cut && "the model was stopped because it made more than are shown",
  ]
    .filter(Boolean)
    .join(", ");
  const result = error
    ? [
        el(
          "p",
          { class: "text" },
          badge(`${error.status ?? "no answer"}`, "bad"),
          " ",
          error.message,
        ),
        errorTerms(error),
      ]
    : [
        body.base64 !== undefined
          ? bytesBlock(body.base64, body.content_type)
          : jsonBlock(body.result, "Result"),
      ];
  place.replaceChildren(
    ...[
      el(
        "p",
        { class: "small" },
        error ? null : badge(routeName(body.model, body.version), "good"),
        " ",
        facts,
        body?.id && [" ", el("span", { class: "quiet" }, "request "), el("code", {}, body.id)],
      ),
      ...result,
      body?.steps?.length ? el("h3", {}, "Steps") : null,
      body?.steps?.length ? stepTable(body.steps) : null,
      body?.more_steps
        ? el("p", { class: "quiet" }, `${plural(body.more_steps, "step")} more`)
        : null,
    ].filter(Boolean),
  );
}

function stepTable(steps) {
  return plainTable(
    "Steps of the pipeline",
    ["Step", "Outcome", ["ms", "number"], ["Waited ms", "number"], "Inputs", "Outputs"],
    steps.map((step) => [
      [step.step, el("div", { class: "quiet small" }, step.model ?? "")],
      [
        badge(step.outcome, OUTCOMES[step.outcome] ?? "idle"),
        step.why && el("div", { class: "small" }, step.why),
      ],
      digits(step.ms),
      digits(step.queue_ms),
      tensorList(step.inputs),
      tensorList(step.outputs),
    ]),
    "steps",
  );
}
