//! Tests that mistakes in a pipeline are refused at load, with the line in the file, the path of
//! keys and the fix.

use crate::support::pipelines::{setup, steppers};

const MODELS: &[(&str, &str)] = &[
    ("one", ""),
    ("both", "inputs = \"a,b\""),
    ("gate", "names = \"big,small\""),
    ("whole", "int32 = \"true\""),
];

/// A streaming model: it returns any number of responses.
const REPEAT: &str = "[plugins.repeat]\npath = \"repeat.wasm\"\n[models.repeat]\nplugin = \"repeat\"\n\n";

const STREAM: &str = "[pipelines.p.steps.s]\nmodel = \"repeat\"\n\
                      in = { IN = \"input.IN\", DELAY = \"input.DELAY\", WAIT = \"input.WAIT\" }\n";

/// A valid step.
const STEP: &str = "[pipelines.p.steps.a]\nmodel = \"one\"\nin = { a = \"input.x\" }\n";

const OUTPUT: &str = "[pipelines.p]\noutputs = { r = \"a.y\" }\n";

/// Returns the errors of `hostler check` for a pipeline `p`, served by the model `p` with these
/// keys.
fn said(keys: &str, pipeline: &str) -> String {
    let manifest = format!("{}{REPEAT}[models.p]\npipeline = \"p\"\n{keys}\n{pipeline}", steppers(MODELS));
    let (code, out, error) = setup(&manifest).run(&["check", "hostler.toml"]);
    assert_eq!(code, 1, "it was not refused:\n{pipeline}\n{out}");
    error
}

/// Returns a pipeline with the step `a`, followed by `more`.
fn with(more: &str) -> String {
    format!("{OUTPUT}{STEP}{more}")
}

/// Checks that each pipeline is refused with these parts and a line of the file.
fn refused(cases: &[(String, &[&str])]) {
    for (pipeline, parts) in cases {
        let said = said("", pipeline);
        assert!(said.contains("hostler.toml:"), "without a place:\n{pipeline}\n{said}");
        for part in *parts {
            assert!(said.contains(part), "{pipeline}\n{said}\nlacks {part}");
        }
    }
}

#[test]
fn names_that_lead_nowhere() {
    refused(&[
        (with("").replace("\"a.y\"", "\"b.y\""), &["outputs.r", "no step \"b\"", "steps: a"]),
        (with("").replace("\"a.y\"", "\"a.z\""), &["outputs.r", "has no output \"z\"", "outputs: y"]),
        (
            with("").replace("\"one\"", "\"onee\""),
            &["steps.a.model", "no model \"onee\"", "did you mean \"one\"?"],
        ),
        (with("").replace("\"one\"", "\"one:2\""), &["no version \"2\"", "versions: 1"]),
        (with("").replace("{ a =", "{ b ="), &["model \"one\" has no input \"b\"", "inputs: a"]),
        (with("").replace("\"input.x\"", "\"x\""), &["steps.a.in.a", "\"x\" names no tensor", "input.NAME"]),
        (with("after = [\"c\"]\n"), &["steps.a.after", "no step \"c\""]),
        (with("when = \"c.y[0] > 1\"\n"), &["steps.a.when", "no step \"c\""]),
        (with("may_omit = [\"z\"]\n"), &["steps.a.may_omit", "has no output \"z\""]),
        (with("retyr = { attempts = 2 }\n"), &["unknown key \"retyr\"", "did you mean \"retry\"?"]),
        (
            with("[pipelines.p.steps.big]\nmodel = \"one\"\nin = { a = \"a.y\" }\n")
                .replace("steps.big]", "steps.Big]"),
            &["\"Big\" is not a valid step name"],
        ),
        (
            with("").replace("steps.a]", "steps.size]").replace("a.y", "size.y"),
            &["\"size\" is not a valid step name"],
        ),
    ]);
}

#[test]
fn edges_that_cannot_be() {
    let circle = "[pipelines.p.steps.b]\nmodel = \"one\"\nin = { a = \"a.y\" }\nafter = [\"c\"]\n\
                  [pipelines.p.steps.c]\nmodel = \"one\"\nin = { a = \"b.y\" }\nalways = true\n";
    let unread = format!(
        "[pipelines.p]\ninputs = {{ x = \"FP32[-1]\", z = \"FP32[1]\" }}\noutputs = {{ r = \"a.y\" }}\n{STEP}"
    );
    let typed = |spec: &str| unread.replace(", z = \"FP32[1]\"", "").replace("FP32[-1]", spec);
    refused(&[
        (with("").replace("\"input.x\"", "\"a.y\""), &["the steps wait for each other: a -> a", "loop"]),
        (with(circle), &["the steps wait for each other: ", "b -> c -> b"]),
        (with("[pipelines.p.steps.b]\nmodel = \"one\"\nin = { a = \"a.y\" }\n"), &["step \"b\" is unreachable", "always = true"]),
        (with("").replace("\"one\"", "\"both\""), &["nothing feeds the input \"b\" (FP32[-1])"]),
        (unread.clone(), &["inputs.z", "nothing reads the input \"z\""]),
        (typed("INT64[-1]"), &["INT64[-1] does not fit FP32[-1]"]),
        (typed("FP32[-1,3]"), &["FP32[-1,3] does not fit FP32[-1]"]),
        (typed("FLOAT"), &["\"FLOAT\" is not a datatype with a shape", "FP32[-1,18]"]),
        (with("").replace("\"input.x\"", "{ const = [1.0, \"x\"] }"), &["the constant is not FP32[-1]"]),
        (with("").replace("\"input.x\"", "{ const = [[1.0]] }"), &["the constant has shape [1,1]"]),
        (with("").replace("\"input.x\"", "[{ const = [1.0] }, \"input.x\"]"), &["a constant is always present"]),
        (with("").replace("\"a.y\"", "[\"a.y\", \"a.y\"]"), &["a.y is always present, so a.y after it is never used"]),
        (with("").replace("\"input.x\"", "\"input.x?\""), &["model \"one\" needs its input \"a\"", "remove the ?"]),
        (with("[models.q]\npipeline = \"q\"\n[pipelines.q]\noutputs = { r = \"s.r\" }\n[pipelines.q.steps.s]\nmodel = \"p\"\nin = { x = \"input.x\" }\n")
            .replace("\"one\"", "\"q\"").replace("{ a = \"input.x\" }", "{ x = \"input.x\" }").replace("a.y", "a.r"),
            &["the pipelines call each other: p -> q -> p"]),
        ("[pipelines.p]\noutputs = { r = \"a.y\" }\n".to_owned(), &["the pipeline has no steps"]),
        (STEP.to_owned(), &["the pipeline has no outputs"]),
    ]);
}

#[test]
fn outputs_that_may_be_absent_without_a_word() {
    let gate = "[pipelines.p.steps.g]\nmodel = \"gate\"\nin = { a = \"input.x\" }\nchoose = { by = \"to\", among = [\"a\"] }\n";
    refused(&[
        (
            with("when = \"params.go\"\n"),
            &["outputs.r", "may be absent", "step \"a\" has when = \"params.go\"", "\"STEP.OUTPUT?\""],
        ),
        (with("on_error = \"skip\"\n"), &["step \"a\" has on_error = \"skip\""]),
        (with("may_omit = [\"y\"]\n"), &["the model of step \"a\" may omit it"]),
        (with(gate), &["step \"a\" runs if \"g\" chooses it"]),
        (
            with("when = \"params.go\"\n[pipelines.p.steps.b]\nmodel = \"one\"\nin = { a = \"a.y\" }\n")
                .replace("r = \"a.y\"", "r = \"b.y\""),
            &["b.y <- a.y <- step \"a\" has when"],
        ),
        (
            with("when = \"params.go\"\n")
                .replace("r = \"a.y\"", "r = \"a.y?\"")
                .replace("[pipelines.p]\n", "[pipelines.p]\nrows = \"each\"\n"),
            &["may be absent for some rows", "{ const = "],
        ),
        (
            with(&gate.replace("\"to\"", "\"y\"")).replace("\"a.y\"", "\"a.y?\""),
            &["choose.by = \"y\" is FP32[-1]", "names (BYTES)"],
        ),
        (
            with(&gate.replace("[\"a\"]", "[]")),
            &["choose.among is empty; list the steps that the router chooses among"],
        ),
    ]);
}

#[test]
fn conditions_that_say_nothing() {
    let when = |condition: &str| {
        with(&format!(
            "when = \"{condition}\"\n[pipelines.p.steps.b]\nmodel = \"one\"\nin = {{ a = \"input.x\" }}\n"
        ))
        .replace("outputs = { r = \"a.y\" }", "outputs = { r = [\"a.y\", \"b.y\"] }")
    };
    refused(&[
        (
            when("b.y[0] > 1"),
            &["row 0 of a free first dimension would decide for all rows", "any(), all(), min() or max()"],
        ),
        (when("b.y > 1"), &["give an index for each dimension"]),
        (when("b.y[0][1] > 1"), &["more indices than dimensions"]),
        (when("max(b.y)"), &["expected a boolean, found a number (FP32)"]),
        (when("max(b.y) > 'big'"), &["a number (FP32) and a text cannot be ordered"]),
        (when("any(b.y)"), &["any() takes BOOL, and b.y is FP32"]),
        (when("mean(b.y) > 1"), &["no function \"mean\"", "functions: any"]),
        (when("params.x >"), &["expected a value, found the end of the condition"]),
        (when("params.x = 1"), &["\"=\" is not an operator; write =="]),
        (when("params.x ? 1 : 2"), &["there is no ?: here"]),
        (when("1 < 2 < 3"), &["comparisons cannot be chained", "&&"]),
        (when("b.error == 'overlaoded'"), &["no error kind \"overlaoded\"", "did you mean \"overloaded\"?"]),
        (when("self.y[0] > 1"), &["self belongs to loop.while"]),
        (when("request.id == 'a'"), &["request has no \"id\"", "request.bucket"]),
        (when("explain"), &["\"explain\" is incomplete", "params.explain"]),
        (when("max(b.y) / 0 > 1"), &["a division by zero"]),
        // The size of hostile expressions is bounded.
        (when(&format!("{}params.x{}", "(".repeat(100), ")".repeat(100))), &["nested more than 32 deep"]),
        (when(&format!("params.x{}", " || params.x".repeat(200))), &["at most 1024 are allowed"]),
        (when(&"!".repeat(500)), &["nested more than 32 deep"]),
        (when("params.x > 99999999999999999999999"), &["a whole number is over"]),
        (when("params.x > 1e999"), &["too large for FP64"]),
    ]);
}

#[test]
fn keys_that_do_not_go_together() {
    let gathered = "outputs = { r = { from = \"a.y\", gather = \"stack\" } }";
    let stream = format!("[pipelines.p]\noutputs = {{ r = \"s.OUT\" }}\n{STREAM}");
    let joined = "[pipelines.p.steps.t]\nmodel = \"repeat\"\nin = { IN = \"input.IN\", DELAY = \"input.DELAY\", WAIT = \"input.WAIT\" }\n\
                  [pipelines.p.steps.j]\nmodel = \"jt\"\nin = { a = \"s.OUT\", b = \"t.OUT\" }\n\
                  [plugins.jt]\npath = \"stepper.wasm\"\n[plugins.jt.config]\ninputs = \"a,b\"\nint32 = \"true\"\n[models.jt]\nplugin = \"jt\"\n";
    refused(&[
        (with("retry = { attempts = 3 }\n"), &["cannot be retried", "idempotent = true"]),
        (
            with("retry = { attempts = 3, on = [\"cancelled\"] }\n"),
            &["\"cancelled\" is not an error that can be retried"],
        ),
        (
            with("on_error = \"ignore\"\n"),
            &["steps.a.on_error", "\"ignore\" is not known", "\"fail\", \"skip\""],
        ),
        (with("each = { split = [\"b\"] }\n"), &["each splits \"b\", which is not in `in`"]),
        (with("loop = { while = \"max(self.y) < 3\", max = 0 }\n"), &["steps.a.loop.max must be at least 1"]),
        (
            with("loop = { while = \"max(self.y) < 3\", max = 3, carry = { b = \"y\" } }\n"),
            &["loop carries into \"b\""],
        ),
        (
            with("each = { split = [\"a\"] }\nloop = { while = \"max(self.y) < 3\", max = 3 }\n"),
            &["cannot have both each and loop"],
        ),
        (with("detach = true\n"), &["step \"a\" is detached"]),
        (
            with("always = true\ndetach = true\n").replace("r = \"a.y\"", "r = \"b.y\"")
                + "[pipelines.p.steps.b]\nmodel = \"one\"\nin = { a = \"input.x\" }\n",
            &["cannot have both always and detach"],
        ),
        (
            with("").replace("outputs = { r = \"a.y\" }", gathered),
            &["a.y is not of a stream, so there is nothing to gather"],
        ),
        (
            with("").replace("[pipelines.p]\n", "[pipelines.p]\nstreaming = true\n"),
            &["no output is of a stream"],
        ),
        (stream.clone(), &["the output \"r\" is of a stream", "streaming = true"]),
        (
            stream
                .replace("r = \"s.OUT\"", "r = \"j.y\"")
                .replace("[pipelines.p]\n", "[pipelines.p]\nstreaming = true\n")
                + joined,
            &["items of the streams \"s\" and \"t\" cannot be joined", "gather"],
        ),
        (
            stream.clone() + "each = { split = [\"IN\"] }\n",
            &["any number of responses, so its step cannot have each"],
        ),
        (
            with("").replace("[pipelines.p]\n", "[pipelines.p]\nrows = \"all\"\n"),
            &["rows = \"all\" is not known"],
        ),
        (
            with("").replace("[pipelines.p]\n", "[pipelines.p]\nmax_visits = 0\n"),
            &["max_visits must be at least 1"],
        ),
        (
            with("retry = { attempts = 3, on = [] }\n"),
            &["steps.a.retry.on", "no error is retried", "on = [\"overloaded\"]"],
        ),
        (with("retry = 3\n"), &["expected { attempts = NUMBER, … }"]),
        (
            with("choose = { by = \"y\", among = [\"b\", \"b\"] }\n")
                + "[pipelines.p.steps.b]\nmodel = \"one\"\nin = { a = \"a.y\" }\n",
            &["steps.a.choose.among", "\"b\" is listed twice"],
        ),
        (
            with("outputs = { s = \"a.y\" }\n"),
            &["unknown key \"outputs\"", "belongs to [pipelines.NAME]", "above the first table of a step"],
        ),
        (with("when = \"params.mode == \"strict\"\"\n"), &["in single quotes: 'params.mode == \"strict\"'"]),
        (with("when = 'not params.x'\n"), &["\"not\" is incomplete", "write ! for \"not\""]),
        (with("when = 'params.x and params.y'\n"), &["found \"and\"", "write && for"]),
        (with("when = 'len(input.x) > 2'\n"), &["did you mean \"size\"?"]),
        (with("").replace("\"input.x\"", "input.x"), &["put a text in quotes"]),
        (with("").replace("\"input.x\"", "\"inputs.x\""), &["no step \"inputs\"", "did you mean \"input\"?"]),
        (
            stream.replace("r = \"s.OUT\"", "r = { from = \"s.OUT\", gather = \"last\" }"),
            &["may be absent", "{ from = \"STEP.OUTPUT?\", gather = … }"],
        ),
        (with("params = { mode = [1] }\n"), &["steps.a.params.mode", "a parameter cannot be an array"]),
        (with("").replace("\"a.y\"", "{ from = \"a.y\" }"), &["the key \"gather\" is missing"]),
    ]);
}

#[test]
fn models_and_executors_that_do_not_fit() {
    for (keys, more, parts) in [
        ("max_batch_size = 4", "", &["model \"p:1\" is a pipeline and cannot have max_batch_size"][..]),
        ("path = \"identity.onnx\"", "", &["is a pipeline and cannot have path"]),
        (
            "",
            "[policy]\np = \"cpu\"\n",
            &["executor \"cpu\" of kind thread-pool cannot run it", "kind pipeline"],
        ),
        (
            "",
            "[policy]\none = \"pipeline\"\n",
            &["is not a pipeline, and executor \"pipeline\" runs pipelines only"],
        ),
        (
            "",
            "[executors.pipeline]\nkind = \"onnx\"\n",
            &["executor \"pipeline\" always exists and cannot be onnx"],
        ),
        ("", "[executors.pipeline]\nthreads = 2\n", &["threads does not belong to its kind"]),
        (
            "",
            "[executors.c]\nkind = \"custom\"\nplugin = \"one\"\ninner = \"pipeline\"\n",
            &["cannot wrap \"pipeline\", which runs pipelines"],
        ),
    ] {
        let said = said(keys, &(with("") + more));
        for part in parts {
            assert!(said.contains(part), "{said}\nlacks {part}");
        }
    }
    let manifest = format!("{}[models.p]\npipeline = \"q\"\n{}", steppers(MODELS), with(""));
    let (_, _, said) = setup(&manifest).run(&["check", "hostler.toml", "--quick"]);
    assert!(said.contains("no pipeline \"q\" (did you mean \"p\"?)"), "{said}");
}

#[test]
fn a_fault_is_shown_where_it_stands() {
    let said = said("", &with("when = \"params.a && (params.b > 'x' + 1)\"\n"));
    let line = said.lines().position(|line| line.contains("when = ")).expect("the line is shown");
    let marked = said.lines().nth(line + 1).unwrap();
    let source = said.lines().nth(line).unwrap();
    let at = marked.find('^').expect("a mark");
    assert_eq!(&source[at..at + 3], "'x'", "{said}");
}

#[test]
fn steps_that_see_tensors_are_pointed_out() {
    let manifest = format!("{}[models.p]\npipeline = \"p\"\n{}", steppers(MODELS), with(""));
    let manifest = manifest.replace("[models.one]\n", "[models.one]\ntransformer = \"t\"\n")
        + "[plugins.t]\npath = \"echo.wasm\"\n";
    let setup = setup(&manifest).file("echo.wasm", crate::support::plugin("echo"));
    let (_, out, error) = setup.run(&["check", "hostler.toml", "--quick"]);
    assert!(
        out.contains("step \"a\" sees tensors; the transformer of model \"one:1\" is not used"),
        "{out}{error}"
    );
}
