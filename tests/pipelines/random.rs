//! Compares random graphs with a plain interpreter: every answer must be equal, and no work may be
//! left afterwards.

use crate::support::pipelines::{setup, steppers};
use crate::support::{Client, Host, repeats};
use serde_json::{Value, json};
use std::fmt::Write as _;

const GRAPHS: usize = 50;
const STEPS_MAX: usize = 30;

/// The number of clients, each with its own graphs.
const CLIENTS: usize = 4;

/// Returns the number of requests of all clients: 10,000 in a soak with 400 repeats.
fn requests() -> usize {
    repeats(60) * 25
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Model {
    One,
    Both,
    /// Fails below 5.
    Fails,
    /// Omits its output below 4.
    Omits,
    /// Fails every other time.
    Flaky,
    Gate,
}

#[derive(Clone, Debug)]
enum Source {
    X,
    Step(usize),
    Const(f32),
}

#[derive(Clone, Debug)]
enum Condition {
    Over(usize, f32),
    Has(usize),
    Ran(usize),
    Not(Box<Condition>),
    And(Box<Condition>, Box<Condition>),
    Param,
}

#[derive(Clone, Debug)]
struct Step {
    model: Model,
    inputs: Vec<Vec<Source>>,
    when: Option<Condition>,
    among: Vec<usize>,
    skips: bool,
    /// Limit, maximum number of rounds, and whether the step succeeds at that maximum.
    looped: Option<(f32, usize, bool)>,
    each: Option<usize>,
}

struct Graph(Vec<Step>);

/// The state of one step in the interpreter.
#[derive(Clone, Default)]
struct Done {
    y: Option<Vec<f32>>,
    ran: bool,
    chosen: Vec<usize>,
}

fn chance(random: &mut fastrand::Rng, percent: u32) -> bool {
    random.u32(0..100) < percent
}

impl Graph {
    fn make(random: &mut fastrand::Rng) -> Self {
        let count = random.usize(1..=STEPS_MAX);
        let mut steps: Vec<Step> = Vec::new();
        let mut has_flaky = false;
        for at in 0..count {
            let last = at + 1 == count;
            let mut model = match random.u32(0..10) {
                0..=3 => Model::One,
                4 | 5 => Model::Both,
                6 => Model::Fails,
                7 => Model::Omits,
                8 => Model::Flaky,
                _ => Model::Gate,
            };
            if (model == Model::Flaky && has_flaky) || (model == Model::Gate && last) {
                model = Model::One;
            }
            has_flaky |= model == Model::Flaky;
            let source = |random: &mut fastrand::Rng| match random.u32(0..4) {
                0 => Source::X,
                _ if at == 0 => Source::X,
                _ => Source::Step(random.usize(0..at)),
            };
            let mut inputs = Vec::new();
            for _ in 0..if model == Model::Both { 2 } else { 1 } {
                let mut members = vec![source(random)];
                // A source that is always present ends a list; the host would refuse sources after
                // it.
                while matches!(members.last(), Some(Source::Step(step)) if may_be_absent(&steps, *step))
                    && chance(random, 50)
                {
                    members.push(if chance(random, 40) {
                        Source::Const(random.u32(0..9) as f32)
                    } else {
                        source(random)
                    });
                }
                inputs.push(members);
            }
            let mut among = Vec::new();
            if model == Model::Gate {
                among = (at + 1..count).filter(|_| chance(random, 20)).take(3).collect();
                if among.is_empty() {
                    among.push(at + 1);
                }
            }
            let plain = model == Model::One || model == Model::Fails;
            let looped = (model == Model::One && chance(random, 20))
                .then(|| (random.u32(0..20) as f32, random.usize(1..6), random.bool()));
            let each = (plain && looped.is_none() && chance(random, 25)).then(|| random.usize(1..4));
            let when = (at > 0 && chance(random, 25)).then(|| Condition::make(random, at));
            steps.push(Step { model, inputs, when, among, skips: chance(random, 60), looped, each });
        }
        Graph(steps)
    }

    fn manifest(&self, name: &str, client: usize) -> String {
        let mut text = format!(
            "[models.{name}]\npipeline = \"{name}\"\n[pipelines.{name}]\ninputs = {{ x = \"FP32[-1]\" }}\n"
        );
        let outputs: Vec<String> = (0..self.0.len()).map(|at| format!("o{at} = \"s{at}.y?\"")).collect();
        let _ = writeln!(text, "outputs = {{ {} }}", outputs.join(", "));
        if !self.reads_x() {
            text = text.replace("inputs = { x = \"FP32[-1]\" }\n", "");
        }
        for (at, step) in self.0.iter().enumerate() {
            let model = match step.model {
                Model::One => "one".to_owned(),
                Model::Both => "both".to_owned(),
                Model::Fails => "fails".to_owned(),
                Model::Omits => "omits".to_owned(),
                Model::Flaky => format!("flaky{client}"),
                Model::Gate => format!("gate{}", step.among.len()),
            };
            let _ = writeln!(text, "[pipelines.{name}.steps.s{at}]\nmodel = \"{model}\"");
            let inputs = ["a", "b"].iter().zip(&step.inputs).map(|(input, members)| {
                let members: Vec<String> = members.iter().map(Source::shown).collect();
                format!("{input} = [{}]", members.join(", "))
            });
            let _ = writeln!(text, "in = {{ {} }}", inputs.collect::<Vec<_>>().join(", "));
            if step.skips {
                text += "on_error = \"skip\"\n";
            }
            if step.model == Model::Omits {
                text += "may_omit = [\"y\"]\n";
            }
            if step.model == Model::Flaky {
                text += "retry = { attempts = 4, interval_ms = 0 }\n";
            }
            if let Some(when) = &step.when {
                let _ = writeln!(text, "when = \"{}\"", when.shown());
            }
            if !step.among.is_empty() {
                let among: Vec<String> = step.among.iter().map(|step| format!("\"s{step}\"")).collect();
                let _ = writeln!(text, "choose = {{ by = \"to\", among = [{}] }}", among.join(", "));
            }
            if let Some((limit, max, goes_on)) = step.looped {
                let at_max = if goes_on { "go-on" } else { "fail" };
                let _ = writeln!(
                    text,
                    "loop = {{ while = \"max(self.y) < {limit:?}\", max = {max}, at_max = \"{at_max}\", carry = {{ a = \"y\" }} }}"
                );
            }
            if let Some(rows) = step.each {
                let _ = writeln!(text, "each = {{ split = [\"a\"], rows = {rows} }}");
            }
        }
        text
    }

    fn reads_x(&self) -> bool {
        self.0.iter().flat_map(|step| step.inputs.iter().flatten()).any(|source| matches!(source, Source::X))
    }

    /// Returns the answer, or `None` if a step fails that may not be skipped.
    fn run(&self, x: &[f32], param: Option<bool>) -> Option<Value> {
        let mut done: Vec<Done> = Vec::new();
        for (at, step) in self.0.iter().enumerate() {
            done.push(self.step(at, step, x, param, &done)?);
        }
        let outputs =
            done.into_iter().enumerate().filter_map(|(at, done)| Some((format!("o{at}"), json!(done.y?))));
        Some(Value::Object(outputs.collect()))
    }

    fn step(&self, at: usize, step: &Step, x: &[f32], param: Option<bool>, done: &[Done]) -> Option<Done> {
        let routers = self.0[..at].iter().enumerate().filter(|(_, router)| router.among.contains(&at));
        if routers.into_iter().any(|(router, _)| !done[router].chosen.contains(&at)) {
            return Some(Done::default());
        }
        let mut inputs = Vec::new();
        for members in &step.inputs {
            let found = members.iter().find_map(|source| match source {
                Source::X => Some(x.to_vec()),
                Source::Const(value) => Some(vec![*value]),
                Source::Step(step) => done[*step].y.clone(),
            });
            let Some(found) = found else { return Some(Done::default()) };
            inputs.push(found);
        }
        if step.when.as_ref().is_some_and(|when| !when.holds(param, done)) {
            return Some(Done::default());
        }
        match step.call(inputs) {
            Ok(done) => Some(done),
            Err(()) if step.skips => Some(Done { ran: true, ..Done::default() }),
            Err(()) => None,
        }
    }
}

/// Returns whether a step may be absent, as far as needed to extend a list; the host detects more
/// cases.
fn may_be_absent(steps: &[Step], at: usize) -> bool {
    let step = &steps[at];
    let chosen = steps[..at].iter().any(|router| router.among.contains(&at));
    let fed = step.inputs.iter().any(|members| {
        members.iter().all(|source| matches!(source, Source::Step(step) if may_be_absent(steps, *step)))
    });
    step.skips || step.when.is_some() || step.model == Model::Omits || chosen || fed
}

impl Step {
    fn call(&self, mut inputs: Vec<Vec<f32>>) -> Result<Done, ()> {
        let mut done = Done { ran: true, ..Done::default() };
        if let Some(rows) = self.each {
            let mut y = Vec::new();
            for part in inputs[0].chunks(rows) {
                y.extend(self.once(&[part.to_vec()])?.y.unwrap_or_default());
            }
            // Without rows, the step does not call its model.
            return Ok(Done { y: Some(y), ran: !inputs[0].is_empty(), ..done });
        }
        let Some((limit, max, goes_on)) = self.looped else { return self.once(&inputs) };
        for round in 1..=max {
            done = self.once(&inputs)?;
            let y = done.y.clone().unwrap_or_default();
            let again = y.iter().copied().reduce(f32::max).is_some_and(|most| most < limit);
            if !again || (round == max && goes_on) {
                return Ok(done);
            }
            inputs[0] = y;
        }
        Err(())
    }

    fn once(&self, inputs: &[Vec<f32>]) -> Result<Done, ()> {
        let mut y = inputs[0].clone();
        let first = y.first().copied().unwrap_or(0.0);
        if self.model == Model::Fails && first < 5.0 {
            return Err(());
        }
        for other in &inputs[1..] {
            y.iter_mut().zip(other).for_each(|(y, other)| *y += other);
        }
        if self.model == Model::One {
            y.iter_mut().for_each(|y| *y += 1.0);
        }
        let omits = self.model == Model::Omits && first < 4.0;
        let bits = first as i64;
        let chosen = self.among.iter().enumerate().filter(|(place, _)| bits >> place & 1 == 1);
        Ok(Done { y: (!omits).then_some(y), ran: true, chosen: chosen.map(|(_, step)| *step).collect() })
    }
}

impl Source {
    fn shown(&self) -> String {
        match self {
            Source::X => "\"input.x\"".to_owned(),
            Source::Step(step) => format!("\"s{step}.y\""),
            Source::Const(value) => format!("{{ const = [{value:?}] }}"),
        }
    }
}

impl Condition {
    fn make(random: &mut fastrand::Rng, before: usize) -> Self {
        let step = random.usize(0..before);
        match random.u32(0..7) {
            0 | 1 => Condition::Over(step, random.u32(0..12) as f32),
            2 => Condition::Has(step),
            3 => Condition::Ran(step),
            4 => Condition::Not(Box::new(Condition::make(random, before))),
            5 => Condition::And(
                Box::new(Condition::make(random, before)),
                Box::new(Condition::make(random, before)),
            ),
            _ => Condition::Param,
        }
    }

    fn shown(&self) -> String {
        match self {
            Condition::Over(step, limit) => format!("max(s{step}.y) > {limit:?}"),
            Condition::Has(step) => format!("has(s{step}.y)"),
            Condition::Ran(step) => format!("s{step}.ran"),
            Condition::Not(inner) => format!("!({})", inner.shown()),
            Condition::And(a, b) => format!("({} && {})", a.shown(), b.shown()),
            Condition::Param => "params.go".to_owned(),
        }
    }

    fn holds(&self, param: Option<bool>, done: &[Done]) -> bool {
        match self {
            Condition::Over(step, limit) => {
                let most = done[*step].y.iter().flatten().copied().reduce(f32::max);
                most.is_some_and(|most| most > *limit)
            }
            Condition::Has(step) => done[*step].y.is_some(),
            Condition::Ran(step) => done[*step].ran,
            Condition::Not(inner) => !inner.holds(param, done),
            Condition::And(a, b) => a.holds(param, done) && b.holds(param, done),
            Condition::Param => param == Some(true),
        }
    }
}

fn ask(host: &Host, client: &mut Client, name: &str, graph: &Graph, random: &mut fastrand::Rng, seed: u64) {
    let x: Vec<f32> = (0..random.usize(0..4)).map(|_| random.u32(0..14) as f32).collect();
    let param = [None, Some(true), Some(false)][random.usize(0..3)];
    let mut body = json!({"model": name, "data": if graph.reads_x() { json!({"x": x}) } else { json!({}) }});
    if let Some(param) = param {
        body["parameters"] = json!({"go": param});
    }
    let answer = client.post("/predict", body.to_string());
    match graph.run(&x, param) {
        Some(expected) => {
            assert_eq!(answer.status, 200, "seed {seed}, {name}, {body}: {}", answer.text());
            assert_eq!(answer.result(), expected, "seed {seed}, {name}, {body}\n{}", host.log());
        }
        None => {
            assert_eq!(answer.status, 500, "seed {seed}, {name}, {body}: {}", answer.text());
            assert!(answer.error()["step"].is_string(), "seed {seed}: {}", answer.text());
        }
    }
}

#[test]
fn every_answer_is_that_of_a_plain_interpreter() {
    let seed = std::env::var("HOSTLER_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_129);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let graphs: Vec<Graph> = (0..GRAPHS).map(|_| Graph::make(&mut random)).collect();
    let mut models = vec![
        ("one".to_owned(), "add = \"1\"".to_owned()),
        ("both".to_owned(), "inputs = \"a,b\"".to_owned()),
        ("fails".to_owned(), "fail_below = \"5\"".to_owned()),
        ("omits".to_owned(), "omit_below = \"4\"".to_owned()),
    ];
    models.extend((0..CLIENTS).map(|client| (format!("flaky{client}"), "flaky = \"1\"".to_owned())));
    let models: Vec<(&str, &str)> = models.iter().map(|(name, config)| (&**name, &**config)).collect();
    let mut manifest = steppers(&models);
    for client in 0..CLIENTS {
        let table = format!("[models.flaky{client}]\n");
        manifest = manifest.replace(&table, &format!("{table}idempotent = true\n"));
    }
    // One gate per number of choices: a gate chooses by number, and graphs differ in the steps to
    // choose from.
    for count in 1..=3 {
        let config = format!("names = \"{}\"\nnumbers = \"true\"", vec!["x"; count].join(","));
        manifest += &steppers(&[(&format!("gate{count}"), &config)]);
    }
    for (at, graph) in graphs.iter().enumerate() {
        manifest += &graph.manifest(&format!("g{at}"), at % CLIENTS);
    }
    let host = setup(&manifest).start();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (host, graphs) = (&host, &graphs);
            scope.spawn(move || {
                let mut connection = host.client();
                let mut random = fastrand::Rng::with_seed(seed + client as u64);
                for number in 0..requests() / CLIENTS {
                    let own = graphs.len().div_ceil(CLIENTS);
                    let at = (number % own) * CLIENTS + client;
                    let Some(graph) = graphs.get(at) else { continue };
                    ask(host, &mut connection, &format!("g{at}"), graph, &mut random, seed);
                }
            });
        }
    });
    host.wait_for_idle("pipeline");
    host.wait_for_idle("cpu");
}
